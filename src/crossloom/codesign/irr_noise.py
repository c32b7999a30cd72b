"""What row reorder does to a network under read noise: code errors, accuracy over many chips, reads saved.

The paper's noise is not at hand, so each of three laws is set to the strength at which a fixed share of the final
layer's converter decisions is wrong before reorder; what reorder gains is then comparable between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import brentq

from crossloom.codesign.kept import Kept
from crossloom.codesign.single import single_layer
from crossloom.compiled import CompiledChip
from crossloom.cost import activity_of
from crossloom.mapping import LayerMapping, Mapping, map_program, reorder
from crossloom.mapping.read_objectives import Objective, objective_table
from crossloom.simulate import Conditions, Executor, ReadNoise
from crossloom.simulate.analog_chip import Law
from crossloom.simulate.analog_chips import chip_accuracy
from crossloom.simulate.observe import read_histogram
from crossloom.training import DataSet
from crossloom.weave import Program

CODE_ERRORS = 0.0472
"""Share of the final layer's converter decisions that are wrong before reorder: that of our first study of this
network, in which reorder brought it to 3.60 %."""
CHIPS = 100
WHOLE_IMAGES = 400
"""Test images on each chip where every layer is noisy; the final layer alone runs on all."""
FLOOR = 1.0
"""Of the law by level, σ(p) = strength·√(FLOOR² + p): a sense amplifier's own noise under a growth with the sum. Ours:
no measured table is at hand."""
LAWS = ("proportional", "root", "levels")
NAMES = {"proportional": "σ ∝ partial sum", "root": "σ ∝ √partial sum", "levels": "σ by level, √(1 + partial sum)"}
PAPER_REDUCTION = 5.6
SWEEPS, VECTORS = 30, 512
"""How thorough `reorder` is."""


@dataclass(frozen=True)
class Figure:
    """One number of the study.

    Attributes:
        row, metric, unit: as in a results row.
        value: the number.
        spread: standard deviation over chips, or None.
        images: test images per chip.
        paper: the paper's number, or None.
    """

    row: str
    metric: str
    unit: str
    value: float
    spread: float | None = None
    images: int = 0
    paper: float | None = None


class NoiseStudy:
    """Reorder on one chip's network.

    Args:
        chip: compiled, not reordered.
        data: labelled images.
        vectors: input codes of every layer on training images, which orders are chosen from.
        kept: where finished parts lie.
        limit: bound on the test images of each chip.
    """

    def __init__(
        self, chip: CompiledChip, data: DataSet, vectors: dict[str, np.ndarray], kept: Kept, limit: int | None
    ) -> None:
        self.chip, self.data, self.vectors, self.kept = chip, data, vectors, kept
        self.final = chip.program.layers[-1].name
        self.images = {"final": limit or len(data.test.labels), "whole": min(limit or WHOLE_IMAGES, WHOLE_IMAGES)}

    @cached_property
    def before(self) -> dict[str, Mapping]:
        """The final layer alone, and the whole network, on their arrays."""
        alone = single_layer(self.chip.program, self.chip.program.layers[-1])
        return {"final": map_program(alone, self.chip.hardware), "whole": self.chip.mapping}

    @cached_property
    def batches(self) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
        """(inputs, labels) of both: input codes of the final layer times their scale, and images."""
        source = self.before["final"].program.input
        name = next(n for n in self.chip.program.woven() if n.layer.name == self.final).inputs[0]
        executor, final, left = Executor(self.chip.program), [], self.images["final"]
        for x, labels in self.data.test_loader():
            codes = executor.nodes(x[:left])[name].double()
            final.append(((codes - source.format.zero_point) * source.format.scale, labels[:left]))
            left -= len(codes)
            if left <= 0:
                break
        return {"final": final, "whole": list(self.data.test_loader())}

    def noise(self, law: str, mapped: LayerMapping, errors: float = CODE_ERRORS) -> ReadNoise:
        """The law at the strength that makes so many decisions of a layer wrong."""
        histogram = read_histogram(mapped, self.vectors[mapped.layer.name])

        def excess(strength: float) -> float:
            return code_errors(mapped, histogram, scaled(law, strength)) - errors

        return scaled(law, float(brentq(excess, 1e-3, 10.0, xtol=1e-6)))

    def ordered(self, scope: str, noise: ReadNoise | None) -> Program:
        """The program with the final layer's or every layer's rows reordered: for few code errors, or idle windows."""
        mapping = self.before[scope]
        vectors = {name: self.vectors[name] for name in mapping.layers}
        objective: Objective = "skipped" if noise is None else "code-error"
        return reorder.program(
            mapping.program, mapping.chip.array, vectors, objective, noise, sweeps=SWEEPS, vectors=VECTORS
        )[0]

    def errors(self, mapping: Mapping, noise: ReadNoise) -> float:
        """Expected share of wrong decisions over all reads of an image."""
        wrong = total = 0.0
        for node in mapping.program.woven():
            mapped, weight = mapping.layers[node.layer.name], mapping.program.positions(node)
            histogram = read_histogram(mapped, self.vectors[node.layer.name])
            reads = histogram.sum() / len(self.vectors[node.layer.name]) * weight
            wrong, total = wrong + reads * code_errors(mapped, histogram, noise), total + reads
        return wrong / total

    def accuracy(self, scope: str, mapping: Mapping, noise: ReadNoise) -> dict[str, float]:
        """Mean, deviation and half the 95 % confidence interval over chips that have read noise and nothing else."""
        chip = mapping.chip.override({"device.variation.model": "none", "device.stuck_hrs": 0, "device.stuck_lrs": 0})
        found = chip_accuracy(
            map_program(mapping.program, chip), self.batches[scope], CHIPS, limit=self.images[scope],
            conditions=Conditions(read_noise=noise),
        )  # fmt: skip
        low, high = found.confidence()
        return {"mean": found.mean, "std": found.std, "half": (high - low) / 2, "images": found.images}

    def ideal(self, scope: str) -> float:
        """Accuracy without noise on the same images."""
        executor, right, seen = Executor(self.before[scope].program), 0, 0
        for x, labels in self.batches[scope]:
            labels = labels[: self.images[scope] - seen]
            right += int((executor.logits(x[: len(labels)]).argmax(1) == labels).sum())
            seen += len(labels)
        return right / seen

    def compared(self, scope: str, law: str) -> dict[str, Any]:
        """Before and after, one law."""
        noise = self.noise(law, self.before["final"].layers[self.final])
        program = self.ordered(scope, noise)
        after = map_program(program, self.before[scope].chip)
        cases = {"before": self.before[scope], "after": after}
        return {
            "sigma": noise.table[0][1] / FLOOR if noise.table else noise.sigma,
            "ideal": self.ideal(scope),
            **{
                when: self.accuracy(scope, mapping, noise) | {"errors": self.errors(mapping, noise)}
                for when, mapping in cases.items()
            },
        }

    def skipped(self, scope: str) -> dict[str, float]:
        """Share of reads that a chip leaves out because no row of the window is driven, before and after."""
        program = self.ordered(scope, None)
        pair = {"before": self.before[scope], "after": map_program(program, self.before[scope].chip)}
        return {when: idle(mapping, {n: self.vectors[n] for n in mapping.layers}) for when, mapping in pair.items()}

    def figures(self) -> Iterator[Figure]:
        """All numbers, made or taken from disk."""
        for scope, title in (("final", "final layer"), ("whole", "whole network")):
            for law in LAWS:
                name = f"{title}, {NAMES[law]}"
                found = self.kept.part(
                    f"noise-{scope}-{law}-{self.images[scope]}", f"{CHIPS} chips, {name}",
                    partial(self.compared, scope, law),
                )  # fmt: skip
                before, after, images = found["before"], found["after"], int(found["before"]["images"])
                lost = [100 * (found["ideal"] - case["mean"]) for case in (before, after)]
                yield Figure(name, "σ at a partial sum of 1, without floor", "level steps", found["sigma"])
                for when, case, loss in (("before", before, lost[0]), ("after", after, lost[1])):
                    yield Figure(name, f"code errors {when}", "%", 100 * case["errors"])
                    mean = f"accuracy {when}, mean of {CHIPS} chips"
                    yield Figure(name, mean, "%", 100 * case["mean"], 100 * case["std"], images)
                    yield Figure(
                        name, f"accuracy {when}, half of the 95 % confidence interval", "points", 100 * case["half"],
                        images=images,
                    )  # fmt: skip
                    yield Figure(name, f"accuracy lost {when}", "points", loss, images=images)
                paper = PAPER_REDUCTION if scope == "final" else None
                yield Figure(name, "loss avoided", "points", lost[0] - lost[1], images=images, paper=paper)
                if lost[0] > 0:
                    relative = 100 * (1 - lost[1] / lost[0])
                    yield Figure(name, "loss avoided, relative", "%", relative, images=images, paper=paper)
            found = self.kept.part(f"skipped-{scope}", f"skipped windows, {title}", partial(self.skipped, scope))
            for when in ("before", "after"):
                yield Figure(title, f"reads saved by skipped windows, {when}", "%", 100 * found[when])


def scaled(law: str, strength: float) -> ReadNoise:
    """A law of read noise at a strength: σ, less its floor, at a partial sum of 1."""
    if law == "levels":
        return ReadNoise("table", table=tuple((float(p), strength * float(np.sqrt(FLOOR**2 + p))) for p in range(8)))
    return ReadNoise(cast(Law, law), sigma=strength)


def code_errors(mapped: LayerMapping, histogram: np.ndarray, noise: ReadNoise) -> float:
    """Expected share of wrong decisions for a histogram of reads."""
    table = objective_table("code-error", mapped.array, len(histogram) - 1, noise)
    return float((histogram * table).sum() / histogram.sum())


def idle(mapping: Mapping, vectors: dict[str, np.ndarray]) -> float:
    """Share of (window, digit, vector)s in which no row is driven, over all input vectors of an image."""
    busy = total = 0.0
    activity = activity_of(mapping, vectors)
    for node in mapping.program.woven():
        positions = mapping.program.positions(node)
        for band in activity.layers[node.layer.name].busy:
            busy, total = busy + positions * float(band.sum()), total + positions * band.size
    return 1 - busy / total
