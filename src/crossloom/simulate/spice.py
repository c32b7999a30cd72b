"""The `spice` rung: one array as a netlist, run by ngspice, and compared with its transfer matrix.

A netlist is plain SPICE3 text: a title line, a comment that states the wires, elements in the order below, one `.save`
line per column, `.op` and `.end`. Rows i and columns j count from 0 at the top left. With M = `Wires`:

    Vi      in_i 0      DC volts        source of row i
    RLi     in_i w_i_0  driver          driver at the left; RRi to w_i_(W−1) where both ends are driven
    RWi_j   w_i_j  w_i_(j+1)            wordline segment
    RCi_j   w_i_j  b_i_j                cell, 1/G; a cell of 0 S is left out
    RBi_j   b_i_j  b_(i+1)_j            bitline segment
    RSj     b_(H−1)_j  s_j              sense resistance at the bottom; RTj from b_0_j where both ends are sensed
    VSj     s_j 0       DC 0            ammeter: I(VSj) is the current that column j delivers

A resistance of 0 Ω has no element: its two nodes are one (SPICE would put in a milliohm). The result is read from the
binary rawfile, so every current comes with all its bits. `.options klu` asks for ngspice's faster matrix solver, which
versions before 42 do not have and ignore.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer

from crossloom.errors import InputError
from crossloom.hardware import Array
from crossloom.mapping import LayerMapping, Mapping
from crossloom.simulate.parasitic import Wires, effective_conductances
from crossloom.simulate.parasitic_array import driven, physical

PROGRAM = "ngspice"


def write_netlist(
    conductance: Float64[np.ndarray, "rows columns"],
    voltages: Float64[np.ndarray, " rows"],
    array: Array | Wires,
    title: str = "crossbar",
) -> str:
    """The netlist of one array read with given row voltages.

    Args:
        conductance: of the cells, siemens.
        voltages: of the rows' sources, volts.
        array: the array's description, or its wires.
        title: first line.

    Raises:
        InputError: a shape that does not fit, or values that are negative (conductances) or not finite.
    """
    wires = array if isinstance(array, Wires) else Wires.of(array)
    g, v = np.asarray(conductance, np.float64), np.asarray(voltages, np.float64)
    if g.ndim != 2 or 0 in g.shape:
        raise InputError("conductance", g.shape, "(rows, columns), at least one of each")
    if v.shape != g.shape[:1]:
        raise InputError("voltages", v.shape, f"one per row, ({len(g)},)")
    if not np.isfinite(g).all() or g.min() < 0 or not np.isfinite(v).all():
        raise InputError("netlist", "negative or non-finite values", "finite voltages and conductances of 0 S or more")
    rows, columns = g.shape
    lines = [f"* {' '.join(title.split())}", f"* {rows} rows, {columns} columns, {wires}"]

    def resistor(name: str, a: str, b: str, ohm: float) -> None:
        if a != b:
            lines.append(f"R{name} {a} {b} {ohm!r}")

    for i in range(rows):
        lines.append(f"V{i} in_{i} 0 DC {float(v[i])!r}")
        word = [_word(i, j, columns, wires) for j in range(columns)]
        resistor(f"L{i}", f"in_{i}", word[0], wires.driver)
        if wires.drive == "both":
            resistor(f"R{i}", f"in_{i}", word[-1], wires.driver)
        for j in range(columns - 1):
            resistor(f"W{i}_{j}", word[j], word[j + 1], wires.row_segment)
        for j in np.flatnonzero(g[i]).tolist():
            resistor(f"C{i}_{j}", word[j], _bit(i, j, rows, wires), float(1 / g[i, j]))
    for j in range(columns):
        bit = [_bit(i, j, rows, wires) for i in range(rows)]
        for i in range(rows - 1):
            resistor(f"B{i}_{j}", bit[i], bit[i + 1], wires.column_segment)
        resistor(f"S{j}", bit[-1], f"s_{j}", wires.sense)
        if wires.collect == "both":
            resistor(f"T{j}", bit[0], f"s_{j}", wires.sense)
        lines += [f"VS{j} s_{j} 0 DC 0", f".save i(VS{j})"]
    return "\n".join([*lines, ".options klu", ".op", ".end", ""])


def _word(i: int, j: int, columns: int, wires: Wires) -> str:
    """The node of wordline i at column j."""
    at_driver = j == 0 or wires.row_segment == 0 or (wires.drive == "both" and j == columns - 1)
    if wires.driver == 0 and at_driver:
        return f"in_{i}"
    return f"w_{i}_{0 if wires.row_segment == 0 else j}"


def _bit(i: int, j: int, rows: int, wires: Wires) -> str:
    """The node of bitline j at row i."""
    at_sense = i == rows - 1 or wires.column_segment == 0 or (wires.collect == "both" and i == 0)
    if wires.sense == 0 and at_sense:
        return f"s_{j}"
    return f"b_{rows - 1 if wires.column_segment == 0 else i}_{j}"


def ngspice() -> str:
    """Path of the ngspice program.

    Raises:
        InputError: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise InputError(
            "ngspice", "not found on PATH", "the ngspice program (Debian, Ubuntu: apt-get install ngspice)"
        )
    return found


def run_ngspice(netlist: str, timeout: float | None = None) -> Float64[np.ndarray, " columns"]:
    """Column currents in amperes, by ngspice; no start-up file of the user's is read.

    Args:
        netlist: as `write_netlist` gives it.
        timeout: seconds after which it is given up; None waits.

    Raises:
        InputError: ngspice is not installed.
        RuntimeError: it failed or ran out of time; with what it said.
    """
    program = ngspice()
    with tempfile.TemporaryDirectory(prefix="crossloom-spice-") as folder:
        circuit, result = Path(folder, "array.cir"), Path(folder, "array.raw")
        circuit.write_text(netlist, encoding="ascii")
        command = [program, "-n", "-b", "-r", str(result), str(circuit)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"ngspice: not done after {timeout:g} s") from error
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        if done.returncode or not result.is_file():
            raise RuntimeError(f"ngspice: exit status {done.returncode}, no result:\n{said}")
        return _currents(result.read_bytes(), said)


def _currents(rawfile: bytes, said: str) -> Float64[np.ndarray, " columns"]:
    """The currents of the ammeters VS0, VS1, … in a binary rawfile of one operating point."""
    header, mark, data = rawfile.partition(b"Binary:\n")
    variables = header.decode("ascii", "replace").partition("Variables:\n")[2].splitlines()
    names = [line.split()[1].lower() for line in variables if line.strip()]
    values = np.frombuffer(data, "<f8") if len(data) == 8 * len(names) else np.zeros(0)
    found = dict(zip(names, values.tolist(), strict=False))
    wanted = [f"i(vs{j})" for j in range(len(names))]
    if not mark or not names or set(wanted) - set(found):
        raise RuntimeError(f"ngspice: a rawfile without the columns' currents:\n{said}")
    return np.array([found[name] for name in wanted])


def digit_voltages(
    layer: LayerMapping,
    block: int,
    x: Integer[np.ndarray, " inputs"],
    read_voltage: float,
    digit: int = 0,
    group: int = 0,
) -> Float64[np.ndarray, " rows"]:
    """Row voltages of one read of one block: digit value / largest digit value × read voltage, 0 V in other row groups.

    Args:
        layer: the mapped layer.
        block: which of its blocks.
        x: one vector of input codes.
        read_voltage: volts of the largest digit.
        digit: which input digit, 0 the lowest.
        group: which group of rows that are driven at once.

    Raises:
        InputError: no such block, digit or group, or an x of another length.
    """
    limits = (("block", block, len(layer.blocks)), ("digit", digit, len(layer.digits)))
    for name, value, count in limits:
        if not 0 <= value < count:
            raise InputError(name, value, f"0 … {count - 1} in layer {layer.layer.name!r}")
    if not 0 <= group < layer.row_groups(layer.blocks[block]):
        raise InputError("group", group, f"0 … {layer.row_groups(layer.blocks[block]) - 1} in block {block}")
    if np.shape(x) != (layer.layer.inputs,):
        raise InputError("x", np.shape(x), f"({layer.layer.inputs},), the inputs of layer {layer.layer.name!r}")
    field = layer.digits[digit]
    rows = layer.layer.transform.apply(np.asarray(x, np.int64)[None])[0, layer.core_rows(layer.blocks[block])]
    piece = (rows >> field.lsb) & ((1 << field.width) - 1)
    first = group * layer.array.active_rows
    here = (np.arange(len(piece)) >= first) & (np.arange(len(piece)) < first + layer.array.active_rows)
    return np.where(here, piece, 0) * (read_voltage / ((1 << layer.array.b_dac) - 1))


def compare(
    mapping: Mapping,
    layer: str,
    block: int = 0,
    x: Integer[np.ndarray, " inputs"] | None = None,
    *,
    digit: int = 0,
    group: int = 0,
    seed: int = 0,
    wires: Wires | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """One read of one array three ways: perfect wires, transfer matrix, ngspice. Plain data, ready for JSON.

    The cells have their nominal conductances. The whole array is simulated, unused cells included.

    Args:
        mapping: the placed program.
        layer: a layer's name.
        block: which of its arrays.
        x: one vector of input codes; None draws one.
        digit: which input digit is read.
        group: which group of rows is driven.
        seed: of the drawn vector.
        wires: instead of those of the array's description.
        timeout: seconds given to ngspice; None waits.

    Raises:
        InputError: no such layer, block, digit or group; ngspice is not installed.
        RuntimeError: ngspice failed.
    """
    if layer not in mapping.layers:
        raise InputError.choice("layer", layer, mapping.layers)
    placed, device, array = mapping.layers[layer], mapping.chip.device, mapping.layers[layer].array
    if x is None:
        form = placed.layer.input_format
        x = np.random.default_rng(seed).integers(form.low, form.high + 1, placed.layer.inputs)
    voltages = driven(digit_voltages(placed, block, x, device.read_voltage, digit, group), array)
    program = ngspice()
    targets = np.array(device.conductances(array.b_cell))
    levels = placed.cells(placed.blocks[block]).levels
    conductance = physical(targets[levels], array, float(targets[0]))
    wires = wires or Wires.of(array)
    start = time.perf_counter()
    transfer = effective_conductances(conductance, wires) @ voltages
    solved = time.perf_counter()
    netlist = write_netlist(conductance, voltages, wires, f"{mapping.program.name}: layer {layer}, block {block}")
    spice = run_ngspice(netlist, timeout)
    done = time.perf_counter()
    ideal = voltages @ conductance
    used = slice(0, levels.shape[1])
    scale = float(np.abs(spice).max())
    return {
        "layer": layer, "block": block, "digit": digit, "group": group,
        "array": [array.rows, array.columns], "used": list(levels.shape),
        "active_rows": int(np.count_nonzero(voltages)),
        "wires": {name: getattr(wires, name) for name in Wires.__dataclass_fields__},
        "ideal": ideal[used].tolist(), "transfer": transfer[used].tolist(), "spice": spice[used].tolist(),
        "error": float(np.abs(transfer - spice).max() / scale) if scale else 0.0,
        "ir_drop": float(1 - spice[used].sum() / ideal[used].sum()) if ideal[used].any() else 0.0,
        "transfer_seconds": solved - start, "spice_seconds": done - solved,
        "ngspice": program, "netlist_lines": netlist.count("\n"), "netlist": netlist,
    }  # fmt: skip


def table(report: dict[str, Any], columns: int = 16) -> str:
    """What `compare` found, for people: a summary and the first `columns` columns."""
    wires = report["wires"]
    (rows, width), used = report["array"], report["used"]
    lines = [
        f"layer {report['layer']}, block {report['block']}, digit {report['digit']}, row group {report['group']}: "
        f"{used[0]} × {used[1]} cells in use of {rows} × {width}, {report['active_rows']} rows active",
        f"wires: {wires['row_segment']:g} Ω a row segment, {wires['column_segment']:g} Ω a column segment, driver "
        f"{wires['driver']:g} Ω ({wires['drive']}), sense {wires['sense']:g} Ω ({wires['collect']})",
        f"{'column':>6}  {'no wires':>12}  {'transfer matrix':>15}  {'ngspice':>15}   (µA)",
    ]
    values = zip(report["ideal"], report["transfer"], report["spice"], strict=True)
    for j, (ideal, transfer, spice) in enumerate(values):
        if j == columns:
            lines.append(f"{'…':>6}  {len(report['spice']) - columns} more")
            break
        lines.append(f"{j:>6}  {1e6 * ideal:>12.6f}  {1e6 * transfer:>15.9f}  {1e6 * spice:>15.9f}")
    lines += [
        f"current lost to the wires: {100 * report['ir_drop']:.3f} %",
        f"largest difference between transfer matrix and ngspice: {report['error']:.1e} of the largest current",
        f"time: transfer matrix {report['transfer_seconds']:.3f} s (for any input), ngspice "
        f"{report['spice_seconds']:.3f} s (for this one)",
    ]
    return "\n".join(lines)
