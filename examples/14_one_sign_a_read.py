"""One sign for the weights that a read sums up: half the cells of pairs, trained in with ADMM.

A pair of cells a weight (differential) holds a positive and a negative part, one of which is always zero. Where the
eight weights of an output in rows that are read together share a sign, magnitudes suffice, with one bit for the sign
(`array.encoding: polarised`, after FORMS, ISCA 2021). Any network maps onto such arrays; one that was not trained for
it fills them badly.
"""

import importlib

import torch

import crossloom
from crossloom.methods import ADMM, FixedPoint, Polarised

first, admm_example = importlib.import_module("01_compile_and_simulate"), importlib.import_module("12_admm")

ARRAY = {
    "array.rows": 64, "array.columns": 64, "array.columns_per_adc": 64, "array.active_rows": 8, "array.flip": False,
}  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    training, test = first.digits()
    pairs = crossloom.load("crimp-isaac", {**ARRAY, "array.encoding": "differential"})
    magnitudes = crossloom.load("crimp-isaac", {**ARRAY, "array.encoding": "polarised"})

    model = first.network()
    first.train(model, training, epochs=3)
    before = crossloom.compile(model, pairs, training)
    unprepared = crossloom.compile(model, magnitudes, training)

    module = crossloom.convert(model, torch.zeros(2, 1, 32, 32), crossloom.quantisation_for(magnitudes))
    crossloom.calibrate(module, training, limit=4)
    admm = ADMM({"*": [Polarised(rows=8), FixedPoint(bits=8)]}, rho={"start": 0.05, "factor": 2.0})
    admm_example.trainer(admm, epochs=6).fit(admm_example.Mine(module.train()), training)
    admm.finish(module)
    crossloom.calibrate(module, training, limit=4)
    after = crossloom.compile(module, magnitudes)

    for name, chip in (("pairs of cells", before), ("one sign, untrained", unprepared), ("one sign, trained", after)):
        integer, found = (chip.accuracy(test, rung, limit=100).value for rung in ("integer", "crossbar"))
        cost = chip.cost()
        area, energy = cost.area_m2 * 1e6, cost.energy_j * 1e6
        print(f"{name}: {found:.3f}, {chip.crossbars} arrays, {area:.3f} mm², {energy:.3g} µJ")
        assert found == integer, "converters that clip"
    assert after.crossbars < 0.6 * before.crossbars < unprepared.crossbars
    assert found > 0.9


if __name__ == "__main__":
    main()
