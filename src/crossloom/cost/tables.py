"""Tables that a layer looks up: which inputs a row takes, where that is not told by counting up, and signs.

A stage of P fetches its inputs row by row. Where the inputs come in order, a counter finds them; every input out of
its place takes one entry of a table, looked up once for an input vector. Rows that follow each other with the same
inputs (moments of one group) share their entries.

Arrays of polarised cells keep one sign, a bit, for every group of rows that is driven at once and every weight column
(FORMS's sign indicator). It is paid for as an entry of one bit, looked up once for an input vector; that the sum is
then subtracted in place of added is in the shift-and-add.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from crossloom.mapping import LayerMapping
from crossloom.weave import InputTransform
from crossloom.weave.transform import Factor


@dataclass(frozen=True)
class IndexTable:
    """Entries of one table, and the bits of each."""

    entries: int
    bits: int


def index_table(factor: Factor) -> IndexTable:
    """The table of one stage."""
    indices, starts = factor.matrix.indices, factor.matrix.indptr
    if factor.selection is None:
        rows = [indices[a:b] for a, b in pairwise(starts)]
        kept = [row for i, row in enumerate(rows) if i == 0 or not np.array_equal(row, rows[i - 1])]
        indices = np.concatenate(kept) if kept else indices[:0]
    moved = int(np.count_nonzero(indices != np.arange(len(indices))))
    return IndexTable(moved, max(int(factor.matrix.shape[1] - 1).bit_length(), 1))


def index_tables(transform: InputTransform) -> tuple[IndexTable, ...]:
    """The tables of P, those without entries left out."""
    return tuple(table for factor in transform.factors if (table := index_table(factor)).entries)


def tables(mapped: LayerMapping) -> tuple[IndexTable, ...]:
    """All tables of one copy of a layer."""
    found = index_tables(mapped.layer.transform)
    if mapped.code.encoding != "polarised":
        return found
    signs = sum(
        mapped.row_groups(b) * (b.groups[1] - b.groups[0]) * (b.columns[1] - b.columns[0]) for b in mapped.blocks
    )
    return (*found, IndexTable(signs, 1))
