"""Woven layers: the identity y = Q(Cᵀ(P x)) in all its uses, and programs on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossloom.weave import (
    Add,
    Factor,
    Format,
    Input,
    InputTransform,
    Lookup,
    OutputTransform,
    Program,
    Rescale,
    Woven,
    WovenLayer,
    load_program,
    save_program,
    zero_point_bias,
)


def make_layer(core: np.ndarray, transform: InputTransform, /, **changes: object) -> WovenLayer:
    columns = core.shape[0] * core.shape[2]
    layer = WovenLayer(
        name="layer",
        transform=transform,
        core=core.astype(np.int32),
        output=OutputTransform(np.zeros(columns, np.int64), Rescale(), Format(32, True)),
        input_format=Format(8, False),
        weight_bits=8,
        weight_zero=None,
        weight_scale=np.ones(1),
    )
    return replace(layer, **changes)  # type: ignore[arg-type]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_woven_product_equals_effective_weight(groups: int, inputs: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = InputTransform(inputs, (Factor.of("matrix", rng.integers(-3, 4, (rows, inputs))),))
    layer = make_layer(rng.integers(-9, 10, (groups, rows, columns)), one.repeated(groups))
    x = rng.integers(0, 256, (5, groups * inputs))
    weight = layer.effective_weight()
    dense = np.einsum("vgk,gkn->vgn", x.reshape(5, groups, inputs), weight).reshape(5, -1)
    assert np.array_equal(layer.accumulate(x), dense)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_zero_point_correction_gives_the_product_of_real_values(seed: int, zero: int) -> None:
    rng = np.random.default_rng(seed)
    core = rng.integers(-9, 10, (2, 3, 2))
    transform = InputTransform.select(6, [1, 0, 2, 5, 3, 4])
    x = rng.integers(0, 256, (4, 6))
    layer = make_layer(core, transform, input_format=Format(8, False, 1.0, zero))
    corrected = layer.accumulate(x) + zero_point_bias(transform, core, zero)
    assert np.array_equal(corrected, make_layer(core, transform).accumulate(x - zero))


def test_output_scatter_gives_pruned_channels_their_bias() -> None:
    q = OutputTransform(np.array([5, 7, 9]), Rescale(), Format(8, True), -128, 127, columns=np.array([0, -1, 1]))
    assert q.apply(np.array([[10, 20]])).tolist() == [[15, 7, 29]]


def test_output_rescales_rounds_and_clips() -> None:
    q = OutputTransform(np.zeros(1, np.int64), Rescale.of(0.25), Format(8, False, 1.0, 10), 10, 255)
    assert q.apply(np.array([[-50], [1], [2], [3], [4000]])).ravel().tolist() == [10, 10, 11, 11, 255]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform": InputTransform.identity(5)}, "P has 5 rows"),
        ({"output": OutputTransform(np.zeros(3, np.int64), Rescale(), Format(8, True))}, "Q has 3 channels"),
        ({"transform": InputTransform.select(6, [3, 1, 2, 0, 4, 5])}, "different groups"),
        (
            {
                "transform": InputTransform(6, (Factor.of("moments", np.eye(6, dtype=int), 1),)),
                "input_format": Format(8, False, 1.0, 3),
            },
            "zero point 0",
        ),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    core = np.zeros((2, 3, 2))
    with pytest.raises(ValueError, match=message):
        make_layer(core, InputTransform.identity(6), **changes)


def small_program() -> Program:
    rng = np.random.default_rng(3)
    transform = InputTransform.sum([0, 1, 0, 2]).then(InputTransform.select(3, [2, 0, 1]))
    layer = make_layer(rng.integers(-9, 10, (1, 3, 4)), transform)
    form = Format(8, False, 0.1)
    return Program(
        "small",
        (
            Input(name="x", inputs=(), format=form, shape=(4,)),
            Woven(name="a", inputs=("x",), format=form, shape=(4,), layer=layer),
            Add(name="b", inputs=("a", "x"), format=form, shape=(4,), low=0, high=255, multipliers=(1, 3), shift=2),
            Lookup(
                name="c", inputs=("b",), format=form, shape=(4,), table=np.arange(256, dtype=np.int32), function="f"
            ),
        ),
        ("one", "two"),
    )


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if hasattr(a, "toarray"):
        return bool(np.array_equal(a.toarray(), b.toarray()))  # type: ignore[attr-defined]
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())  # type: ignore[attr-defined,index]
    return a == b


def test_a_program_is_the_same_after_a_trip_to_disk(tmp_path: Path) -> None:
    program = small_program()
    save_program(program, tmp_path / "p.safetensors", {"note": [1, 2]})
    loaded, extra = load_program(tmp_path / "p.safetensors")
    assert extra == {"note": [1, 2]}
    assert same(loaded, program)
    assert not list(tmp_path.glob("*.part"))


def test_damaged_files_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_program(small_program(), path)
    whole = path.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged or truncated"):
            load_program(path)
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_program(path)
    with pytest.raises(FileNotFoundError):
        load_program(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crossloom.weave.store.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_program(small_program(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_programs_in_a_wrong_order_are_refused() -> None:
    nodes = small_program().nodes
    with pytest.raises(ValueError, match="does not come before"):
        Program("p", (nodes[0], nodes[2], nodes[1]))
    with pytest.raises(ValueError, match="two nodes are called"):
        Program("p", (nodes[0], nodes[1], nodes[1]))
    with pytest.raises(ValueError, match="must be the Input"):
        Program("p", ())
