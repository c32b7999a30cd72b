"""Integers from the first step: train with ±1 weights and 2-bit activations, then rename and reorder rows."""

import tempfile

import torch

import crossloom
from crossloom.mapping import map_program, rename, reorder
from crossloom.methods.integer_training import INPUT_NORMALISATION, IntegerTraining
from crossloom.simulate import ReadNoise, input_vectors
from crossloom.training import Normalisation, TrainingConfig, build_network, fit, load_dataset


def main() -> None:
    data = load_dataset("digits").normalised(Normalisation(*((value,) for value in INPUT_NORMALISATION)))
    network = crossloom.convert(build_network("mlp", 10, data.image_shape), torch.zeros(2, *data.image_shape))
    method = IntegerTraining(weights=1, activations=2)
    method.prepare(network)  # no biases, steps of 1, shifts for the activations
    crossloom.calibrate(network, data.calibration_loader(256))
    config = TrainingConfig(epochs=6, batch_size=32, optimiser="adam", lr=5e-3, weight_decay=0, threads=1)
    with tempfile.TemporaryDirectory() as run:
        fit(network, data, config, run, callbacks=method.callbacks(), loss=method.loss(), progress=False)
    print("shifts:", method.finish(network)["shifts"])

    chip = crossloom.compile(network, "rram-40nm")  # 7 rows at once, 3-bit converters: the crossbar rung is exact
    exact = chip.accuracy(data.test_loader(), rung="integer")
    assert exact.value == chip.accuracy(data.test_loader(), rung="crossbar").value
    print(f"{exact}: {len(chip.program.layers[-1].core[0])} rows in the last layer")

    last = chip.program.layers[-1]
    vectors = input_vectors(chip.mapping, torch.cat([x for x, _ in data.calibration_loader(256)]))[last.name]
    for rows in (96, 64, 48):
        renamed = rename.lossy(last, rows, rename.row_activity(last, vectors)).layer
        program = chip.program.replace_layers({last.name: renamed})
        fewer = crossloom.CompiledChip(map_program(program, chip.hardware))
        print(f"{fewer.accuracy(data.test_loader(), rung='integer')}: {rows} rows")

    found = reorder.reorder(last, chip.hardware.array, vectors, noise=ReadNoise("root", sigma=0.2), sweeps=3)
    print(f"code errors {100 * found.before:.2f} % → {100 * found.value:.2f} %, none below {100 * found.bound:.2f} %")
    same = crossloom.CompiledChip(map_program(chip.program.replace_layers({last.name: found.layer}), chip.hardware))
    assert same.accuracy(data.test_loader(), rung="integer").value == exact.value, "reorder changes no output"


if __name__ == "__main__":
    main()
