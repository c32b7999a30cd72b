"""`crossloom demo` from Python: one configuration in, one run folder and one record out."""

import tempfile
from pathlib import Path

from crossloom.codesign import configure, run
from crossloom.report import write_report


def main() -> None:
    config = configure("lenet5", "digits", "crimp-isaac", train_images=400, epochs=3, images={"crossbar": 100})
    print(f"configuration {config.hash[:12]}")
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, Path(folder) / "trial")
        print({rung: f"{100 * value:.1f} %" for rung, value in result.accuracy.items()})
        print(f"{result.crossbars} crossbars, {result.area_m2 * 1e6:.3f} mm², {result.energy_j * 1e9:.0f} nJ an image")
        agreement = result.agreement["integer=crossbar"]
        print(f"integer and crossbar rung: every logit of {agreement.images} images equal: {agreement.equal}")
        assert agreement.equal
        page = write_report(Path(folder) / "trial")
        print(f"{page.name}: {page.stat().st_size // 1024} KiB, opens offline")


if __name__ == "__main__":
    main()
