"""Transfer matrices kept on disk by content, so that an array is solved once and not once per run.

A file is safetensors: `transfer`, float64 (…, columns, rows) in siemens. Its name, and `content` in its header, is the
SHA-256 of what went in: version, conductances, wires; `sha256` in its header is that of the array's bytes. A file that
does not check out is solved again and replaced. The least recently used files go when the folder outgrows its limit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from crossloom.errors import InputError
from crossloom.hardware import Array
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.weave.store import atomic_path

VERSION = 1
"""Raised with every change of the network, the solver's result or the file."""

CACHE_VARIABLE = "CROSSLOOM_CACHE"
LIMIT = 2 << 30
KEEP = 0.9
"""Share of the limit that is kept when files go, so that not every new file makes others go."""


def cache_folder() -> Path:
    """Where caches lie: the environment's CROSSLOOM_CACHE, else the platform's folder for them."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "crossloom"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "crossloom" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossloom"


def content_hash(conductance: Float64[np.ndarray, "*arrays rows columns"], wires: Wires) -> str:
    """SHA-256, hex, of everything a transfer matrix depends on."""
    header = {"version": VERSION, "shape": conductance.shape, "wires": dataclasses.asdict(wires)}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(conductance, "<f8").tobytes())
    return digest.hexdigest()


class TransferCache:
    """`effective_conductances` that remembers.

    Args:
        folder: of the files, made when needed; None is `transfer` in `cache_folder()`.
        limit: bytes that the files may take together.

    Raises:
        InputError: a limit below 0.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> None:
        if limit < 0:
            raise InputError("cache.limit", limit, "0 bytes or more")
        self.folder = cache_folder() / "transfer" if folder is None else Path(folder)
        self.limit = limit
        self._size: int | None = None

    def effective_conductances(
        self, conductance: Float64[np.ndarray, "*arrays rows columns"], array: Array | Wires
    ) -> Float64[np.ndarray, "*arrays columns rows"]:
        """M, read from disk if these very arrays have been solved before, else solved and kept.

        Raises:
            InputError: as `effective_conductances`.
        """
        wires = array if isinstance(array, Wires) else Wires.of(array)
        g = np.asarray(conductance, np.float64)
        if wires.ideal:
            return effective_conductances(g, wires)
        key = content_hash(g, wires)
        path = self.folder / key[:2] / f"{key}.safetensors"
        transfer = self._read(path, (*g.shape[:-2], *g.shape[:-3:-1]))
        if transfer is None:
            transfer = effective_conductances(g, wires)
            self._write(path, transfer)
        return transfer

    def clear(self) -> None:
        """Remove every file of the cache."""
        for _, _, path in self._files():
            path.unlink(missing_ok=True)
        self._size = 0

    def _read(self, path: Path, shape: tuple[int, ...]) -> Float64[np.ndarray, "*arrays columns rows"] | None:
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                transfer: np.ndarray = file.get_tensor("transfer")
        except (OSError, SafetensorError, ValueError):
            return None
        expected = {"content": path.stem, "sha256": _digest(transfer)}
        if transfer.shape != shape or transfer.dtype != np.float64 or metadata != expected:
            return None
        with suppress(OSError):
            os.utime(path)
        return transfer

    def _write(self, path: Path, transfer: Float64[np.ndarray, "*arrays columns rows"]) -> None:
        try:
            with atomic_path(path) as temporary:
                save_file({"transfer": transfer}, temporary, {"content": path.stem, "sha256": _digest(transfer)})
            self._bound(path.stat().st_size)
        except OSError as error:
            warnings.warn(f"transfer matrices are not kept: {self.folder}: {error}", UserWarning, stacklevel=3)

    def _bound(self, added: int) -> None:
        """Count a new file, and remove the least recently used ones if there is too much."""
        self._size = sum(size for _, size, _ in self._files()) if self._size is None else self._size + added
        if self._size <= self.limit:
            return
        files = sorted(self._files())
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size <= KEEP * self.limit:
                break
            path.unlink(missing_ok=True)
            self._size -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of every file."""
        found = []
        for path in self.folder.glob("??/*.safetensors"):
            with suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        return found


def _digest(transfer: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(transfer).tobytes()).hexdigest()
