"""A compiled chip is one file. It holds the program and the hardware; the float network is not needed any more."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import crossloom
from crossloom import CompiledChip, InputError


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    images = torch.rand(4, 1, 8, 8)
    chip = crossloom.compile(model, calibration=images, classes=("cat", "dog", "fox"))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chip.safetensors"
        chip.save(path)
        again = CompiledChip.load(path)
        print(f"{path.name}: {path.stat().st_size} bytes, {again}, classes {again.program.classes}")
        assert again.hash == chip.hash
        assert torch.equal(again.logits(images), chip.logits(images))

        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 1  # one bit
        path.write_bytes(damaged)
        try:
            CompiledChip.load(path)
        except InputError as error:
            print(f"one bit flipped: {error}")
        else:
            raise AssertionError("a damaged file was read")


if __name__ == "__main__":
    main()
