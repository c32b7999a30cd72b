"""The whole recipe `crimp`: integers, kernel groups, crossbars and hardening as phases (METHODS §CRIMP, steps 1–5)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from crossloom.codesign.phases import Phase, Step
from crossloom.methods.cell_draws import ArrayCells
from crossloom.training import TrainingConfig


@dataclass(frozen=True)
class CrimpRecipe:
    """What CRIMP's training needs to know.

    Attributes:
        training: of one phase: optimiser, rate, batches. Its epochs are not used.
        prune_epochs: of each of the two pruning phases (the paper: half of all epochs each).
        harden_epochs: of training through the runtime simulator after pruning, none in the paper: its last zero epoch
            is all. With fresh cells at every step this is where most of the robustness is learnt.
        keep_kernels: share of the kernels over the global threshold.
        keep_arrays: arrays that stay, as a number or a share of those left by kernel pruning.
        cells: the array and its cells in training; in the pruning phases' zero epochs too.
        start: epoch s of Algorithm 1 as a fraction of a phase.
        penalty: λ of the L1 pull.
        reads: of the simulator in training.
        unsigned: see `PowerOfTwoIntegers`.
        per_channel: see there.
        weight_step: see there.
        weight_reach: see there.
        bits: of weights. Activations have 8.
        spread: of the logits at most, in the loss (`Phase.spread`).
    """

    training: TrainingConfig
    prune_epochs: int
    harden_epochs: int
    keep_kernels: float
    keep_arrays: int | float
    cells: ArrayCells = field(default_factory=ArrayCells)
    start: float = 0.25
    penalty: float = 1e-4
    reads: str = "sampled"
    unsigned: bool = False
    per_channel: bool = False
    weight_step: str = "up"
    weight_reach: float | None = None
    bits: int = 8
    spread: float | None = 5.0

    @property
    def integers(self) -> Step:
        """Step 1."""
        return "power-of-two", {
            "weight_bits": self.bits, "symmetric_weights": self.cells.encoding != "offset", "unsigned": self.unsigned,
            "per_channel": self.per_channel, "weight_step": self.weight_step,
            "weight_reach": self.weight_reach,
        }  # fmt: skip

    def adaptation(self, epsilon: float | None, copies: bool = False) -> tuple[Step, ...]:
        """Step 5 at some ε; None: no simulator. `copies`: for a chip with copies of rows in idle rows."""
        if epsilon is None:
            return ()
        cells = asdict(replace(self.cells, epsilon=epsilon))
        options = {"cells": cells, "reads": self.reads, "evaluation": "sampled"} | ({"copies": True} if copies else {})
        return (("runtime-adaptation", options),)

    def pruning(self) -> tuple[Phase, ...]:
        """Steps 1 to 4: kernel groups on γ, then crossbars on the masks."""
        columns = self.cells.weight_columns(self.bits)
        common = {"columns": columns, "start": self.start, "penalty": self.penalty}
        groups: Step = ("kernel-groups", {"keep": self.keep_kernels, **common})
        masks: Step = ("crossbar-masks", {"keep": self.keep_arrays, "rows": self.cells.rows, **common})
        adaptation = self.adaptation(self.cells.epsilon)
        training = self.training.updated(epochs=self.prune_epochs)
        return (
            Phase("kernel-groups", (self.integers, groups, *adaptation), training, self.spread),
            Phase("crossbars", (masks, *adaptation), training, self.spread),
        )

    def hardening(self, epsilon: float | None, *, dense: bool = False, copies: bool = False) -> Phase:
        """Step 5 for good: every forward pass quantised, and through the simulator at ε (None: without)."""
        shape = {"rows": self.cells.rows, "columns": self.cells.weight_columns(self.bits)}
        first: Step = self.integers if dense else ("keep-zero-blocks", shape)
        steps = (first, *self.adaptation(epsilon, copies))
        name = "integers" if epsilon is None else f"harden-{epsilon:g}{'-copies' if copies else ''}"
        return Phase(name, steps, self.training.updated(epochs=self.harden_epochs), self.spread)

    def phases(self, epsilon: float | None) -> tuple[Phase, ...]:
        """The whole recipe, hardened for ε."""
        return (*self.pruning(), self.hardening(epsilon))
