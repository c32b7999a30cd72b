"""The disk cache gives back what was solved, survives damage and stays within its bound."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossloom.errors import InputError
from crossloom.simulate import parasitic_cache
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.simulate.parasitic_cache import TransferCache, cache_folder, content_hash

WIRES = Wires(1.0, 2.0, 300.0, 50.0)


def array(seed: int = 0, shape: tuple[int, ...] = (6, 4)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1e-6, 1e-4, shape)


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the arrays that were really solved."""
    seen: list[tuple[int, ...]] = []

    def solve(g: np.ndarray, wires: Wires) -> np.ndarray:
        seen.append(g.shape)
        return effective_conductances(g, wires)

    monkeypatch.setattr(parasitic_cache, "effective_conductances", solve)
    return seen


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4), (2, 1, 5, 7)])
def test_an_array_is_solved_once(tmp_path: Path, solved: list, shape: tuple[int, ...]) -> None:
    g = array(shape=shape)
    first = TransferCache(tmp_path).effective_conductances(g, WIRES)
    again = TransferCache(tmp_path).effective_conductances(g, WIRES)
    assert solved == [shape]
    assert first.dtype == again.dtype == np.float64
    assert np.array_equal(first, again)
    assert np.array_equal(first, effective_conductances(g, WIRES))


def test_any_difference_is_another_array(tmp_path: Path, solved: list) -> None:
    cache, g = TransferCache(tmp_path), array()
    nudged = g.copy()
    nudged[2, 3] = np.nextafter(nudged[2, 3], 1)
    wires = [Wires(1.0, 2.0, 300.0, 51.0), Wires(2.0, 1.0, 300.0, 50.0), Wires(1.0, 2.0, 300.0, 50.0, "both")]
    cases = [(g, WIRES), (nudged, WIRES), (g.reshape(4, 6), WIRES), (g[None], WIRES), *((g, w) for w in wires)]
    for a, w in cases:
        assert np.array_equal(cache.effective_conductances(a, w), effective_conductances(a, w))
    assert len(solved) == len(cases) == len({content_hash(a, w) for a, w in cases}) == len(files(tmp_path))


def test_layout_in_memory_is_no_difference() -> None:
    g = array()
    assert content_hash(g, WIRES) == content_hash(np.asfortranarray(g), WIRES) == content_hash(g[::-1][::-1], WIRES)


def test_perfect_wires_are_not_kept(tmp_path: Path) -> None:
    assert np.array_equal(TransferCache(tmp_path).effective_conductances(array(), Wires()), array().T)
    assert not files(tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_solved_again(tmp_path: Path, data: st.DataObject) -> None:
    cache, g = TransferCache(tmp_path), array()
    expected = cache.effective_conductances(g, WIRES)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "empty", "grow"]))
    if kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "empty":
        content.clear()
    else:
        content += b"more"
    path.write_bytes(bytes(content))
    assert np.array_equal(cache.effective_conductances(g, WIRES), expected)
    path.write_bytes(bytes(content))
    assert np.array_equal(TransferCache(tmp_path).effective_conductances(g, WIRES), expected)
    assert np.array_equal(TransferCache(tmp_path).effective_conductances(g, WIRES), expected)


def test_a_damaged_file_is_replaced(tmp_path: Path, solved: list) -> None:
    cache, g = TransferCache(tmp_path), array()
    cache.effective_conductances(g, WIRES)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    cache.effective_conductances(g, WIRES)
    assert len(path.read_bytes()) == len(whole)
    cache.effective_conductances(g, WIRES)
    assert len(solved) == 2


def test_another_arrays_file_is_not_taken(tmp_path: Path) -> None:
    cache = TransferCache(tmp_path)
    cache.effective_conductances(array(0), WIRES)
    (path,) = files(tmp_path)
    cache.effective_conductances(array(1), WIRES)
    (other,) = set(files(tmp_path)) - {path}
    other.replace(path)
    assert np.array_equal(cache.effective_conductances(array(0), WIRES), effective_conductances(array(0), WIRES))


def test_the_least_recently_used_go(tmp_path: Path, solved: list) -> None:
    one = TransferCache(tmp_path / "probe")
    one.effective_conductances(array(), WIRES)
    size = files(tmp_path / "probe")[0].stat().st_size
    cache = TransferCache(tmp_path / "cache", limit=5 * size)
    for i in range(5):
        cache.effective_conductances(array(i), WIRES)
    assert len(files(tmp_path / "cache")) == 5
    for i, path in enumerate(sorted(files(tmp_path / "cache"), key=lambda p: p.stat().st_mtime_ns)):
        os.utime(path, (1000 + i, 1000 + i))
    solved.clear()
    cache.effective_conductances(array(0), WIRES)
    assert not solved, "a use, which makes it the most recent"
    cache.effective_conductances(array(5), WIRES)
    kept = files(tmp_path / "cache")
    assert sum(p.stat().st_size for p in kept) <= 5 * size
    solved.clear()
    for i in (0, 5):
        cache.effective_conductances(array(i), WIRES)
    assert not solved
    cache.effective_conductances(array(1), WIRES)
    assert solved == [(6, 4)], "the oldest had to go"


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = TransferCache(tmp_path, limit=0)
    for i in range(3):
        cache.effective_conductances(array(i), WIRES)
    assert not files(tmp_path)
    with pytest.raises(InputError, match="limit"):
        TransferCache(tmp_path, limit=-1)


def test_a_folder_that_cannot_be_written_warns(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = TransferCache(tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="not kept"):
        transfer = cache.effective_conductances(array(), WIRES)
    assert np.array_equal(transfer, effective_conductances(array(), WIRES))


def test_clear_removes_every_file(tmp_path: Path) -> None:
    cache = TransferCache(tmp_path)
    for i in range(3):
        cache.effective_conductances(array(i), WIRES)
    cache.clear()
    assert not files(tmp_path)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSLOOM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert TransferCache().folder == tmp_path / "transfer"
    monkeypatch.delenv("CROSSLOOM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "crossloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "crossloom"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "crossloom"
