"""Fewer arrays by training polynomials in place of weights: search a plan, train its coefficients, compile.

Groups of weights become polynomials of their index, so that a layer needs as many rows as there are coefficients. The
periphery forms the moments of the inputs that go with them; the chip computes from those what the approximated
weights would give, to the bit.
"""

import importlib
import math

import numpy as np
import torch

import crossloom
from crossloom.codesign.plan_search import search
from crossloom.methods import Approximation, Setting
from crossloom.nn import Linear
from crossloom.training import build_network
from crossloom.weave import Format

first = importlib.import_module("01_compile_and_simulate")


def stored_error(basis: str, order: int, n: int) -> tuple[float, int]:
    """(error of 8-bit coefficients relative to the approximated weights in dB, bits of a moment of 8-bit inputs)."""
    layer = Linear(1152, 256, bias=False)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    Approximation({"0": Setting(order=order, group=n, basis=basis)}).prepare(torch.nn.Sequential(layer))
    stored = layer.effective()[0]
    layer.weight_quantiser.enabled = False
    exact = layer.effective()[0]
    error = float(((stored - exact).square().mean() / exact.square().mean()).detach())
    return 10 * math.log10(error), layer.weave.transform(1).row_format(Format(8, signed=False)).bits


def main() -> None:
    for order, n in ((1, 9), (2, 9)):
        found = {basis: stored_error(basis, order, n) for basis in ("orthogonal", "index", "cosine")}
        print(f"order {order}, n = {n}: " + ", ".join(f"{b} {e:.1f} dB {bits} bits" for b, (e, bits) in found.items()))
        assert found["orthogonal"][0] < found["index"][0]

    torch.manual_seed(0)
    training, test = first.digits()
    model = build_network("lenet5", 10, (1, 32, 32))
    first.train(model, training, epochs=4)
    chip = crossloom.load("crimp-isaac")
    dense = crossloom.compile(model, chip, training)
    network = crossloom.convert(model, torch.zeros(2, 1, 32, 32), crossloom.quantisation_for(chip))
    crossloom.calibrate(network, training, limit=4)
    plan = search(network, list(training)[:2], chip, saved=0.5)
    print({name: (s.order, s.group) if s else "dense" for name, s in plan.layers.items()})

    network = crossloom.convert(model, torch.zeros(2, 1, 32, 32), crossloom.quantisation_for(chip))
    method = Approximation(plan.method_options())
    method.prepare(network)  # least squares from the trained weights
    crossloom.calibrate(network, training, limit=4)
    before = crossloom.compile(network, chip).accuracy(test, "integer")
    first.train(network, training, epochs=2, lr=1e-3)
    method.finish(network)
    small = crossloom.compile(network, chip)
    after = small.accuracy(test, "integer")
    print(f"dense:      {dense.crossbars} arrays, {dense.accuracy(test, 'integer')}")
    print(f"projected:  {small.crossbars} arrays, {before}")
    print(f"trained on: {small.crossbars} arrays, {after}")
    assert small.crossbars == plan.cost <= 0.5 * dense.crossbars
    assert after.value > before.value

    layer = next(layer for layer in small.program.layers if layer.name == "fc1")
    x = np.random.default_rng(0).integers(0, 256, (100, layer.inputs))
    assert np.array_equal(layer.accumulate(x), x @ layer.effective_weight()[0])  # moments = rebuilt weights
    print(f"{layer.name}: {layer.inputs} inputs on {layer.core.shape[1]} rows, {layer.row_format.bits}-bit moments")


if __name__ == "__main__":
    main()
