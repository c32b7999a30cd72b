"""Random numbers without global state: a seed goes in, a generator per purpose is derived from names."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose, the same on every machine: the head of SHA-256 of the seed and the names.

    Streams for different names are independent for all practical purposes, so that adding a draw in one place
    (an augmentation, say) changes no number anywhere else.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator seeded with `derive(seed, *names)`."""
    return torch.Generator().manual_seed(derive(seed, *names))
