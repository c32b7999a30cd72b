"""Your own network on your own chip: trained, pruned by a recipe of your own, run on five chips, priced."""

import tempfile
from pathlib import Path

from torch import nn

from crossloom.codesign import Recipe, codesign
from crossloom.training import TrainingConfig, fit, load_dataset

CHIP = Path(__file__).with_name("my_chip.yaml")
PRUNE = {"admm": {"constraints": {"5": [{"set": "columns", "keep": 0.25}]}, "every": 0.5}}


def main() -> None:
    data = load_dataset("digits")  # or DataSet(...) of your images: uint8 [N, C, H, W] with int64 labels
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))
    training = TrainingConfig(epochs=6, optimiser="adam", lr=2e-3, batch_size=32, weight_decay=0)
    steps = [{"name": "prune", "epochs": 6, "rate": 0.5, "methods": [PRUNE]}, {"name": "compact", "map": "compact"}]
    with tempfile.TemporaryDirectory() as runs:
        fit(model, data, training, f"{runs}/float", progress=False)
        recipe = Recipe.from_plain({"name": "mine", "steps": steps})
        made = codesign(model, data, recipe, CHIP, folder=f"{runs}/woven", training=training)
    for point in made.candidates:
        energy = f"{1e9 * point.energy_j:.0f} nJ"
        print(f"{point.name:8} {100 * point.accuracy:5.1f} %, {point.crossbars} crossbars, {energy}")
    print(made.chip.accuracy(data.test_loader(), "analog", chips=5))
    assert made.chip.crossbars < made.candidates[0].crossbars


if __name__ == "__main__":
    main()
