"""1024 one-bit lanes as a Numba type.

Numba vectorises loops; it cannot keep a dozen vectors in registers across a data-dependent loop, which is what a
bit-sliced counter needs. `Lanes` is an LLVM vector of sixteen 64-bit words with the few operations used here. LLVM
lowers it to what the processor has (two AVX-512 registers, four AVX2, eight NEON); with AVX-512 a full adder is two
ternary-logic instructions a register. Two registers a vector keep both logic ports busy along a carry chain.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN002, ANN201, ANN202

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WORDS = 16
"""64-bit words of a vector."""

_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, WORDS)
_BYTES = ir.VectorType(ir.IntType(8), 64)
_REGISTER = ir.VectorType(_WORD, 8)
PLANE = WORDS * 8
"""Bytes of a vector."""
_ALIGN = 64


def _has_ternary_logic() -> bool:
    """True if code is compiled for this very processor and it has AVX-512."""
    retargeted = config.CPU_NAME or config.CPU_FEATURES
    return not retargeted and bool(binding.get_host_cpu_features().get("avx512f", False))


class LanesType(types.Type):
    """Numba's type of sixteen 64-bit words that act as 1024 independent bits."""

    def __init__(self) -> None:
        super().__init__(name="Lanes1024")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


@intrinsic
def load(typingctx, address):
    """The vector at a 64-byte aligned address. Plain addresses keep calls and loops free of array descriptors."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], _VECTOR.as_pointer()), align=_ALIGN)

    return lanes(types.intp), generate


@intrinsic
def store(typingctx, address, value):
    """Write a vector at a 64-byte aligned address."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], _VECTOR.as_pointer()), align=_ALIGN)
        return context.get_dummy_value()

    return types.void(types.intp, lanes), generate


@intrinsic
def load_at(typingctx, base, number_address):
    """The vector whose number, counted from `base`, is the byte at `number_address`."""

    def generate(context, builder, signature, arguments):
        number = builder.load(builder.inttoptr(arguments[1], ir.IntType(8).as_pointer()))
        address = builder.add(arguments[0], builder.mul(builder.zext(number, _WORD), _WORD(PLANE)))
        return builder.load(builder.inttoptr(address, _VECTOR.as_pointer()), align=_ALIGN)

    return lanes(types.intp, types.intp), generate


@intrinsic
def fill(typingctx, word):
    """All words equal to a uint64."""

    def generate(context, builder, signature, arguments):
        vector = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WORDS), None)
        return builder.shuffle_vector(vector, ir.Constant(_VECTOR, ir.Undefined), mask)

    return lanes(types.uint64), generate


def _binary(name: str):
    @intrinsic
    def operation(typingctx, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments)

        return lanes(lanes, lanes), generate

    return operation


both, either, differ = _binary("and_"), _binary("or_"), _binary("xor")


def _ternary_call(builder, table, *operands):
    """Bit i of `table` is the result for the inputs whose bits, the first operand's highest, read i."""
    kind = ir.FunctionType(_REGISTER, [_REGISTER, _REGISTER, _REGISTER, ir.IntType(32)])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.q.512")
    halves = []
    for start in (0, 8):
        part = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(start, start + 8)))
        registers = [builder.shuffle_vector(v, v, part) for v in operands]
        halves.append(builder.call(function, [*registers, ir.IntType(32)(table)]))
    whole = ir.Constant(ir.VectorType(ir.IntType(32), WORDS), list(range(WORDS)))
    return builder.shuffle_vector(*halves, whole)


def _ternary(table: int):
    @intrinsic
    def operation(typingctx, a, b, c):
        def generate(context, builder, signature, arguments):
            return _ternary_call(builder, table, *arguments)

        return lanes(lanes, lanes, lanes), generate

    return operation


_parity, _majority, _carry = _ternary(0x96), _ternary(0xE8), _ternary(0xB2)

if _has_ternary_logic():

    @njit(inline="always")
    def add(a, b, c):
        """Full adder of three bits a lane: (sum, carry). The carry is made of sum, b and c, which saves a copy."""
        total = _parity(a, b, c)
        return total, _carry(b, total, c)

    @njit(inline="always")
    def ripple(a, b, c):
        """The same adder with one instruction from carry to carry, for chains."""
        return _parity(a, b, c), _majority(a, b, c)

else:

    @njit(inline="always")
    def add(a, b, c):
        """Full adder of three bits a lane: (sum, carry)."""
        half = differ(a, b)
        return differ(half, c), either(both(a, b), both(half, c))

    ripple = add


class Logic:
    """Straight-line code on planes, made from Python: constants are folded, full adders ternary logic if possible."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.constants = {0: ir.Constant(_VECTOR, None), 1: ir.Constant(_VECTOR, [-1] * WORDS)}

    def constant(self, bit: int) -> Any:
        """A plane of one bit."""
        return self.constants[bit]

    def known(self, plane: Any) -> int | None:
        """The bit of a constant plane."""
        return next((bit for bit, value in self.constants.items() if value is plane), None)

    def load(self, address: Any, plane: int) -> Any:
        """Plane number `plane` at an address."""
        at = self.builder.add(address, _WORD(plane * PLANE))
        return self.builder.load(self.builder.inttoptr(at, _VECTOR.as_pointer()), align=_ALIGN)

    def store(self, address: Any, plane: int, value: Any) -> None:
        """Write a plane."""
        at = self.builder.add(address, _WORD(plane * PLANE))
        self.builder.store(value, self.builder.inttoptr(at, _VECTOR.as_pointer()), align=_ALIGN)

    def xor(self, a: Any, b: Any) -> Any:
        """a ⊕ b."""
        for x, y in ((a, b), (b, a)):
            if self.known(x) == 0:
                return y
            if self.known(x) == 1 and self.known(y) is not None:
                return self.constant(1 - int(self.known(y) or 0))
        return self.gate("xor", a, b)

    def both(self, a: Any, b: Any) -> Any:
        """a ∧ b."""
        for x, y in ((a, b), (b, a)):
            if self.known(x) is not None:
                return y if self.known(x) else x
        return self.gate("and_", a, b)

    def either(self, a: Any, b: Any) -> Any:
        """a ∨ b."""
        for x, y in ((a, b), (b, a)):
            if self.known(x) is not None:
                return x if self.known(x) else y
        return self.gate("or_", a, b)

    def add(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """Full adder: (sum, carry)."""
        planes = sorted((a, b, c), key=lambda plane: self.known(plane) is None)
        if self.known(planes[0]) == 0:
            return self.xor(planes[1], planes[2]), self.both(planes[1], planes[2])
        if self.known(planes[0]) == 1:
            half = self.xor(planes[1], planes[2])
            return self.xor(half, self.constant(1)), self.either(planes[1], planes[2])
        return self.full_adder(a, b, c)

    def gate(self, name: str, a: Any, b: Any) -> Any:
        """`and_`, `or_` or `xor` of two planes that are not constant."""
        return getattr(self.builder, name)(a, b)

    def full_adder(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """(sum, carry) of planes that are not constant."""
        if _has_ternary_logic():
            return _ternary_call(self.builder, 0x96, a, b, c), _ternary_call(self.builder, 0xE8, a, b, c)
        half = self.builder.xor(a, b)
        carry = self.builder.or_(self.builder.and_(a, b), self.builder.and_(half, c))
        return self.builder.xor(half, c), carry

    def compress(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """Full adder of three planes, none of them constant; the carry is made of the sum, which saves a copy."""
        if not _has_ternary_logic():
            return self.add(a, b, c)
        total = _ternary_call(self.builder, 0x96, a, b, c)
        return total, _ternary_call(self.builder, 0xB2, b, total, c)


@intrinsic
def peek(typingctx, address):
    """The uint64 at any address."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()), align=1)

    return types.uint64(types.intp), generate


@intrinsic
def poke(typingctx, address, value):
    """Write a uint64 at any address."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], _WORD.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.uint64), generate


@intrinsic
def gather_bits(typingctx, address, bit):
    """The uint64 whose bit i is bit `bit` of the byte at address + i, for 64 bytes."""

    def generate(context, builder, signature, arguments):
        codes = builder.load(builder.inttoptr(arguments[0], _BYTES.as_pointer()), align=1)
        shift = builder.trunc(arguments[1], ir.IntType(8))
        one = builder.shl(ir.IntType(8)(1), shift)
        vector = builder.insert_element(ir.Constant(_BYTES, ir.Undefined), one, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 64), None)
        ones = builder.shuffle_vector(vector, ir.Constant(_BYTES, ir.Undefined), mask)
        set_bits = builder.icmp_unsigned("!=", builder.and_(codes, ones), ir.Constant(_BYTES, None))
        return builder.bitcast(set_bits, _WORD)

    return types.uint64(types.intp, types.intp), generate


_HALVES = ir.VectorType(ir.IntType(32), 16)


@intrinsic
def add_bits(typingctx, address, bits, weight):
    """Element i += weight where bit i of `bits` is set, for the 16 int32 elements at an address."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _HALVES.as_pointer())
        chosen = builder.bitcast(builder.trunc(arguments[1], ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        vector = builder.insert_element(ir.Constant(_HALVES, ir.Undefined), arguments[2], ir.IntType(32)(0))
        mask = ir.Constant(_HALVES, None)
        weights = builder.shuffle_vector(vector, ir.Constant(_HALVES, ir.Undefined), mask)
        added = builder.select(chosen, weights, ir.Constant(_HALVES, None))
        builder.store(builder.add(builder.load(pointer, align=4), added), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.uint64, types.int32), generate
