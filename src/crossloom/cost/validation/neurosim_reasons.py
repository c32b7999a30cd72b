"""Why NeuroSim and we differ, heading by heading; `{…}` are figures of the two estimates."""

from __future__ import annotations

from collections.abc import Mapping

COMMON = {
    "tiles": "theirs differ in size (64 arrays; 144 where a 3×3 kernel is unrolled), ours have 64",
    "arrays": "the same weights, the same copies, layer by layer",
    "utilisation": "the same cells; theirs is the mean over tiles, which counts its large tiles no more than its small "
    "ones",
    "area cells": "the same cells of {cell_f2:.0f} F²",
    "area network": "ours: {link_bits} wires a link and a five-way router a tile; theirs: buses of at most as many "
    "wires with repeaters",
    "energy accumulation": "one shift-and-add for every conversion on both sides: {acc_theirs:.0f} fJ theirs, "
    "{acc_ours:.0f} fJ ours with half of all gates switching; theirs switch 0.15 of their adders and 0.5 of their "
    "flip-flops, figures validated on the 40 nm macro",
    "energy buffers": "both fetch only the pixels that a window adds; ours are 64 KB a tile, theirs have a level more, "
    "the smallest next to the arrays",
    "energy registers, drivers, pooling, activation": "theirs hold switch matrices that drive every row through "
    "multiplexers, and decoders; ours is a level shifter a row and flip-flops",
    "leakage": "theirs: transistors for low standby power (100 pA/µm); ours: for low operating power (5 nA/µm), fifty "
    "times as much, and {gates_ours:.0f} % of it in registers, routers and adders",
    "latency accumulation": "theirs adds in clocked trees at three levels, one after the other; ours is one shift-add "
    "behind the last conversion, and adders that keep pace",
    "latency buffers": "theirs: one global buffer that all inputs and outputs pass, the slowest part by far; ours is a "
    "buffer in every tile, with a port of 256 bits",
    "latency network": "ours sends along every link at once and waits for the busiest; theirs has one bus",
    "latency all": "three quarters of theirs is its global buffer; ours waits for the arrays or for the 256-bit bus "
    "into a tile ({bus:.3g} µs)",
}

OF_VERSION = {
    "V1.3": {
        "area converters": "theirs: 31 current comparators each with its reference (flash); ours: a SAR of 5 bits",
        "area accumulation": "theirs has adder trees at three levels; we add over the blocks of a macro in one "
        "accumulator",
        "area other": "theirs are register files as buffers at three levels, switch matrices and level shifters; ours "
        "one 64 KB buffer a tile and the macros' registers",
        "area all": "converters and buffers, as above; the cells, their copies and the network agree",
        "energy converters and cells": "cells: ours V²·G for the 10 ns read, {cells:.0f} µJ; theirs 0.0631 W ÷ R for "
        "the "
        "1 ns of sensing (a quarter of V²·G: the clamp takes the rest), with an access transistor of R_on ÷ 4 in "
        "series: "
        "{cells_sensed:.1f} µJ of ours at that rate, and 53 fJ a conversion for 31 comparators, {comparators:.1f} µJ: "
        "{sum:.1f} µJ. Our SAR conversions take {adc:.0f} µJ, {adc_each:.0f} fJ each",
        "energy network": "wires of the same chip; theirs are repeated and the chip is twice as large",
        "energy all, dynamic": "the cells' read: {without:.0f} µJ of ours with theirs in its place",
        "latency converters": "the same 8 columns in turn: theirs sense 8 times in {clock:.2f} ns; ours settle once "
        "for 10 ns and convert 8 times",
    },
    "V1.4": {
        "area converters": "theirs: 31 comparators, with reference columns shared by 32; ours: a SAR of 5 bits and a "
        "sample-and-hold on every column",
        "area accumulation": "as in V1.3, and carry chains sized for its layout rules",
        "area other": "ours: 64 KB a tile and registers for 2048 rows a macro, twice as many tiles as in V1.3; theirs "
        "shares them in larger tiles",
        "area all": "agrees, as the differences above nearly cancel; theirs prints {unexplained:.2f} mm² more than its "
        "parts add up to",
        "energy converters and cells": "{conv_theirs:.0f} fJ a conversion theirs: 31 comparators switching, reference "
        "columns, and a column current that a mirror limits; ours {conv_ours:.0f} fJ: {adc_each:.0f} fJ SAR, "
        "{cell_each:.0f} fJ V²·G·t of cells at 25 kΩ",
        "energy network": "theirs counts 0.18 transitions for an input bit (its default for VGG8); ours one, a factor "
        "of 5.6",
        "energy all, dynamic": "converters with their cells, and the network's transitions",
        "latency converters": "theirs clocks every step of sensing, encoding and multiplexing; ours follows the gates' "
        "delays",
    },
}

TEXT = {
    "intro": "22 nm, 128 × 128 arrays, 8-bit weights and inputs, 5-bit converters shared by 8 columns; V1.3 with 2-bit "
    "RRAM of 6 kΩ and on/off ratio 150, V1.4 with SRAM. NeuroSim's figures are from runs of ours with the defaults of "
    "its Param.cpp; how they were made, with commits and made-up traces, is in "
    "`crossloom/cost/validation/neurosim_runs.py`, what they printed in `data/` beside it. Ours sees inputs of the "
    "same distribution, the untrained network's weights and NeuroSim's number of copies of each layer; none of its "
    "code is used.",
    "V1.3": "**V1.3, RRAM** (388f421; `neurosim-rram`), one layer at a time. NeuroSim took {seconds:.0f} s:",
    "V1.4": "**V1.4, SRAM** (ac828e6; `neurosim-sram`), layers pipelined: latencies are the slowest layer's. NeuroSim "
    "took {seconds:.0f} s:",
    "end": "Our estimate takes below 0.2 s (`tests/cost/test_networks.py`). NeuroSim is no silicon: where the two "
    "differ, the last column says which assumption does it, not who is right. V1.4's RRAM chip is not used: its area "
    "does not equal the sum of its parts.",
}


def reasons(version: str, figures: Mapping[str, float]) -> dict[str, str]:
    """Explanation by heading, with figures filled in."""
    return {key: text.format(**figures) for key, text in (COMMON | OF_VERSION[version]).items()}
