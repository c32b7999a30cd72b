"""Pruning and quantisation as constraints, in a Lightning loop of your own: ADMM in three lines.

Say which sets every layer's weight must lie in, give the callback to your trainer, train, finish. Here the same
network is pruned to three tenths of its filter shapes and to weights of five bits, then compiled for the SOT-MRAM AND
engine, where energy follows weight bits × input bits × weights kept.
"""

import importlib

import lightning.pytorch as pl
import torch
import torch.nn.functional as F

import crossloom
from crossloom.methods import ADMM, Columns, FixedPoint
from crossloom.report.residuals import residual_chart
from crossloom.weave.compaction import compacted

first = importlib.import_module("01_compile_and_simulate")


class Mine(pl.LightningModule):
    """Any loop."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def trainer(admm: ADMM, epochs: int) -> pl.Trainer:
    """Any trainer, with ADMM's callback."""
    return pl.Trainer(
        max_epochs=epochs, callbacks=list(admm.callbacks()), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    training, test = first.digits()
    model = first.network()
    first.train(model, training, epochs=3)
    dense = crossloom.compile(model, "sot-mram-and", training)
    module = crossloom.convert(model, torch.zeros(2, 1, 32, 32), crossloom.quantisation_for(dense.hardware))
    crossloom.calibrate(module, training, limit=4)

    admm = ADMM({"*": [Columns(keep=0.3), FixedPoint(bits=5)]}, rho={"start": 0.05, "factor": 2.0})  # 1
    trainer(admm, epochs=8).fit(Mine(module.train()), training)  # 2
    figures = admm.finish(module)  # 3

    for target in admm.targets:
        assert all(one.contains(target.weight) for one in target.sets), "a weight outside its sets"
    assert "<svg" in residual_chart(admm.history)
    crossloom.calibrate(module, training, limit=4)
    sparse = crossloom.compile(module, "sot-mram-and")
    small = crossloom.CompiledChip(crossloom.map_program(compacted(sparse.program), dense.hardware))

    kept, weights = sum(figures["kept"].values()), sum(figures["dense"].values())
    for count, bits, chip in ((weights, 8, dense), (kept, 5, small)):
        found, energy = chip.accuracy(test, "integer"), chip.cost().energy_j
        print(f"{count} weights of {bits} bits: {found}, {energy * 1e6:.3g} µJ an image")
    assert kept < 0.32 * weights
    assert small.cost().energy_j < dense.cost().energy_j / 2
    assert found.value > 0.9


if __name__ == "__main__":
    main()
