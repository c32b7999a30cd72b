"""512 one-bit lanes as a Numba type.

Numba vectorises loops; it cannot keep a dozen vectors in registers across a data-dependent loop, which is what a
bit-sliced counter needs. `Lanes` is an LLVM vector of eight 64-bit words with the four operations used here. LLVM
lowers it to whatever the processor has (one AVX-512 register, two AVX2, four NEON); with AVX-512 a full adder is
two ternary-logic instructions.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WORDS = 8
"""64-bit words of a vector."""

_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, WORDS)
_BYTES = ir.VectorType(ir.IntType(8), 64)
_ALIGN = WORDS * 8


def _has_ternary_logic() -> bool:
    """True if code is compiled for this very processor and it has AVX-512."""
    retargeted = config.CPU_NAME or config.CPU_FEATURES
    return not retargeted and bool(binding.get_host_cpu_features().get("avx512f", False))


class LanesType(types.Type):  # type: ignore[no-any-unimported]
    """Numba's type of eight 64-bit words that act as 512 independent bits."""

    def __init__(self) -> None:
        super().__init__(name="Lanes512")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[no-any-unimported]
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


def _address(context, builder, array_type, array, index, kind):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index], inbounds=True), kind.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Eight words of a 64-byte aligned uint64 array from `index`, a multiple of eight."""

    def generate(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments, _VECTOR), align=_ALIGN)

    return lanes(array, types.intp), generate


@intrinsic
def store(typingctx, array, index, value):
    """Write eight words at `index`."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], *arguments[:2], _VECTOR)
        builder.store(arguments[2], pointer, align=_ALIGN)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def load_at(typingctx, array, base, offsets, index):
    """Eight words from base + offsets[index]: `offsets` uint32, so that no sign is checked."""

    def generate(context, builder, signature, arguments):
        data, base, table, at = arguments
        offset = builder.load(
            builder.gep(context.make_array(signature.args[2])(context, builder, table).data, [at], inbounds=True)
        )
        index = builder.add(base, builder.zext(offset, _WORD))
        return builder.load(_address(context, builder, signature.args[0], data, index, _VECTOR), align=_ALIGN)

    return lanes(array, types.intp, offsets, types.intp), generate


@intrinsic
def fill(typingctx, word):
    """All eight words equal to a uint64."""

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
            kind = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR, ir.IntType(32)])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.q.512")
            return builder.call(function, [*arguments, ir.IntType(32)(table)])

        return lanes(lanes, lanes, lanes), generate

    return operation


_parity, _carry = _ternary(0x96), _ternary(0xB2)

if _has_ternary_logic():

    @njit(inline="always")
    def add(a, b, c):
        """Full adder of three bits a lane: (sum, carry). The carry is made of sum, b and c, which saves a copy."""
        total = _parity(a, b, c)
        return total, _carry(b, total, c)

else:

    @njit(inline="always")
    def add(a, b, c):
        """Full adder of three bits a lane: (sum, carry)."""
        half = differ(a, b)
        return differ(half, c), either(both(a, b), both(half, c))


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
