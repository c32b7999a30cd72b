"""The converter on planes, as straight-line code.

code = clip((p·m + c) >> k, 0, 2^b − 1) added to a column's accumulator is some forty full adders with constants that
are known when a layer is prepared. In loops over memory they cost as much as counting the rows did; here each
converter becomes one small function of a few dozen register instructions, compiled once and cached on disk.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba import cfunc, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from crossloom.simulate.adc import Adc, multiply_shift, signed_digits
from crossloom.simulate.lanes import Logic


@dataclass(frozen=True)
class Converter:
    """What the code of one converter depends on.

    Attributes:
        planes: of a read.
        digits: signed digits (shift, ±1) of m, lowest first.
        constant: c.
        right: k.
        top: the largest code there is.
        accumulator: planes of the accumulator it is added to.
    """

    planes: int
    digits: tuple[tuple[int, int], ...]
    constant: int
    right: int
    top: int
    accumulator: int

    @staticmethod
    def of(adc: Adc, largest_read: int, reads: int) -> Converter:
        """The converter for reads of as many planes as `largest_read` has, `reads` of them to an accumulator."""
        planes = max(largest_read.bit_length(), 1)
        high = (1 << planes) - 1
        m, c, k = multiply_shift(adc, high)
        top = min(max(int(adc.steps(high)), 0), adc.top)
        digits = tuple(signed_digits(m)[::-1])
        return Converter(planes, digits, c, k, top, max((top * reads).bit_length(), 1))

    def emit(self, logic: Logic, p: Any, target: Any) -> None:
        """Code that reads `planes` planes at address p and adds the code to those at address target."""
        zero, one = logic.constant(0), logic.constant(1)
        read = [logic.load(p, j) for j in range(self.planes)]
        total = [logic.constant(self.constant >> j & 1) for j in range(abs(self.constant).bit_length())]
        sign, partial = logic.constant(int(self.constant < 0)), 0
        for shift, digit in self.digits:
            partial += digit << shift
            ends = (self.constant, self.constant + partial * ((1 << self.planes) - 1))
            width = max((e if e >= 0 else -e - 1).bit_length() for e in ends)
            carry = flip = logic.constant(int(digit < 0))
            total += [sign] * (shift - len(total))
            for j in range(shift, max(width, shift) + 1):
                b = read[j - shift] if j - shift < self.planes else zero
                value, carry = logic.add(total[j] if j < len(total) else sign, logic.xor(b, flip), carry)
                total[j:] = [value, *total[j + 1 :]]
            sign = total[width] if min(ends) < 0 else zero
            total = total[:width]
        bits = max(self.top.bit_length(), 1)
        total += [sign] * (self.right + bits - len(total))
        over, keep, carry = zero, logic.xor(sign, one), zero
        for plane in total[self.right + bits :]:
            over = logic.either(over, plane)
        for j in range(self.accumulator):
            code = logic.both(logic.either(total[self.right + j], over), keep) if j < bits else zero
            value, carry = logic.add(logic.load(target, j), code, carry)
            logic.store(target, j, value)


class _Tally(Logic):
    """Counts what the code would do."""

    def __init__(self) -> None:
        self.constants = {0: (0,), 1: (1,)}
        self.count = 0

    def _made(self, cost: int = 1) -> Any:
        self.count += cost
        return (2, self.count)

    def load(self, address: Any, plane: int) -> Any:
        return (3, address, plane)

    def store(self, address: Any, plane: int, value: Any) -> None:
        pass

    def gate(self, name: str, *planes: Any) -> Any:
        return self._made()

    def full_adder(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        return self._made(), self._made()


def operations(converter: Converter) -> int:
    """Register operations of one converter's code on a processor with ternary logic; a full adder is two."""
    tally = _Tally()
    converter.emit(tally, 0, 1)
    return tally.count


@intrinsic
def _convert(typingctx, p, target, configuration):
    """Add the code of the read at p to the accumulator at target; `configuration` is a `Converter` as JSON."""
    if not isinstance(configuration, types.StringLiteral):
        raise TypingError("configuration must be a constant")
    record = json.loads(configuration.literal_value)
    record["digits"] = tuple(tuple(d) for d in record["digits"])
    converter = Converter(**record)

    def generate(context, builder, signature, arguments):
        converter.emit(Logic(builder), *arguments[:2])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, configuration), generate


@cache
def compiled(converter: Converter) -> Any:
    """The converter as native code, void(intp p, intp target); the object must outlive its `.address`."""
    configuration = json.dumps(asdict(converter))

    @cfunc(types.void(types.intp, types.intp), cache=True)
    def convert(p, target):
        _convert(p, target, configuration)

    return convert


@intrinsic
def call(typingctx, address, p, target):
    """Call a compiled converter."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate
