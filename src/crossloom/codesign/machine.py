"""The machine a run is made on: threads, devices, and what is written down about it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from crossloom.codesign.config import Machine
from crossloom.errors import InputError
from crossloom.training import TrainingConfig


def check(machine: Machine) -> None:
    """Raise `InputError` if the machine lacks what is asked for."""
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "cuda", "cpu or auto: torch finds no GPU here")


def placed(training: TrainingConfig, machine: Machine) -> TrainingConfig:
    """A training phase with the machine's device and threads."""
    accelerator = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[machine.device]
    return training.updated(accelerator=accelerator, threads=machine.threads or training.threads)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch and Numba with `count` CPU threads inside, as before outside; None changes nothing."""
    if count is None:
        yield
        return
    import numba

    before, before_numba = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, before_numba))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(before_numba)


def environment(machine: Machine) -> dict[str, Any]:
    """Processor, cores, threads and device, for the record."""
    gpu = torch.cuda.get_device_name(0) if machine.device != "cpu" and torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": machine.threads or torch.get_num_threads(),
        "device": machine.device if gpu is None else gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }


def computed_on(found: Mapping[str, Any]) -> str:
    """What an `environment` computes on, in a word: `cpu` or the GPU's name."""
    named = str(found["device"])
    return "cpu" if named == "auto" else named


def processor() -> str:
    """The processor's model name, or the architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
