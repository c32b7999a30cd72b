"""Counting rows on planes as straight-line code, a piece for every number of rows in steps of eight.

A counter that starts from zero takes its first bits for nothing, and one that knows how many planes it holds carries
no further: n rows cost n − (planes gained) full adders. Longer lists are counted piece by piece, each continuing the
counter before; two columns that share rows continue the counter of the rows they share (`sharing`).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from crossloom.simulate.lanes import PLANE, Logic

PLANES = 8
"""Planes of a counter."""
FROM_ZERO = tuple(range(7, 48, 8))
"""Rows that a piece which starts from zero counts."""
CONTINUED = tuple(range(8, 33, 8))
"""Rows that a piece which continues a counter adds."""
HELD = (5, 6, 7, 8)
"""Planes that the counter may hold before."""
PIECES = ((0, 0), *((0, n) for n in FROM_ZERO), *((m, n) for m in HELD for n in CONTINUED))
"""Every piece: planes held before (0: start from zero) and rows to add."""


class _Counter:
    """A bit per plane held, and at most one more that waits for a third."""

    def __init__(self, logic: Logic, held: list[Any]) -> None:
        self.logic = logic
        self.sums: list[Any] = held + [None] * (PLANES - len(held))
        self.waiting: list[Any] = [None] * PLANES

    def insert(self, plane: int, bit: Any) -> None:
        """Add one bit of weight 2^plane."""
        if plane == PLANES:
            return
        if self.sums[plane] is None:
            self.sums[plane] = bit
        elif self.waiting[plane] is None:
            self.waiting[plane] = bit
        else:
            other, self.waiting[plane] = self.waiting[plane], None
            self.sums[plane], carry = self.logic.compress(self.sums[plane], other, bit)
            self.insert(plane + 1, carry)

    def settle(self) -> list[Any]:
        """The planes of the sum; nothing waits any more."""
        for plane in range(PLANES):
            bit, self.waiting[plane] = self.waiting[plane], None
            if bit is not None:
                old, self.sums[plane] = self.sums[plane], self.logic.xor(self.sums[plane], bit)
                if plane + 1 < PLANES:
                    self.insert(plane + 1, self.logic.both(old, bit))
        return [self.logic.constant(0) if bit is None else bit for bit in self.sums]


def _emit(builder: Any, held: int, rows: int, base: Any, numbers: Any, source: Any, target: Any) -> None:
    logic = Logic(builder)
    counter = _Counter(logic, [logic.load(source, j) for j in range(held)])
    byte, word = ir.IntType(8), ir.IntType(64)
    for i in range(rows):
        number = builder.load(builder.inttoptr(builder.add(numbers, word(i)), byte.as_pointer()))
        address = builder.add(base, builder.mul(builder.zext(number, word), word(PLANE)))
        counter.insert(0, logic.load(address, 0))
    for j, plane in enumerate(counter.settle()):
        logic.store(target, j, plane)


@intrinsic
def _count(typingctx, piece, base, numbers, source, target):
    def generate(context, builder, signature, arguments):
        piece, *rest = arguments
        done = builder.append_basic_block("done")
        switch = builder.switch(piece, done)
        for i, (held, rows) in enumerate(PIECES):
            block = builder.append_basic_block(f"piece_{held}_{rows}")
            switch.add_case(ir.Constant(ir.IntType(64), i), block)
            builder.position_at_end(block)
            _emit(builder, held, rows, *rest)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@njit(cache=True, nogil=True)
def count(piece, base, numbers, source, target):
    """Count the rows of one of `PIECES`: eight planes at `target`.

    Args:
        piece: which.
        base: address of the plane of row number 0.
        numbers: address of the rows' numbers, one byte each.
        source: address of the counter to continue.
        target: where the counter goes; may be `source`.
    """
    _count(piece, base, numbers, source, target)
