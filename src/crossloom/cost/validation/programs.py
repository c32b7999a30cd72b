"""Untrained networks as programs: structure, time and typical energy do not need training."""

from __future__ import annotations

from functools import cache

import torch

from crossloom.frontend import QuantisationConfig, calibrate, convert, lower
from crossloom.training import build_network
from crossloom.weave import Program


@cache
def program(network: str, classes: int, shape: tuple[int, int, int]) -> Program:
    """A network of 8-bit integers with its initial weights (seed 0), its steps set from one random image."""
    x = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    module = convert(build_network(network, classes, shape).eval(), x, QuantisationConfig())
    calibrate(module, [x])
    return lower(module, network)
