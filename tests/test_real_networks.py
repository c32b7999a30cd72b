"""Published weights on the whole real test sets, compiled after training at 8 bits: under half a point lost."""

import os
from pathlib import Path

import pytest

import crossloom
from crossloom.training import PRETRAINED, build_network, load_dataset, load_weights

PUBLISHED = [p for p in PRETRAINED if p.network in ("lenet5-caffe", "resnet20", "resnet56")]


@pytest.mark.slow
@pytest.mark.parametrize("known", PUBLISHED, ids=lambda known: known.network)
def test_post_training_at_eight_bits_loses_under_half_a_point(known) -> None:
    data_dir, weights = os.environ.get("CROSSLOOM_DATA"), os.environ.get("CROSSLOOM_WEIGHTS")
    if not data_dir or not weights or not (Path(weights) / known.file).is_file():
        pytest.skip(f"needs {known.data} in CROSSLOOM_DATA and {known.file} in CROSSLOOM_WEIGHTS")
    data = load_dataset(known.data, data_dir).normalised(known.normalisation)
    model = build_network(known.network, len(data.classes), data.image_shape).eval()
    load_weights(model, Path(weights) / known.file)
    chip = crossloom.compile(model, calibration=data.calibration_loader(512, seed=0))
    float_accuracy = chip.accuracy(data.test_loader(), "float")
    integer = chip.accuracy(data.test_loader(), "integer")
    assert integer.images == 10000
    assert float_accuracy.value == pytest.approx(known.accuracy, abs=0.0005)
    assert float_accuracy.value - integer.value < 0.005
    few = [(x, y) for x, y in data.subset(None, 0, test=200).test_loader()]
    crossbar = chip.accuracy(few, "crossbar")
    assert crossbar.value == chip.accuracy(few, "integer").value, "the default chip's converter is lossless"
