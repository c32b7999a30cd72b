"""Thirty-two columns as one value in Numba: 16-bit, 32-bit and float32 lanes.

Numba's own vectoriser cannot keep eight accumulators in registers across a loop of table lookups. These types are
LLVM vectors, lowered to what the processor has: one AVX-512 register of 16-bit lanes, two AVX2, four NEON.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,no-any-unimported"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

COLUMNS = 32
"""Lanes of a value."""
_INDEX, _BYTE = ir.IntType(64), ir.IntType(8)


class ShortsType(types.Type):
    """Numba's type of 32 lanes of 16 bits."""

    def __init__(self) -> None:
        super().__init__(name="Shorts32")


class IntsType(types.Type):
    """Numba's type of 32 lanes of 32 bits."""

    def __init__(self) -> None:
        super().__init__(name="Ints32")


class RealsType(types.Type):
    """Numba's type of 32 lanes of float32."""

    def __init__(self) -> None:
        super().__init__(name="Reals32")


shorts, ints, reals = ShortsType(), IntsType(), RealsType()
_SHORTS, _INTS, _REALS = (
    ir.VectorType(element, COLUMNS) for element in (ir.IntType(16), ir.IntType(32), ir.FloatType())
)


def _model(kind: type, vector: Any) -> None:
    @register_model(kind)
    class _Model(models.PrimitiveModel):
        def __init__(self, manager: Any, frontend_type: Any) -> None:
            super().__init__(manager, frontend_type, vector)


for _kind, _vector in ((ShortsType, _SHORTS), (IntsType, _INTS), (RealsType, _REALS)):
    _model(_kind, _vector)


def _spread(builder, value, vector):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _loader(kind, vector, align):
    @intrinsic
    def load(typingctx, address):
        def generate(context, builder, signature, arguments):
            return builder.load(builder.inttoptr(arguments[0], vector.as_pointer()), align=align)

        return kind(types.intp), generate

    return load


def _storer(kind, vector):
    @intrinsic
    def store(typingctx, address, value):
        def generate(context, builder, signature, arguments):
            builder.store(arguments[1], builder.inttoptr(arguments[0], vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.intp, kind), generate

    return store


load_shorts, load_ints = _loader(shorts, _SHORTS, 2), _loader(ints, _INTS, 4)
store_shorts, store_ints = _storer(shorts, _SHORTS), _storer(ints, _INTS)


@intrinsic
def lookup(typingctx, table, byte):
    """The shorts at table + 8·(the byte at address `byte`).

    The byte is loaded by itself: cutting eight of them out of one word takes twice the instructions.
    """

    def generate(context, builder, signature, arguments):
        number = builder.load(builder.inttoptr(arguments[1], _BYTE.as_pointer()))
        address = builder.add(arguments[0], builder.shl(builder.zext(number, _INDEX), _INDEX(3)))
        return builder.load(builder.inttoptr(address, _SHORTS.as_pointer()), align=64)

    return shorts(types.intp, types.intp), generate


@intrinsic
def spread_short(typingctx, value):
    """All lanes equal to the low 16 bits of an integer."""

    def generate(context, builder, signature, arguments):
        return _spread(builder, builder.trunc(arguments[0], ir.IntType(16)), _SHORTS)

    return shorts(types.int64), generate


@intrinsic
def spread_int(typingctx, value):
    """All lanes equal to the low 32 bits of an integer."""

    def generate(context, builder, signature, arguments):
        return _spread(builder, builder.trunc(arguments[0], ir.IntType(32)), _INTS)

    return ints(types.int64), generate


@intrinsic
def spread_real(typingctx, value):
    """All lanes equal to a float32."""

    def generate(context, builder, signature, arguments):
        return _spread(builder, arguments[0], _REALS)

    return reals(types.float32), generate


def _binary(kind, name):
    @intrinsic
    def operation(typingctx, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments)

        return kind(kind, kind), generate

    return operation


add_shorts, sub_shorts, shift_left = _binary(shorts, "add"), _binary(shorts, "sub"), _binary(shorts, "shl")
shift_right = _binary(shorts, "ashr")
add_ints, sub_ints, xor_ints, shift_ints = (_binary(ints, n) for n in ("add", "sub", "xor", "shl"))
sub_reals, mul_reals = _binary(reals, "fsub"), _binary(reals, "fmul")


def _called(kind, vector, name):
    @intrinsic
    def operation(typingctx, a, b):
        def generate(context, builder, signature, arguments):
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 2), name)
            return builder.call(function, arguments)

        return kind(kind, kind), generate

    return operation


add_saturated = _called(shorts, _SHORTS, "llvm.sadd.sat.v32i16")
max_shorts, min_shorts = (_called(shorts, _SHORTS, f"llvm.s{n}.v32i16") for n in ("max", "min"))


@intrinsic
def high_product(typingctx, a, b):
    """The upper 16 bits of each 32-bit product: ⌊a·b / 2^16⌋."""

    def generate(context, builder, signature, arguments):
        wide = [builder.sext(v, _INTS) for v in arguments]
        return builder.trunc(builder.ashr(builder.mul(*wide), ir.Constant(_INTS, [16] * COLUMNS)), _SHORTS)

    return shorts(shorts, shorts), generate


@intrinsic
def widen(typingctx, a):
    """16-bit lanes as 32-bit lanes, sign kept."""

    def generate(context, builder, signature, arguments):
        return builder.sext(arguments[0], _INTS)

    return ints(shorts), generate


def _has_wide_words() -> bool:
    """True if code is compiled for this very processor and it has AVX-512 on 16-bit lanes."""
    retargeted = config.CPU_NAME or config.CPU_FEATURES
    return not retargeted and bool(binding.get_host_cpu_features().get("avx512bw", False))


@intrinsic
def rounded_product(typingctx, a, b):
    """⌊a·b / 2^15 + ½⌋: one instruction, which LLVM does not always find by itself."""

    def generate(context, builder, signature, arguments):
        if _has_wide_words():
            kind = ir.FunctionType(_SHORTS, [_SHORTS, _SHORTS])
            name = "llvm.x86.avx512.pmul.hr.sw.512"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        product = builder.mul(*(builder.sext(v, _INTS) for v in arguments))
        product = builder.add(product, ir.Constant(_INTS, [1 << 14] * COLUMNS))
        return builder.trunc(builder.ashr(product, ir.Constant(_INTS, [15] * COLUMNS)), _SHORTS)

    return shorts(shorts, shorts), generate


_PAIRS = ir.VectorType(ir.IntType(32), COLUMNS // 2)


def _halves(builder, value):
    masks = [list(range(start, start + COLUMNS // 2)) for start in (0, COLUMNS // 2)]
    return [builder.shuffle_vector(value, value, ir.Constant(_PAIRS, mask)) for mask in masks]


def _sixteens(value):
    return ir.Constant(_PAIRS, [value] * (COLUMNS // 2))


@intrinsic
def to_reals(typingctx, a):
    """2^16 times each 16-bit lane as float32, exactly; even columns in the first half, odd ones in the second."""

    def generate(context, builder, signature, arguments):
        pairs = builder.bitcast(arguments[0], _PAIRS)
        even, odd = builder.shl(pairs, _sixteens(16)), builder.and_(pairs, _sixteens(-65536))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), list(range(COLUMNS)))
        return builder.sitofp(builder.shuffle_vector(even, odd, mask), _REALS)

    return reals(shorts), generate


@intrinsic
def to_shorts(typingctx, a):
    """float32 lanes in that order, from 0 to 32767, cut to 16-bit lanes."""

    def generate(context, builder, signature, arguments):
        even, odd = _halves(builder, builder.fptosi(arguments[0], _INTS))
        return builder.bitcast(builder.or_(even, builder.shl(odd, _sixteens(16))), _SHORTS)

    return shorts(reals), generate


@intrinsic
def first_reciprocal_root(typingctx, a):
    """The bits 0x5F3759DF − (a >> 1) as a float: a first guess at 1/√a (Lomont 2003)."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], _INTS)
        half = builder.ashr(bits, ir.Constant(_INTS, [1] * COLUMNS))
        return builder.bitcast(builder.sub(ir.Constant(_INTS, [0x5F3759DF] * COLUMNS), half), _REALS)

    return reals(reals), generate


@intrinsic
def load_word(typingctx, address):
    """The uint64 at an address."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], _INDEX.as_pointer()), align=8)

    return types.uint64(types.intp), generate


@intrinsic
def load_count(typingctx, address):
    """The uint16 at an address, as an int64."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.load(builder.inttoptr(arguments[0], ir.IntType(16).as_pointer()), align=2), _INDEX)

    return types.int64(types.intp), generate
