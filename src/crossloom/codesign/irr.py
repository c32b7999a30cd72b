"""IRR's results made again: integer training, row rename and row reorder on the 40 nm RRAM macro.

J. Weinstock et al., "Machine Learning Algorithm Co-Design for a 40 nm RRAM Analog Compute-in-Memory Accelerator",
ORSS 2023. Only the abstract is at hand: LeNet-5, 1-bit weights, 2-bit activations, MNIST 96.66 %; area of the final
layer −45.24 % (38 of 84 rows); effect of analog noise of the final layer on accuracy −5.6 %, points or relative
unknown. What it leaves open is chosen here and said in each row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from crossloom.codesign import irr_area, irr_noise
from crossloom.codesign.folder import locked
from crossloom.codesign.kept import Kept
from crossloom.codesign.machine import computed_on, environment, placed
from crossloom.codesign.plugins import open_data
from crossloom.codesign.reproduce import Reproduction, Request
from crossloom.codesign.results import Budget, ResultsFile, Row
from crossloom.compiled import CompiledChip, compile
from crossloom.frontend import calibrate, convert, fake_quantised_codes
from crossloom.mapping import map_program, rename
from crossloom.methods.integer_training import INPUT_NORMALISATION, IntegerTraining
from crossloom.methods.tied_rows import tie_rows
from crossloom.nn import woven_layers
from crossloom.simulate import Executor, input_vectors
from crossloom.training import (
    DataSet,
    Normalisation,
    TrainingConfig,
    build_network,
    checkpoint_path,
    fit,
    load_weights,
)

CHIP, NETWORK, DATA = "rram-40nm", "lenet5", "mnist"
TRAINING = TrainingConfig(
    epochs=20, batch_size=128, optimiser="adam", lr=2e-3, weight_decay=0.0, channels_last=False, threads=1,
    validate_every=5,
)  # fmt: skip
FINE_TUNING = TRAINING.updated(epochs=2, lr=5e-4)
OPTIONS: dict[str, Any] = {
    "weights": 1,
    "activations": 2,
    "loss": "cross-entropy",
    "temperature": 8.0,
    "shifts": {"conv1": 2, "conv2": 4, "fc1": 4, "fc2": 3},
}
ROWS = (84, 70, 56, 46, 42, 38, 30, 20)
"""Stored rows of the final layer on the curve; 46 of 84 is the paper's −45.24 %."""
PAPER_ROWS = 46
CALIBRATION_IMAGES = 2048
CHECKED_IMAGES = 256
ACCURACY, RENAME, AREA, NOISE = (
    "Integer training: LeNet-5, 1-bit weights, 2-bit activations, MNIST",
    "Row rename of the final layer (84 inputs, 10 outputs)",
    "Area of the final layer after the rename table and the adders",
    "Row reorder under read noise",
)


class Study:
    """Everything the rows are made of; each part is kept in the study's folder.

    Args:
        request: what is asked for; `limit` bounds the test images of the noisy rungs.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        said = {
            "training": TRAINING.model_dump(mode="json", exclude={"threads", "accelerator"}),
            "fine_tuning": FINE_TUNING.model_dump(mode="json", exclude={"threads", "accelerator"}),
            "method": OPTIONS, "chip": CHIP, "rows": ROWS,
        }  # fmt: skip
        self.hash = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        self.folder = request.runs / f"irr-{NETWORK}-{self.hash[:8]}"
        self.kept = Kept(self.folder, request.progress)
        self.device = computed_on(environment(request.machine))

    @cached_property
    def data(self) -> DataSet:
        """MNIST with pixels p that become ⌊p/64⌋."""
        mean, std = INPUT_NORMALISATION
        machine = self.request.machine
        return open_data(DATA, machine.data_dir, machine.download).normalised(Normalisation((mean,), (std,)))

    def prepared(self) -> tuple[fx.GraphModule, IntegerTraining]:
        """The network, integer-only, with its shifts fitted, not trained."""
        network = build_network(NETWORK, len(self.data.classes), self.data.image_shape)
        module, method = convert(network, torch.zeros(2, *self.data.image_shape)), IntegerTraining(**OPTIONS)
        method.prepare(module)
        calibrate(module, self.data.calibration_loader(512))
        return module, method

    def _fit(self, module: nn.Module, method: IntegerTraining, config: TrainingConfig, name: str) -> float:
        folder = self.folder / name
        return fit(
            module, self.data, placed(config, self.request.machine), folder, resume=checkpoint_path(folder).is_file(),
            callbacks=method.callbacks(), loss=method.loss(), progress=self.request.progress.bars,
        ).accuracy  # fmt: skip

    @cached_property
    def trained(self) -> fx.GraphModule:
        """The trained network."""
        module, method = self.prepared()
        self.kept.part("training", f"{TRAINING.epochs} epochs", lambda: self._fit(module, method, TRAINING, "trained"))
        load_weights(module, self.folder / "trained" / "weights.safetensors")
        return module.eval()

    @cached_property
    def chip(self) -> CompiledChip:
        """Compiled."""
        return compile(self.trained, CHIP, name=NETWORK, classes=self.data.classes)

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """Input codes of every layer on training images."""
        count = min(CALIBRATION_IMAGES, len(self.data.train.labels))
        images = torch.cat([x for x, _ in self.data.calibration_loader(count, seed=0)])
        return dict(input_vectors(self.chip.mapping, images, 4096))

    @property
    def final(self) -> str:
        """Name of the last layer."""
        return self.chip.program.layers[-1].name

    def accuracy(self, chip: CompiledChip) -> float:
        """On the integer rung, all test images."""
        return chip.accuracy(self.data.test_loader(), rung="integer").value

    # -- parts ------------------------------------------------------------------------------------------------------

    def exactness(self) -> dict[str, float]:
        """Accuracy of both exact rungs, and how many values of training and program differ or are not integers."""
        images = next(iter(self.data.test_loader()))[0][:CHECKED_IMAGES]
        sums: dict[str, torch.Tensor] = {}
        hooks = [
            layer.register_forward_hook(lambda m, i, y, name=name: sums.update({name: y.detach()}))
            for name, layer in woven_layers(self.trained).items()
        ]
        expected = fake_quantised_codes(self.trained, self.chip.program, images)
        for hook in hooks:
            hook.remove()
        broken = 0
        for name, layer in woven_layers(self.trained).items():
            z = sums[name].double() / float(layer.__dict__["input_quantiser"].step().detach())
            broken += int((z != z.round()).sum())
        found = Executor(self.chip.program).nodes(images)
        differing = sum(int((found[name].long() != codes).sum()) for name, codes in expected.items())
        integer = self.accuracy(self.chip)
        crossbar = self.chip.accuracy(self.data.test_loader(), rung="crossbar").value
        return {"integer": integer, "crossbar": crossbar, "not_integer": broken, "differing": differing}

    def renamed(self, rows: int) -> rename.Renamed:
        """The final layer with so many stored rows."""
        layer = self.chip.program.layers[-1]
        return rename.lossy(layer, rows, rename.row_activity(layer, self.vectors[self.final]))

    def without_tuning(self, rows: int) -> CompiledChip:
        """The chip with its final layer renamed, nothing trained."""
        program = self.chip.program.replace_layers({self.final: self.renamed(rows).layer})
        return CompiledChip(map_program(program, self.chip.hardware))

    def tuned(self, rows: int) -> CompiledChip:
        """The chip with its final layer renamed and the whole network trained on with tied rows."""
        found = self.renamed(rows)
        module, method = self.prepared()
        module.load_state_dict(self.trained.state_dict())
        stored = torch.from_numpy(np.ascontiguousarray(found.layer.core[0].T)).float()
        tie_rows(list(woven_layers(module).values())[-1], found.assignment.group(0), stored)
        name = f"tuned-{rows}"
        self.kept.part(
            name, f"{FINE_TUNING.epochs} epochs with {rows} rows", lambda: self._fit(module, method, FINE_TUNING, name)
        )
        load_weights(module, self.folder / name / "weights.safetensors")
        return compile(module.eval(), CHIP, name=NETWORK, classes=self.data.classes)

    def curve(self) -> list[dict[str, float]]:
        """Accuracy against the stored rows of the final layer."""
        points = []
        for rows in ROWS:
            point = {"rows": rows, "error": self.renamed(rows).error, "lossy": self.accuracy(self.without_tuning(rows))}
            points.append(point | {"tuned": self.accuracy(self.tuned(rows))})
        return points

    # -- rows -------------------------------------------------------------------------------------------------------

    def row(
        self, table: str, row: str, metric: str, unit: str, ours: float, *, paper: float | None = None,
        spread: float | None = None, epochs: int = TRAINING.epochs, images: int = 0,
    ) -> Row:  # fmt: skip
        """One row of the results file."""
        command = f"crossloom reproduce irr --network {NETWORK}"
        command += f" --limit {self.request.limit}" if self.request.limit is not None else ""
        return Row(
            table=table, row=row, metric=metric, unit=unit, paper=paper, ours=float(f"{ours:.9g}"), spread=spread,
            budget=Budget(epochs=epochs, images=images, device=self.device), command=command, config_hash=self.hash,
        )  # fmt: skip

    def accuracy_rows(self) -> list[Row]:
        """Integer training."""
        self.trained  # noqa: B018 -- trains, or loads
        found = self.kept.part("exactness", "both exact rungs on the test images", self.exactness)
        images = len(self.data.test.labels)
        make: Callable[..., Row] = lambda metric, unit, ours, **more: self.row(  # noqa: E731
            ACCURACY, "whole network", metric, unit, ours, **more
        )
        return [
            make("accuracy, integer", "%", 100 * found["integer"], paper=96.66, images=images),
            make("accuracy, crossbar (7 rows, 3-bit ADC)", "%", 100 * found["crossbar"], images=images),
            make("accumulators in training that are not integers", "", found["not_integer"], images=CHECKED_IMAGES),
            make("values that differ between training and program", "", found["differing"], images=CHECKED_IMAGES),
        ]

    def rename_rows(self) -> list[Row]:
        """The curve."""
        images, rows = len(self.data.test.labels), []
        for point in self.kept.part("curve", "rows against accuracy", self.curve):
            name = f"{point['rows']} rows"
            saved = 100 * (1 - point["rows"] / ROWS[0])
            paper = 45.24 if point["rows"] == PAPER_ROWS else None
            epochs = TRAINING.epochs + FINE_TUNING.epochs
            rows += [
                self.row(RENAME, name, "rows saved", "%", saved, paper=paper),
                self.row(RENAME, name, "accuracy, integer, lossy", "%", 100 * point["lossy"], images=images),
                self.row(
                    RENAME, name, "accuracy, integer, fine-tuned", "%", 100 * point["tuned"], images=images,
                    epochs=epochs, paper=96.66 if point["rows"] == PAPER_ROWS else None,
                ),
            ]  # fmt: skip
        return rows

    def area_rows(self) -> list[Row]:
        """The final layer's area, three ways of reading inputs that share a row."""
        layers = {
            "84 rows, no rename": self.chip.program.layers[-1],
            **{
                f"{PAPER_ROWS} rows, {access} access": rename.lossy(
                    self.chip.program.layers[-1], PAPER_ROWS,
                    rename.row_activity(self.chip.program.layers[-1], self.vectors[self.final]), access=access,
                ).layer
                for access in ("summed", "serial")
            },
        }  # fmt: skip
        made = self.kept.part(
            "area", "cost of the final layer", lambda: irr_area.compare(self.chip, self.vectors[self.final], layers)
        )
        return [
            self.row(
                AREA, case, metric, unit, value,
                paper=45.24 if metric == "cells saved" and case != "84 rows, no rename" else None,
            )
            for case, metric, unit, value in made
        ]  # fmt: skip

    def noise_rows(self) -> list[Row]:
        """Accuracy lost to read noise before and after reorder."""
        study = irr_noise.NoiseStudy(self.chip, self.data, self.vectors, self.kept, self.request.limit)
        return [
            self.row(
                NOISE, f.row, f.metric, f.unit, f.value, spread=f.spread, images=f.images,
                paper=f.paper,
            )
            for f in study.figures()
        ]  # fmt: skip


def make(request: Request) -> ResultsFile:
    """All rows."""
    study = Study(request)
    with locked(study.folder):
        rows = [*study.accuracy_rows(), *study.rename_rows(), *study.area_rows(), *study.noise_rows()]
    return ResultsFile(paper=IRR.paper, title=IRR.title, network=request.network, rows=tuple(rows))


IRR = Reproduction(
    paper="irr",
    title=(
        "J. Weinstock et al., Machine Learning Algorithm Co-Design for a 40 nm RRAM Analog Compute-in-Memory "
        "Accelerator, ORSS, 2023"
    ),
    networks=(NETWORK,),
    rows="integer training, row rename (rows against accuracy, area), row reorder under three laws of read noise",
    make=make,
)
