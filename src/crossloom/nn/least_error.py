"""Squared quantisation errors of many steps at once, compiled: the inner loop of least-error weight steps on a CPU.

`mse` weights find their step anew at every training step, from 33 candidates over all weights. In torch operations
that is eight passes a candidate, several times a network's own forward and backward pass where its last layers are
large; here all of a candidate's arithmetic on a value happens in vector registers.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numba import njit


def squared_errors(
    rows: Float[np.ndarray, "rows values"], steps: Float[np.ndarray, "candidates rows"], top: int
) -> Float[np.ndarray, "candidates rows"]:
    """Σ (s·clip(⌊w/s + ½⌋, −top, top) − w)² over every row, for every candidate s of the row.

    Args:
        rows: float32 weights.
        steps: float32, positive.
        top: the largest code.
    """
    found: Float[np.ndarray, "candidates rows"] = _errors(rows, steps, np.float32(top))
    return found


@njit(fastmath=True, cache=True, nogil=True, error_model="numpy")
def _errors(rows, steps, top):
    count, candidates = len(rows), len(steps)
    found = np.zeros((candidates, count), np.float32)
    for job in range(count * candidates):
        row, candidate = job // candidates, job % candidates
        step, total = steps[candidate, row], np.float32(0)
        inverse = np.float32(1) / step
        for j in range(rows.shape[1]):
            w = rows[row, j]
            code = np.floor(w * inverse + np.float32(0.5))
            code = top if code > top else code
            code = -top if code < -top else code
            error = code * step - w
            total += error * error
        found[candidate, row] = total
    return found
