"""A method of your own in fifteen lines: store equal rows once and add their inputs (row rename).

A woven layer computes y = Q(Cᵀ(P x)). If rows of C are equal, one of them can stand for all, provided that P adds the
inputs which they multiplied. Whatever changes C and P together so that Pᵀ C stays the same changes no output.
Mapping, simulation and cost follow by themselves.
"""

import numpy as np
import torch
from torch import nn

import crossloom
from crossloom import CompiledChip, QuantisationConfig, QuantiserConfig, map_program
from crossloom.weave import InputTransform, WovenLayer


def renamed(layer: WovenLayer) -> WovenLayer:
    """The layer with equal core rows stored once."""
    rows, targets = np.unique(layer.core[0], axis=0, return_inverse=True)
    return layer.with_rows(InputTransform.sum(targets.reshape(-1), len(rows)), rows[None])


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 4), nn.ReLU(), nn.Linear(4, 10))
    ternary = QuantiserConfig(bits=2, ternary=True, per_channel=True)
    images = torch.rand(32, 512)
    chip = crossloom.compile(
        model, hardware="rram-binary", calibration=images, quantisation=QuantisationConfig(weights=ternary)
    )
    plain = chip.program.layers[0]
    woven = renamed(plain)
    program = chip.program.replace_layers({plain.name: woven})
    shorter = CompiledChip(map_program(program, chip.hardware))

    assert np.array_equal(plain.effective_weight(), woven.effective_weight())
    for rung in ("integer", "crossbar"):
        assert torch.equal(chip.logits(images, rung), shorter.logits(images, rung))
    print(f"{plain.core.shape[1]} rows → {woven.core.shape[1]}; {chip.crossbars} arrays → {shorter.crossbars}")
    print(f"every logit is the same; the sums are {plain.row_format.bits} → {woven.row_format.bits} bits wide")
    print(f"and cost {woven.transform.operations().adds} additions an input vector, which the cost model counts:")
    print(f"energy {chip.cost().energy_j * 1e9:.1f} → {shorter.cost().energy_j * 1e9:.1f} nJ")


if __name__ == "__main__":
    main()
