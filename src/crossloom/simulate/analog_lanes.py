"""Thirty-two columns as one value in Numba: 16-bit, 32-bit and float32 lanes.

Numba's own vectoriser cannot keep eight accumulators in registers across a loop of table lookups. These types are
LLVM vectors, lowered to what the processor has: one AVX-512 register of 16-bit lanes, two AVX2, four NEON.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,no-any-unimported"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

COLUMNS = 32
"""Lanes of a value."""
_INDEX, _BYTE = ir.IntType(64), ir.IntType(8)


def _lane_type(label: str, element: Any) -> tuple[Any, Any]:
    vector = ir.VectorType(element, COLUMNS)
    kind = type(label, (types.Type,), {"__init__": lambda self: types.Type.__init__(self, name=label)})()

    @register_model(type(kind))
    class _Model(models.PrimitiveModel):
        def __init__(self, manager: Any, frontend_type: Any) -> None:
            super().__init__(manager, frontend_type, vector)

    return kind, vector


shorts, _SHORTS = _lane_type("Shorts32", ir.IntType(16))
ints, _INTS = _lane_type("Ints32", ir.IntType(32))
reals, _REALS = _lane_type("Reals32", ir.FloatType())


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


load_shorts, load_ints, load_reals = _loader(shorts, _SHORTS, 2), _loader(ints, _INTS, 4), _loader(reals, _REALS, 4)
store_shorts, store_ints = _storer(shorts, _SHORTS), _storer(ints, _INTS)


@intrinsic
def lookup(typingctx, table, word, byte):
    """The shorts at table + 8·(byte number `byte` of `word`); `byte` may be any integer from 0 to 7."""

    def generate(context, builder, signature, arguments):
        base, bits, number = arguments
        offset = builder.and_(builder.lshr(bits, builder.shl(number, _INDEX(3))), _INDEX(255))
        address = builder.add(base, builder.shl(offset, _INDEX(3)))
        return builder.load(builder.inttoptr(address, _SHORTS.as_pointer()), align=64)

    return shorts(types.intp, types.uint64, types.intp), generate


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
add_reals, sub_reals, mul_reals = (_binary(reals, n) for n in ("fadd", "fsub", "fmul"))


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


_PAIRS = ir.VectorType(ir.IntType(32), COLUMNS // 2)
EVEN_ODD = [*range(0, COLUMNS, 2), *range(1, COLUMNS, 2)]
"""The column in each lane of `reals`: even columns first, which is how 16-bit lanes come apart in two shifts."""


@intrinsic
def to_reals(typingctx, a):
    """16-bit lanes as float32 lanes in the order `EVEN_ODD`, exactly."""

    def generate(context, builder, signature, arguments):
        pairs, by = builder.bitcast(arguments[0], _PAIRS), ir.Constant(_PAIRS, [16] * (COLUMNS // 2))
        even, odd = builder.ashr(builder.shl(pairs, by), by), builder.ashr(pairs, by)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), list(range(COLUMNS)))
        return builder.sitofp(builder.shuffle_vector(even, odd, mask), _REALS)

    return reals(shorts), generate


@intrinsic
def to_shorts(typingctx, a):
    """float32 lanes in the order `EVEN_ODD`, within 16 bits, cut towards zero to 16-bit lanes."""

    def generate(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], _INTS)
        halves = []
        for start in (0, COLUMNS // 2):
            mask = ir.Constant(_PAIRS, list(range(start, start + COLUMNS // 2)))
            halves.append(builder.shuffle_vector(whole, whole, mask))
        low = builder.and_(halves[0], ir.Constant(_PAIRS, [0xFFFF] * (COLUMNS // 2)))
        high = builder.shl(halves[1], ir.Constant(_PAIRS, [16] * (COLUMNS // 2)))
        return builder.bitcast(builder.or_(low, high), _SHORTS)

    return shorts(reals), generate


@intrinsic
def at_least_zero(typingctx, a):
    """max(a, 0)."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(_REALS, None)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[0], zero)

    return reals(reals), generate


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
