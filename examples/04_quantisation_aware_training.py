"""Quantisation-aware training in a loop of your own: `convert`, `calibrate`, train, `compile`.

Weights of two bits lose accuracy when a trained network is rounded to them, and get it back when training sees the
rounding. The converted network is an `nn.Module`; the loop that trained the float network trains it too.
"""

import importlib

import torch

import crossloom
from crossloom import QuantisationConfig, QuantiserConfig

first = importlib.import_module("01_compile_and_simulate")


def main() -> None:
    torch.manual_seed(0)
    training, test = first.digits()
    model = first.network()
    first.train(model, training, epochs=3)

    config = QuantisationConfig(
        weights=QuantiserConfig(bits=2, per_channel=True, range="mse"),
        activations=QuantiserConfig(bits=4, range="mse"),
        overrides={"0": QuantiserConfig(bits=8, per_channel=True)},  # the first layer keeps 8 bits
    )
    quantised = crossloom.convert(model, torch.zeros(2, 1, 32, 32), config)
    crossloom.calibrate(quantised, training, limit=4)
    before = crossloom.compile(quantised, hardware="rram-binary").accuracy(test, "integer")
    first.train(quantised, training, epochs=3, lr=1e-3)
    after = crossloom.compile(quantised, hardware="rram-binary").accuracy(test, "integer")

    print(f"rounded to 2-bit weights:     {before}")
    print(f"and trained with the rounding: {after}")
    assert after.value > before.value


if __name__ == "__main__":
    main()
