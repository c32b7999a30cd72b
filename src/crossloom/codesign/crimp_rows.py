"""The rows of CRIMP's tables that come out of its training, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crossloom.codesign.crimp_plans import Noise
from crossloom.codesign.crimp_training import (
    CHIPS,
    Measured,
    Study,
    computing_reduction,
    figure_7,
    unpruned_arrays,
)
from crossloom.codesign.phases import Trained
from crossloom.codesign.results import Budget, Row

PRUNED = "Pruned and quantised"
NOISY = "Stuck-at faults and variation, mean of 20 chips"
OURS = "Ours on top: copies in idle rows; known faults placed, offsets compensated; mean of 20 chips"
CURVE = "Accuracy against ε, pruned, with stuck-at faults, mean of 20 chips"
HEIGHT = "Accuracy against the array's height, pruned, with stuck-at faults, mean of 20 chips"
FIGURE = "Computing power and area, original over compressed (Fig. 7)"


class Rows:
    """Makes the rows of one study.

    Args:
        study: the trainings and measurements.
        command: the command that makes them again.
        device: what computed them.
    """

    def __init__(self, study: Study, command: str, device: str) -> None:
        self.study, self.command, self.device = study, command, device

    def all(self) -> Iterator[Row]:
        """Every row, in the order of the paper."""
        plan = self.study.plan
        found = self.study.pruned(None)
        yield self._row(PRUNED, "accuracy, float, our training", "%", None, self.study.float_accuracy())
        yield self._row(PRUNED, "accuracy, integer", "%", plan.pruned, self.study.integer(found))
        yield from self._structure(found)
        yield from self._noisy("dense", plan.dense, self.study.dense)
        yield from self._noisy("pruned", plan.noisy, self.study.pruned)
        for noise, value in plan.noisy.items() if plan.longer else ():
            hardened = self.study.pruned(noise, copies=True)
            made = self.study.analog(hardened, noise, copied=True)
            yield self._row(OURS, f"accuracy, pruned, {noise}, copies", "%", value, made)
            made = self.study.helped(hardened, noise)
            yield self._row(OURS, f"accuracy, pruned, {noise}, copies, placed and compensated", "%", value, made)
        for noise in (Noise(e) for e in plan.adapted):
            made = self.study.analog(self.study.pruned(noise), noise)
            yield self._row(CURVE, f"ε = {noise.epsilon:g}, hardened for it", "%", plan.adapted[noise.epsilon], made)
        for noise in (Noise(e) for e in plan.unadapted):
            made = self.study.analog(found, noise)
            yield self._row(CURVE, f"ε = {noise.epsilon:g}, not hardened", "%", plan.unadapted[noise.epsilon], made)
        for (rows, epsilon), paper in plan.heights.items():
            noise = Noise(epsilon)
            made = self.study.analog(self.study.pruned(noise), noise, rows)
            yield self._row(HEIGHT, f"ε = {epsilon:g}, {rows} rows", "%", paper, made)

    def _noisy(self, what: str, paper: dict[Noise, float], train: Callable[[Noise], Trained]) -> Iterator[Row]:
        for noise, value in paper.items():
            made = self.study.analog(train(noise), noise)
            yield self._row(NOISY, f"accuracy, {what}, {noise}", "%", value, made)

    def _structure(self, found: Trained) -> Iterator[Row]:
        """Arrays, sparsity, and what they save."""
        plan, dense, left = self.study.plan, self.study.dense_arrays(), self.study.arrays(found)
        network = self.study.request.network
        whole, (power, area) = unpruned_arrays(network), computing_reduction(network, left)
        case = figure_7(network)
        published = [before / after if after else None for before, after in (case.power, case.area)]
        for table, metric, unit, paper, ours in (
            (PRUNED, "crossbars before pruning", "arrays", None, float(dense)),
            (PRUNED, "crossbars", "arrays", None, float(left)),
            (PRUNED, "crossbar sparsity", "%", plan.sparsity, 100 * (1 - left / dense)),
            (PRUNED, "crossbars before pruning, paper's code", "arrays", None, float(whole)),
            (PRUNED, "crossbar sparsity, of the paper's code before pruning", "%", None, 100 * (1 - left / whole)),
            (FIGURE, "computing power, 32-bit original over ours", "×", published[0], power),
            (FIGURE, "computing area, 32-bit original over ours", "×", published[1], area),
        ):
            yield self._row(table, metric, unit, paper, Measured(ours, None, 0, found.epochs, found.key))

    def _row(self, table: str, metric: str, unit: str, paper: float | None, found: Measured) -> Row:
        return Row(
            table=table, row=f"{self.study.plan.row} ({self.study.describe()})", metric=metric, unit=unit, paper=paper,
            ours=round(found.value, 6), spread=None if found.spread is None else round(found.spread, 6),
            budget=Budget(epochs=found.epochs, images=found.images, device=self.device), command=self.command,
            config_hash=found.key,
        )  # fmt: skip


__all__ = ["CHIPS", "CURVE", "FIGURE", "HEIGHT", "NOISY", "PRUNED", "Rows"]
