"""A torchvision network, unchanged: depthwise and strided convolutions, channel shuffles, concatenations.

Nothing is downloaded: the weights are random, so this shows that the network compiles and that the chip computes what
the quantised network does, not how well it classifies. With trained weights the code is the same.
"""

import time

import torch
from torchvision.models import shufflenet_v2_x0_5

import crossloom


def main() -> None:
    torch.manual_seed(0)
    model = shufflenet_v2_x0_5(weights=None, num_classes=10)
    images = torch.rand(8, 3, 64, 64)
    model(images)  # one pass in training mode gives the batch norms statistics, as training would
    model.eval()

    start = time.perf_counter()
    chip = crossloom.compile(model, hardware="rram-binary", calibration=images, name="shufflenet_v2")
    print(f"{chip} in {time.perf_counter() - start:.1f} s")

    layer = max(chip.mapping.layers.values(), key=lambda mapped: mapped.layer.groups)
    groups, rows, columns = layer.layer.core.shape
    print(f"{layer.layer.name}: {groups} groups of {rows} × {columns} weights packed into {layer.arrays} arrays")

    integer, crossbar = chip.logits(images[:1], "integer"), chip.logits(images[:1], "crossbar")
    print("integer ", [round(v, 4) for v in integer[0, :4].tolist()])
    print("crossbar", [round(v, 4) for v in crossbar[0, :4].tolist()])
    assert torch.equal(integer, crossbar)
    totals = chip.cost().totals()
    print({name: totals[name] for name in ("crossbars", "area", "energy an image")})


if __name__ == "__main__":
    main()
