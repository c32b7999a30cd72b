"""One network on many chips: sweep the converter's bits, then put two chips side by side.

An integer program does not depend on the array, so it is compiled once and placed again for every variant.
"""

import importlib

import torch

import crossloom
from crossloom import CompiledChip, map_program
from crossloom.cost import compare, estimate

first = importlib.import_module("01_compile_and_simulate")


def main() -> None:
    torch.manual_seed(0)
    training, test = first.digits()
    model = first.network()
    first.train(model, training, epochs=3)
    chip = crossloom.compile(model, hardware=first.HERE / "my_chip.yaml", calibration=training)

    accuracies = {}
    for bits in (8, 6, 5, 4):
        variant = CompiledChip(map_program(chip.program, chip.hardware.override({"array.b_adc": bits})))
        accuracies[bits] = variant.accuracy(test, "crossbar", limit=128).value
        cost = variant.cost()
        energy, area = cost.energy_j * 1e9, cost.area_m2 * 1e6
        print(f"{bits}-bit ADC: {100 * accuracies[bits]:5.1f} %   {energy:6.0f} nJ   {area:.4f} mm²")
    assert accuracies[8] == chip.accuracy(test, "integer", limit=128).value

    other = map_program(chip.program, crossloom.load("sot-mram"))
    print(compare(estimate(chip.mapping), estimate(other)).table())


if __name__ == "__main__":
    main()
