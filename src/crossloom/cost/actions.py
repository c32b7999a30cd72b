"""What one image makes a chip do, counted from the mapped program; nothing here knows what anything costs.

The rules, for a woven layer with V positions, D input digits, blocks b of R_b rows and M_b physical columns in
ceil(R_b / active_rows) row groups, macros m and accumulators of A bits:

| action | count for one image |
|---|---|
| row drive | V·Σ_b R_b·D, or the measured fraction of digits that are not zero |
| array read | V·D·Σ_b groups_b |
| sample and hold, conversion, shift-add | V·D·Σ_b groups_b·M_b |
| integration | V·Σ_d (2^width_d − 1)·Σ_b groups_b·M_b; only where digits are serial |
| input write, bulk AND, count of ones | V·D·Σ_b R_b, and twice V·D·Σ_b R_b·M_b; only with an AND readout |
| input register | bits of P x written once per macro, read once per block |
| output register | A bits written and read for every sum of every macro |
| tile bus | bits of P x into every macro that needs them, A bits of every sum out of it |
| buffer read | input codes fetched from the tile's buffer, per position and macro; with window reuse only new ones |
| buffer write | each tensor written once into every tile that reads it |
| network hop | bits × hops of tensors, of partial sums on their way to the last tile of their column, of rows of P x |
| transform | operations of P × V; sums of inputs for offset and flipped columns, and their subtraction |
| table look-up | V × the inputs of P that are out of place |
| digital add | sums of different macros, bias, residuals |
| activation, pool, multiply | one per value that is rounded and clipped, compared, or rescaled by no power of two |

Serial digits are driven bit by bit: a row drive is a bit that is not zero, and a column is sampled once a bit. With
an AND readout the input's bit planes are written beside the weights; no row is driven, no array read, sampled or
converted, and every cell is sensed once a digit whatever the input.

An elementwise node works where the last of its operands is made and takes that one as it comes; its other operands
and the operands of pooling come through the buffer. A tensor that is made on several tiles sends each reader the same
mix of them (which channel lies where is not followed any further). Reshapes, slices, pads and concatenations without
rescaling only rename codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from crossloom.cost import windows
from crossloom.cost.activity import Activity, LayerActivity
from crossloom.cost.cells import CellTable
from crossloom.cost.floorplan import FloorPlan, Flows
from crossloom.cost.geometry import Geometry, geometries
from crossloom.cost.tables import IndexTable, tables
from crossloom.errors import InputError
from crossloom.hardware import Action
from crossloom.mapping import Mapping
from crossloom.weave import (
    Add,
    AveragePool,
    Concat,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Node,
    Pad,
    Permute,
    Requantise,
    Rescale,
    Reshape,
    Scale,
    Slice,
    Woven,
)
from crossloom.weave.formats import MULTIPLIER_BITS

PORT = 0
"""The tile at the chip's port."""


@dataclass(frozen=True)
class Work:
    """So many times one action, on numbers of some width (None where the action has none)."""

    action: Action
    count: float
    bits: int | None = None


@dataclass(frozen=True, eq=False)
class NodeWork:
    """What one program node does for one image.

    Attributes:
        name, kind: of the node; kind is `woven` or the node's type in lower case.
        geometry: a woven node's blocks.
        owner: False for a second node that uses arrays which an earlier one has paid for.
        positions: input vectors per image; 0 for digital nodes.
        reads: array reads one after another for one input vector.
        accumulator_bits: A.
        work: the actions.
        cell_power: Σ over all reads of an image of G·(digit ÷ largest digit)², S; times V²·t it is the cells' energy.
        flows: messages between tiles.
        macs: multiply-accumulates of the dense layer this stands for.
        tables: index tables of P.
    """

    name: str
    kind: str
    geometry: Geometry | None = None
    owner: bool = True
    positions: int = 0
    reads: float = 0.0
    accumulator_bits: int = 0
    work: tuple[Work, ...] = ()
    cell_power: float = 0.0
    flows: Flows = field(default_factory=lambda: Flows.of([]))
    macs: int = 0
    tables: tuple[IndexTable, ...] = ()

    def count(self, action: Action) -> float:
        """How often an action happens."""
        return sum(w.count for w in self.work if w.action == action)


@dataclass(frozen=True, eq=False)
class Counts:
    """All work of one image: one entry per node that does any."""

    nodes: tuple[NodeWork, ...]
    geometries: dict[str, Geometry]
    plan: FloorPlan

    def total(self, action: Action) -> float:
        """How often an action happens, all nodes."""
        return sum(node.count(action) for node in self.nodes)


def count(mapping: Mapping, activity: Activity | None = None, zero_skipping: bool = False) -> Counts:
    """Count the actions of one image.

    Args:
        mapping: a placed program.
        activity: statistics of the inputs' digits; without it every digit of every row counts as the largest.
        zero_skipping: leave out reads whose rows all have digit zero.

    Raises:
        InputError: zero-skipping without activity, or activity of another network.
    """
    if zero_skipping and activity is None:
        raise InputError("zero_skipping", True, "an activity to know which reads are empty")
    for name in mapping.layers if activity else ():
        if activity and name not in activity.layers:
            raise InputError("activity", sorted(activity.layers), f"statistics of layer {name!r}")
    return _Counter(mapping, activity, zero_skipping).run()


def accumulator_bits(geometry: Geometry) -> int:
    """Width that holds any sum of the layer: bits of P x, of weights, and of the number of rows."""
    layer = geometry.mapped.layer
    rows = int(layer.core.shape[1])
    return layer.row_format.bits + layer.weight_bits + max(rows - 1, 0).bit_length()


class _Counter:
    """Walks the program once; keeps where every tensor lies and where it has been delivered."""

    def __init__(self, mapping: Mapping, activity: Activity | None, zero_skipping: bool) -> None:
        self.mapping, self.activity, self.zero_skipping = mapping, activity, zero_skipping
        self.geometries = geometries(mapping)
        self.plan = FloorPlan(mapping.chip.hierarchy, mapping.tiles, mapping.chip.node.clock)
        self.home: dict[str, dict[int, float]] = {}
        """Tile → share of every tensor, where it is made."""
        self.parts: dict[str, dict[str, float]] = {}
        """Tensor → elements of the tensors it consists of (more than itself for views)."""
        self.delivered: dict[str, dict[int, float]] = {}
        """Tensor → tile → share that has been written into the tile's buffer."""
        self.order = {node.name: i for i, node in enumerate(mapping.program.nodes)}

    def run(self) -> Counts:
        nodes = []
        owned: set[str] = set()
        output = self.mapping.program.output
        for node in self.mapping.program.nodes:
            if _is_view(node, self.mapping.program.sources(node)):
                self._view(node)
                continue
            if isinstance(node, Woven):
                done = self._woven(node, node.layer.name not in owned)
                owned.add(node.layer.name)
            else:
                done = self._digital(node)
            self.parts[node.name] = {node.name: float(math.prod(node.shape))}
            nodes.append(done)
        nodes.append(self._answer(output))
        return Counts(tuple(nodes), self.geometries, self.plan)

    # -- tensors ------------------------------------------------------------------------------------------------

    def _view(self, node: Node) -> None:
        """Codes under another name: what the sources consist of, cut to the elements that are left."""
        merged: dict[str, float] = {}
        for source in node.inputs:
            for root, elements in self.parts[source].items():
                merged[root] = merged.get(root, 0.0) + elements
        if isinstance(node, Slice):
            left = math.prod(node.shape) / sum(merged.values())
            merged = {root: elements * left for root, elements in merged.items()}
        self.parts[node.name] = merged

    def _bits(self, root: str) -> int:
        return self.mapping.program.by_name[root].format.bits

    def _deliver(self, tensor: str, wanted: dict[int, float], shares_travel: bool) -> tuple[float, Flows]:
        """Write a tensor into the buffers of tiles that read it: (bits written, messages).

        Args:
            tensor: its name.
            wanted: share of the tensor that each tile reads.
            shares_travel: False if every tile reads what it has made itself.
        """
        written = 0.0
        flows = []
        for root, elements in self.parts[tensor].items():
            bits = elements * self._bits(root)
            before = self.delivered.setdefault(root, {})
            extra = {tile: max(share - before.get(tile, 0.0), 0.0) for tile, share in wanted.items()}
            before.update({tile: max(share, before.get(tile, 0.0)) for tile, share in wanted.items()})
            written += bits * sum(extra.values())
            if shares_travel:
                source, target = np.array(list(self.home[root])), np.array(list(extra))
                amount = np.outer(list(self.home[root].values()), list(extra.values())) * bits
                away, here = np.broadcast_arrays(source[:, None], target[None, :])
                flows.append((away, here, amount))
        return written, Flows.of(flows)

    # -- nodes --------------------------------------------------------------------------------------------------

    def _answer(self, output: Node) -> NodeWork:
        """The codes of the last node leave through the port."""
        flows = []
        bits = 0.0
        for root, elements in self.parts[output.name].items():
            size = elements * self._bits(root)
            bits += size
            tiles, shares = np.array(list(self.home[root])), np.array(list(self.home[root].values()))
            flows.append((tiles, np.full(len(tiles), PORT), shares * size))
        moved = Flows.of(flows)
        work = (Work(Action.DRAM, bits), Work(Action.NETWORK_HOP, self.plan.bit_hops(moved)))
        return NodeWork(f"{output.name} (answer)", "output", work=_some(work), flows=moved)

    def _digital(self, node: Node) -> NodeWork:
        kind = type(node).__name__.lower()
        values = float(math.prod(node.shape))
        if isinstance(node, Input):
            self.home[node.name] = {PORT: 1.0}
            return NodeWork(node.name, kind, work=(Work(Action.DRAM, values * node.format.bits),))
        sources = self.mapping.program.sources(node)
        pooling = isinstance(node, MaxPool | AveragePool)
        roots = [max(self.parts[s.name], key=self.order.__getitem__) for s in sources]
        anchor = max(range(len(sources)), key=lambda i: self.order[roots[i]])
        self.home[node.name] = place = self.home[roots[anchor]]
        written = read = 0.0
        flows = []
        for i, source in enumerate(sources):
            if i == anchor and not pooling:
                continue
            bits, moved = self._deliver(source.name, place, shares_travel=i != anchor)
            written += bits
            read += sum(elements * self._bits(root) for root, elements in self.parts[source.name].items())
            flows.append(moved)
        travelled = Flows.joined(flows)
        work = [
            *_digital_work(node, sources),
            Work(Action.BUFFER_WRITE, written),
            Work(Action.BUFFER_READ, read),
            Work(Action.NETWORK_HOP, self.plan.bit_hops(travelled)),
        ]
        return NodeWork(node.name, kind, work=_some(work), flows=travelled)

    def _woven(self, node: Woven, owner: bool) -> NodeWork:
        layer, geometry = node.layer, self.geometries[node.layer.name]
        positions = self.mapping.program.positions(node)
        width = accumulator_bits(geometry)
        activity = self.activity.layers[layer.name] if self.activity else None
        row_bits, input_bits = geometry.mapped.stream_format.bits, layer.input_format.bits
        computed = any(factor.selection is None for factor in layer.transform.factors)
        reads = self._reads(geometry, activity)
        driven, power = self._driven(geometry, activity)
        conversions = float(reads @ geometry.columns)
        fetched, raw = self._fetched(node, geometry, positions, computed)
        into = float(geometry.macro_rows) if computed else fetched
        per_position = [
            *_read_work(geometry, driven, float(reads.sum()), conversions),
            Work(Action.SHIFT_ADD, conversions, width),
            Work(Action.INPUT_REGISTER, (into + float(geometry.rows.sum())) * row_bits + raw * input_bits),
            Work(Action.OUTPUT_REGISTER, 2.0 * geometry.macro_columns * width),
            Work(Action.TILE_BUS, into * row_bits + float(geometry.macro_columns) * width),
            Work(Action.BUFFER_READ, fetched * input_bits),
            *_transform_work(geometry, width),
            *_output_work(geometry, width),
        ]
        moved, written = self._layer_traffic(node, geometry, positions, width, computed)
        work = [Work(w.action, w.count * positions, w.bits) for w in per_position]
        work += [Work(Action.BUFFER_WRITE, written), Work(Action.NETWORK_HOP, self.plan.bit_hops(moved))]
        self.home[node.name] = geometry.output_share() or {PORT: 1.0}
        return NodeWork(
            node.name, "woven", geometry, owner, positions, self._time_in_reads(geometry, activity), width,
            _some(work), power * positions, moved, positions * layer.inputs * layer.outputs // layer.groups,
            tables(geometry.mapped),
        )  # fmt: skip

    def _fetched(self, node: Woven, geometry: Geometry, positions: int, computed: bool) -> tuple[float, float]:
        """(values fetched from buffers, values into and out of registers of raw inputs) for one input vector, mean.

        A computed P x differs from window to window, so that a chip with window reuse keeps the raw inputs of P
        in a register of their own: what is fetched is written there, and every input of P is read from it.
        """
        keeps = self.mapping.chip.hierarchy.window_reuse and node.layer.convolution is not None
        if not keeps:
            return float(geometry.support.sum()) if computed else float(geometry.macro_rows), 0.0
        starts = windows.runs(node.layer, node.shape, geometry.mapped.copies)
        held = geometry.support if computed else windows.elements_by_macro(geometry)
        fetched = windows.fetched(node.layer, held, positions, starts) / positions
        return fetched, fetched + float(held.sum()) if computed else 0.0

    def _reads(self, geometry: Geometry, activity: LayerActivity | None) -> np.ndarray:
        """Reads of each block for one input vector."""
        if activity is not None and self.zero_skipping:
            return np.array([activity.busy[band].sum() for band in geometry.band], np.float64)
        return geometry.reads.astype(np.float64)

    def _time_in_reads(self, geometry: Geometry, activity: LayerActivity | None) -> float:
        """Reads one after another for one input vector: blocks work side by side and wait for the slowest."""
        if activity is not None and self.zero_skipping:
            return activity.reads
        return float(geometry.reads.max(initial=0))

    def _driven(self, geometry: Geometry, activity: LayerActivity | None) -> tuple[float, float]:
        """(rows driven, Σ G·(digit ÷ largest)²) of all blocks for one input vector."""
        mapped, chip = geometry.mapped, self.mapping.chip
        largest = (1 << mapped.array.b_dac) - 1
        wanted = chip.components.cell_energy == "conductance"
        table = CellTable(mapped) if wanted else None
        levels = chip.device.conductances(mapped.array.b_cell)
        serial = mapped.array.digit_drive == "serial"
        if activity is None or mapped.array.readout == "and":
            pulses = sum(f.width for f in mapped.drives) if serial else len(mapped.drives)
            driven = float(geometry.rows.sum()) * pulses
            full = float(pulses) if serial else sum((((1 << f.width) - 1) / largest) ** 2 for f in mapped.drives)
            density = None
        else:
            density, square = activity.density.sum(0), activity.power.sum(0)
            rows = [mapped.core_rows(block) for block in geometry.bands]
            driven = float(sum(density[rows[band]].sum() for band in geometry.band))
        if table is None:
            return driven, 0.0
        power = 0.0
        found = table.row_conductances(mapped.blocks, levels)
        for conductance, band in zip(found, geometry.band, strict=True):
            power += float(conductance.sum() * full if density is None else conductance @ square[rows[band]])
        return driven, power

    def _layer_traffic(
        self, node: Woven, geometry: Geometry, positions: int, width: int, computed: bool
    ) -> tuple[Flows, float]:
        """Messages of a layer (its input, rows of P x, partial sums), and bits written into buffers."""
        mapped = geometry.mapped
        pairs = geometry.tiles_of_band()
        first = {int(band): int(tile) for tile, band in pairs[::-1]} if computed else {}
        wanted: dict[int, np.ndarray] = {}
        flows = []
        for tile, band in pairs:
            computes_here = not computed or first[int(band)] == tile
            if computes_here:
                seen = wanted.setdefault(int(tile), np.zeros(geometry.input_channels.shape[1], bool))
                seen |= geometry.input_channels[band]
            else:
                bits = float(geometry.band_rows[band]) * mapped.stream_format.bits * positions
                flows.append((np.array([first[int(band)]]), np.array([tile]), np.array([bits])))
        written, inputs = self._deliver(
            node.inputs[0], {tile: float(seen.mean()) for tile, seen in wanted.items()}, shares_travel=True
        )
        chains = np.array(geometry.chains(), np.int64).reshape(-1, 4)
        flows.append((chains[:, 1], chains[:, 2], chains[:, 3] * width * (positions / mapped.copies)))
        return Flows.joined([inputs, Flows.of(flows)]), written


def _some(work: Iterable[Work]) -> tuple[Work, ...]:
    return tuple(w for w in work if w.count)


def _is_view(node: Node, sources: tuple[Node, ...]) -> bool:
    """True if a node makes no new codes."""
    if isinstance(node, Concat):
        same = all(s.format.bits == node.format.bits and s.format.zero_point == node.format.zero_point for s in sources)
        clips = node.low > node.format.low or node.high < node.format.high
        return same and not clips and all(_trivial(r) for r in node.rescales)
    return isinstance(node, Reshape | Permute | Slice | Pad)


def _trivial(rescale: Rescale) -> bool:
    return bool(np.all(rescale.multiplier == 1) and not np.any(rescale.shift))


def _read_work(geometry: Geometry, driven: float, reads: float, conversions: float) -> list[Work]:
    """What the arrays do for one input vector."""
    array, digits = geometry.mapped.array, geometry.mapped.drives
    if array.readout == "and":
        written = float(geometry.rows.sum()) * len(digits)
        joined = float(geometry.rows @ geometry.columns) * len(digits)
        return [Work(Action.INPUT_WRITE, written), Work(Action.BULK_AND, joined), Work(Action.POPCOUNT, joined)]
    work = [Work(Action.ROW_DRIVE, driven), Work(Action.ARRAY_READ, reads), Work(Action.ADC_CONVERSION, conversions)]
    if array.digit_drive == "level":
        return [*work, Work(Action.SAMPLE_HOLD, conversions)]
    return [
        *work,
        Work(Action.SAMPLE_HOLD, conversions * sum(f.width for f in digits) / len(digits)),
        Work(Action.INTEGRATE, conversions * sum((1 << f.width) - 1 for f in digits) / len(digits)),
    ]


def _transform_work(geometry: Geometry, width: int) -> list[Work]:
    """P for one input vector, and the correction of offset and flipped columns by sums of inputs.

    The sum over each band is formed once (R_b − 1 additions) and broadcast; bands are added up, times the code's
    input gain (a shift if that is a power of two), subtracted from every core column. A flipped physical column
    takes its band's sum besides.
    """
    mapped = geometry.mapped
    layer, gain = mapped.layer, mapped.code.input_gain
    operations = layer.transform.operations()
    row_bits = mapped.stream_format.bits
    flips = 0
    if mapped.array.flip:
        table = CellTable(mapped)
        flips = sum(int(table.flipped(block).sum()) for block in mapped.blocks)
    additions = 0
    multiplies = 0
    if gain or flips:
        additions += int((geometry.band_rows - 1).sum())
    if gain:
        additions += len(geometry.bands) - min(geometry.band_groups, len(geometry.bands))
        additions += int(geometry.stripe_columns.sum())
        multiplies = geometry.band_groups if abs(gain) & (abs(gain) - 1) else 0
    return [
        Work(Action.TRANSFORM_ADD, float(operations.adds), row_bits),
        Work(Action.TRANSFORM_MULTIPLY, float(operations.constant_multiplies), row_bits),
        *(Work(Action.TRANSFORM_GATHER, float(table.entries), table.bits) for table in tables(mapped)),
        Work(Action.TRANSFORM_ADD, float(additions + flips), width),
        Work(Action.TRANSFORM_MULTIPLY, float(multiplies), width),
    ]


def _output_work(geometry: Geometry, width: int) -> list[Work]:
    """Q for one input vector: sums of macros, bias, rescaling, clip."""
    output, live = geometry.mapped.layer.output, geometry.live
    merges = 0
    if len(geometry.stripes):
        merges = geometry.macro_columns - int(geometry.stripe_columns.sum())
    multiplier = np.broadcast_to(output.rescale.multiplier, live.shape)
    products = int(((multiplier & (multiplier - 1) != 0) & live).sum())
    closes = output.low is not None or not _trivial(output.rescale)
    return [
        Work(Action.DIGITAL_ADD, float(merges + int(((output.bias != 0) & live).sum())), width),
        Work(Action.DIGITAL_MULTIPLY, float(products), multiplier_width(width)),
        Work(Action.ACTIVATION, float(live.sum()) if closes else 0.0),
    ]


def multiplier_width(value_bits: int) -> int:
    """Side of the square multiplier with as many cells as one of `value_bits` × the fixed-point multiplier's bits."""
    return math.ceil(math.sqrt(value_bits * MULTIPLIER_BITS))


def _digital_work(node: Node, sources: tuple[Node, ...]) -> list[Work]:
    """Arithmetic of a digital node."""
    values = float(math.prod(node.shape))
    bits = max((source.format.bits for source in sources), default=node.format.bits)
    closes = Work(Action.ACTIVATION, values)

    def scaled(rescale: Rescale, count: float, width: int) -> Work:
        hard = float((rescale.multiplier & (rescale.multiplier - 1) != 0).mean())
        return Work(Action.DIGITAL_MULTIPLY, count * hard, multiplier_width(width))

    match node:
        case MaxPool():
            return [Work(Action.POOL, _taps(node, sources[0].shape), bits)]
        case AveragePool():
            taps = np.diff(node.rows, axis=1).sum() * np.diff(node.columns, axis=1).sum() * node.shape[0]
            return [Work(Action.POOL, float(taps), bits), scaled(node.rescale, values, 2 * bits), closes]
        case Add():
            hard = sum(abs(m) & (abs(m) - 1) != 0 for m in node.multipliers)
            return [
                Work(Action.DIGITAL_MULTIPLY, values * hard, multiplier_width(bits)),
                Work(Action.DIGITAL_ADD, values * (len(sources) - 1), bits + MULTIPLIER_BITS),
                closes,
            ]
        case Multiply():
            return [Work(Action.DIGITAL_MULTIPLY, values, bits), scaled(node.rescale, values, 2 * bits), closes]
        case Scale():
            moved = float(np.count_nonzero(node.offset) / max(len(node.offset), 1))
            return [
                scaled(Rescale(np.abs(node.multiplier), node.shift), values, bits),
                Work(Action.DIGITAL_ADD, values * moved, bits + MULTIPLIER_BITS),
                closes,
            ]
        case Concat():
            works = [
                scaled(rescale, float(math.prod(source.shape)), bits)
                for rescale, source in zip(node.rescales, sources, strict=True)
            ]
            return [*works, closes]
        case Requantise():
            return [scaled(node.rescale, values, bits), closes]
        case Lookup():
            return [closes]
        case _:
            raise InputError("program node", type(node).__name__, "a node whose work can be counted")


def _taps(node: MaxPool, shape: tuple[int, ...]) -> float:
    """Values compared by a max pool, padding left out."""
    total = math.prod(node.shape[:-2])
    for axis, length in enumerate(shape[-2:]):
        starts = np.arange(node.shape[axis - 2]) * node.stride[axis] - node.padding[axis]
        taps = starts[:, None] + np.arange(node.kernel[axis]) * node.dilation[axis]
        total *= int(((taps >= 0) & (taps < length)).sum())
    return float(total)
