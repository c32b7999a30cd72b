"""1024 one-bit lanes as a Numba type.

Numba vectorises loops; it cannot keep a dozen vectors in registers across a data-dependent loop, which is what a
bit-sliced counter needs. `Lanes` is an LLVM vector of sixteen 64-bit words with the few operations used here. LLVM
lowers it to what the processor has (two AVX-512 registers, four AVX2, eight NEON); with AVX-512 a full adder is two
ternary-logic instructions a register. Two registers a vector keep both logic ports busy along a carry chain.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, ANN202

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


class LanesType(types.Type):  # type: ignore[no-any-unimported]
    """Numba's type of sixteen 64-bit words that act as 1024 independent bits."""

    def __init__(self) -> None:
        super().__init__(name="Lanes1024")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[no-any-unimported]
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


def _address(context, builder, array_type, array, index, kind):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index], inbounds=True), kind.as_pointer())


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
def load_at(typingctx, base, offset_address):
    """The vector at base + the uint32 offset that lies at `offset_address`."""

    def generate(context, builder, signature, arguments):
        offset = builder.load(builder.inttoptr(arguments[1], ir.IntType(32).as_pointer()))
        address = builder.add(arguments[0], builder.zext(offset, _WORD))
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


def _ternary(table: int):
    """Bit i of `table` is the result for the inputs whose bits, a first, read i."""

    @intrinsic
    def operation(typingctx, a, b, c):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(_REGISTER, [_REGISTER, _REGISTER, _REGISTER, ir.IntType(32)])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.q.512")
            halves = []
            for start in (0, 8):
                part = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(start, start + 8)))
                operands = [builder.shuffle_vector(v, v, part) for v in arguments]
                halves.append(builder.call(function, [*operands, ir.IntType(32)(table)]))
            whole = ir.Constant(ir.VectorType(ir.IntType(32), WORDS), list(range(WORDS)))
            return builder.shuffle_vector(*halves, whole)

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


@intrinsic
def gather_bits(typingctx, array, index, bit):
    """The uint64 whose bit i is bit `bit` of byte array[index + i], 64 bytes from a uint8 array."""

    def generate(context, builder, signature, arguments):
        codes = builder.load(_address(context, builder, signature.args[0], *arguments[:2], _BYTES), align=1)
        shift = builder.trunc(arguments[2], ir.IntType(8))
        one = builder.shl(ir.IntType(8)(1), shift)
        vector = builder.insert_element(ir.Constant(_BYTES, ir.Undefined), one, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 64), None)
        ones = builder.shuffle_vector(vector, ir.Constant(_BYTES, ir.Undefined), mask)
        set_bits = builder.icmp_unsigned("!=", builder.and_(codes, ones), ir.Constant(_BYTES, None))
        return builder.bitcast(set_bits, _WORD)

    return types.uint64(array, types.intp, types.intp), generate


_HALVES = ir.VectorType(ir.IntType(32), 16)


@intrinsic
def add_bits(typingctx, array, index, bits, weight):
    """array[index + i] += weight where bit i of the uint16 `bits` is set, for 16 elements of an int32 array."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], *arguments[:2], _HALVES)
        chosen = builder.bitcast(builder.trunc(arguments[2], ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        vector = builder.insert_element(ir.Constant(_HALVES, ir.Undefined), arguments[3], ir.IntType(32)(0))
        mask = ir.Constant(_HALVES, None)
        weights = builder.shuffle_vector(vector, ir.Constant(_HALVES, ir.Undefined), mask)
        added = builder.select(chosen, weights, ir.Constant(_HALVES, None))
        builder.store(builder.add(builder.load(pointer, align=4), added), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64, types.int32), generate
