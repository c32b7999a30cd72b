"""Histograms of reads against the reference loop, and what a calibrated converter is good for."""

import numpy as np
import pytest
import torch
from torch import nn

import crossloom
from crossloom.errors import InputError
from crossloom.simulate import Executor
from crossloom.simulate.observe import calibrate_converters, input_vectors, read_histogram
from crossloom.weave import pieces


def chip(**overrides: object) -> crossloom.CompiledChip:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))
    return crossloom.compile(model.eval(), calibration=torch.randn(16, 2, 8, 8), overrides=overrides)


def test_histograms_count_every_read() -> None:
    compiled = chip(**{"array.active_rows": 7, "array.flip": False, "array.b_cell": 1, "device.max_bits": 2})
    seen = input_vectors(compiled.mapping, torch.randn(4, 2, 8, 8), vectors=9)
    for name, mapped in compiled.mapping.layers.items():
        x = seen[name]
        assert x.shape == (min(9, len(x)), mapped.layer.inputs)
        expected = np.zeros(8, np.int64)
        for block in mapped.blocks:
            levels, rows = mapped.cells(block).levels.astype(int), mapped.core_rows(block)
            for digit in pieces(x[:, rows], mapped.digits):
                for v in range(len(x)):
                    for first in range(0, len(rows), 7):
                        for c in range(levels.shape[1]):
                            expected[int(digit[v, first : first + 7] @ levels[first : first + 7, c])] += 1
        assert np.array_equal(read_histogram(mapped, x), expected)


def test_input_vectors_are_patches_of_the_images() -> None:
    compiled = chip()
    images = torch.randn(3, 2, 8, 8)
    codes = Executor(compiled.program).nodes(images)["input_codes"]
    patches = torch.nn.functional.unfold(codes.double(), 3).transpose(1, 2).reshape(-1, 18).numpy()
    for vector in input_vectors(compiled.mapping, images, vectors=20)["0"]:
        assert (patches == vector).all(1).any()


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_calibrated_converter_beats_one_that_covers_everything(method: str) -> None:
    images = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(5))
    compiled = chip(**{"array.b_adc": 4, "array.adc_range": "calibrated", "array.flip": False})
    wide = chip(**{"array.b_adc": 4, "array.adc_range": "full", "array.flip": False})
    exact = Executor(compiled.program).logits(images)
    record = calibrate_converters(compiled.mapping, images, method)  # type: ignore[arg-type]
    fitted = Executor(compiled.mapping, "crossbar", calibration=record).logits(images)
    covering = Executor(wide.mapping, "crossbar").logits(images)
    assert (fitted - exact).square().mean() < (covering - exact).square().mean()


def test_no_images_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one image"):
        calibrate_converters(chip().mapping, torch.zeros(0, 2, 8, 8))
