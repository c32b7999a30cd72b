"""Where is this weight? From a weight to its array, row and cells, and back from the cells to the network."""

import numpy as np
import torch
from torch import nn

import crossloom


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20 * 16, 10))
    chip = crossloom.compile(model, hardware="crimp-isaac", calibration=torch.rand(8, 3, 8, 8), duplication={"0": 2})

    layer = chip.mapping.layers["3"]
    weight = int(layer.layer.core[0, 200, 7])
    for address in chip.mapping.find("3", group=0, row=200, column=7):
        place = address.array
        cells, columns = layer.cells(layer.blocks[place.block]), list(address.columns)
        levels, flipped = cells.levels[address.row, columns], cells.flipped[columns]
        print(f"weight {weight} of layer 3, row 200, column 7")
        print(f"  tile {place.tile}, macro {place.macro}, slot {place.slot} (array {place.index})")
        print(f"  array row {address.row}, columns {columns}: levels {levels.tolist()}, flipped {flipped.tolist()}")
        # Four 2-bit slices of the offset code: the stored number is the weight plus 2^7. ISAAC's chips store a column
        # inverted where that makes its sum smaller.
        slices = [3 - int(level) if flip else int(level) for level, flip in zip(levels, flipped, strict=True)]
        assert sum(value << 2 * i for i, value in enumerate(slices)) - 128 == weight

    print(f"layer 0 is programmed {len(chip.mapping.find('0', 0, 0, 0))} times")
    for name, core in chip.mapping.read_back().items():
        assert np.array_equal(core, chip.mapping.layers[name].layer.core)
    print(f"every weight of {len(chip.mapping.layers)} layers was read back from {chip.crossbars} arrays")


if __name__ == "__main__":
    main()
