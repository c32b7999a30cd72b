"""An independent solution of a crossbar with resistive wires: Kirchhoff's current law as one sparse system."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

from crossloom.simulate.parasitic import Wires


def nodal(g: np.ndarray, wires: Wires) -> np.ndarray:
    """M by Kirchhoff's current law at all 2·H·W nodes, one right-hand side per row. No resistance may be 0."""
    rows, columns = g.shape
    cells = rows * columns
    word = np.arange(cells).reshape(rows, columns)
    bit = word + cells
    branches = [
        (word, bit, g),
        (word[:, :-1], word[:, 1:], np.full((rows, columns - 1), 1 / wires.row_segment)),
        (bit[:-1], bit[1:], np.full((rows - 1, columns), 1 / wires.column_segment)),
    ]
    driven = [word[:, 0]] + [word[:, -1]] * (wires.drive == "both")
    sensed = [bit[-1]] + [bit[0]] * (wires.collect == "both")
    ends = [(nodes, np.full(len(nodes), 1 / ohm)) for side, ohm in ((driven, wires.driver), (sensed, wires.sense))
            for nodes in side]  # fmt: skip
    entries = [(p, q, s * v) for a, b, v in branches for p, q, s in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1))]
    entries += [(nodes, nodes, v) for nodes, v in ends]
    row, column, value = (np.concatenate([np.ravel(e[k]) for e in entries]) for k in range(3))
    matrix = sp.coo_array((value, (row, column)), shape=(2 * cells, 2 * cells))
    source = np.zeros((2 * cells, rows))
    for nodes in driven:
        source[nodes, np.arange(rows)] += 1 / wires.driver
    potentials = linalg.splu(matrix.tocsc()).solve(source)
    return np.asarray(sum(potentials[nodes] for nodes in sensed) / wires.sense)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    scale = np.abs(expected).max(initial=0)
    return float(np.abs(found - expected).max(initial=0) / scale) if scale else float(np.abs(found).max(initial=0))
