"""How many epochs fit into a time budget on this machine, from a few training steps that are timed."""

from __future__ import annotations

import re
import time

import torch
import torch.nn.functional as F

from crossloom.codesign.config import Machine
from crossloom.codesign.machine import threads
from crossloom.codesign.plugins import open_data
from crossloom.errors import InputError
from crossloom.training import build_network

STEPS = 4
"""Steps that are timed, after one that is not."""
BATCH = 128
SHARE = 0.4
"""Part of a budget that float training may take: quantised training after it, searches and the rungs take the rest."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(budget: str) -> float:
    """A time such as `90s`, `30m`, `2h` or `1.5h` in seconds.

    Raises:
        InputError: something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", budget.strip())
    if match is None or not float(match[1]):
        raise InputError("--budget", budget, "a time with its unit, such as 90s, 30m or 2h")
    return float(match[1]) * UNITS[match[2]]


def epochs_within(budget: str, network: str, data: str, machine: Machine, train_images: int | None = None) -> int:
    """Epochs of float training for a time budget, at least 1.

    Args:
        budget: a time with its unit, see `seconds`.
        network: name of the network.
        data: name of the data set.
        machine: where to compute.
        train_images: used in training; None: all.

    Raises:
        InputError: no time, or an unknown network or data set.
    """
    allowed = seconds(budget)
    images = open_data(data, machine.data_dir, machine.download)
    device = torch.device("cuda" if machine.device != "cpu" and torch.cuda.is_available() else "cpu")
    count = train_images or len(images.train.labels)
    with threads(machine.threads), torch.random.fork_rng():
        module = build_network(network, len(images.classes), images.image_shape, 0).to(device).train()
        x = torch.randn(BATCH, *images.image_shape, device=device)
        y = torch.randint(0, len(images.classes), (BATCH,), device=device)
        started = time.perf_counter()
        for step in range(STEPS + 1):
            if step == 1:
                started = time.perf_counter()
            F.cross_entropy(module(x), y).backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
        pace = (time.perf_counter() - started) / (STEPS * BATCH)
    return max(int(SHARE * allowed / (pace * count)), 1)
