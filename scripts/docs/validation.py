"""Published figures of the shipped chips beside what the cost model makes of them."""

from collections.abc import Iterator

from crossloom.cost import checks
from crossloom.cost.checks import Check
from crossloom.hardware import Chip, load, names

HELD_OUT = "no part of the fit"
"""What a hardware file says, in its condition, of a published figure that no factor was fitted to."""

SAME_TABLE = {"isaac", "crimp-isaac-fp", "rram-binary", "sot-mram", "sot-mram-and", "stt-mram", "sram-cim"}
"""Chips whose component figures are the published table's own."""

HEAD = """# How far to trust it

## Chips with published figures

A hardware file may hold figures that its paper prints of the whole chip, under `published`. Here they stand beside the
model's. How much an agreement says depends on where the model's own figures come from, so each row says what kind of
comparison it is:

- **same table**: the component figures were derived from the same paper's table. A ratio of one says that actions are
  counted as the paper counts them and that nothing was left out or counted twice. It says nothing about silicon.
- **fitted**: the hardware file scales components by factors that were fitted to the chip's published figures
  (`components.calibration`). A ratio near one is the quality of a fit, and with one figure and one free factor it is
  one by construction. *Raw* is the model without the factors, and the honest measure of a prediction.
- **held out**: the chip has fitted factors, but not to this figure.
- **independent**: neither; component figures come from elsewhere.

The same table for a chip of your own:

```python
from crossloom.cost import checks
from crossloom.hardware import load

for check in checks(load("neurram")):
    print(check.name, check.unit, check.published, check.ours, f"{check.ratio:.2f} raw {check.raw_ratio:.2f}")
```
"""

JUDGES = (
    (
        "crossbar rung",
        "a loop over every read, digit and slice; the integer product where converters are lossless",
        "tests/simulate",
    ),
    ("integer program", "the fake-quantised PyTorch module, node by node, within one step", "tests/frontend"),
    ("mapping", "the core read back from the programmed cells", "tests/mapping"),
    ("action counts", "a walk over every array, digit and position", "tests/cost/test_counts.py"),
    ("crossbars", "the published counts of VGG-16, ResNet-56 and ResNet-18", "tests/cost/test_networks.py"),
    ("component tables", "the papers' tables, part by part", "tests/cost/test_published_chips.py"),
    (
        "published weights",
        "the accuracies published with them; runs where `CROSSLOOM_DATA` and `CROSSLOOM_WEIGHTS` are set",
        "tests/training",
    ),
)


LAST = """The papers' tables beside ours are under [Results](results.md), and longer comparisons, chip by chip, under
[Validation](validation/index.md)."""


def page() -> str:
    """All checks of all chips of ours."""
    lines = [HEAD]
    for name in names():
        chip = load(name)
        if found := checks(chip):
            lines += _chip(chip, found)
    lines += ["## What else is held to an outside judge", "", "| what | judge | test |", "|---|---|---|"]
    lines += [f"| {what} | {judge} | `{test}` |" for what, judge, test in JUDGES]
    return "\n".join(
        [
            *lines,
            "",
            LAST,
        ]
    )


def _chip(chip: Chip, found: list[Check]) -> Iterator[str]:
    yield from (f"### `{chip.name}`", "", f"{chip.description}. Component family: `{chip.components.family}`.", "")
    if factors := chip.components.calibration:
        yield from (f"Factors laid over the family's figures ({len(factors)} parts):", "")
        by_source: dict[str, list[str]] = {}
        for part, entry in factors.items():
            by_source.setdefault(entry.source, []).append(f"`{part}`")
        yield from (f"- {', '.join(parts)}: {source}" for source, parts in by_source.items())
        yield ""
    yield from (
        "| figure | published | ours | ratio | raw | raw ratio | unit | kind | condition | source |",
        "|---|--:|--:|--:|--:|--:|---|---|---|---|",
    )
    yield from (_row(check, chip.name, bool(factors)) for check in found)
    yield ""
    if left := [name.replace("_", " ") for name in chip.published if name not in {check.name for check in found}]:
        yield from (f"Published, and not modelled: {', '.join(left)}.", "")


def _row(check: Check, chip: str, fitted: bool) -> str:
    kind = "same table" if chip in SAME_TABLE else "independent"
    if fitted:
        kind = "held out" if HELD_OUT in check.condition else "fitted"
    raw = (f"{check.raw:.4g}", f"{check.raw_ratio:.3f}") if fitted else ("", "")
    cells = (
        check.name.replace("_", " "), f"{check.published:.4g}", f"{check.ours:.4g}", f"{check.ratio:.3f}", *raw,
        check.unit, kind, check.condition, check.source,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
