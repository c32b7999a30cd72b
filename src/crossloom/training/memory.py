"""Keep the memory of one training step for the next, in place of giving it back to the system in between."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""`mallopt`'s numbers for two of its parameters (glibc, malloc.h)."""
DEFAULT_MMAP_MAX, LATER_TRIM = 65536, 64 << 20
"""glibc's default, and the largest value that its own moving threshold for giving memory back can take."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, what is freed stays with the process; at the end it goes back to the system.

    A training step allocates the same tensors again and again. glibc gives large ones back each time, and the kernel
    clears every page of them anew, which takes up to a third of a step (AlexNet's gradients are 230 MB). The peak of
    memory is the same, as the step's peak is what stays. Other systems and C libraries: no effect.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    assert libc is not None
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(TRIM_THRESHOLD, LATER_TRIM)
        libc.malloc_trim(0)
