"""Recipes: what is done to a network between its float weights and the chip, as ordered steps.

    name: mine
    steps:
      - name: prune
        epochs: 8
        rate: 0.2
        methods:
          - power-of-two
          - admm: {constraints: {"conv*": [{set: columns, keep: 0.25}]}}
      - name: share rows
        map: rename

A training step prepares its methods in their order, trains, and finishes them; a mapping step rewrites the integer
program. `@first` and `@last` stand for the names of the first and the last layer wherever a name may stand. An option
`budget` of a method that has a search (`approximation`, `admm`) stands for the options that the search finds.

A recipe is checked twice before anything is trained: its order here, and in whole by a rehearsal
(`crossloom.codesign.recipe_run`), in which every step is prepared and finished on the network without training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from crossloom.errors import InputError
from crossloom.hardware.files import parse
from crossloom.training import TrainingConfig

FIRST, LAST = "@first", "@last"


class Part(BaseModel):
    """Base of a recipe's parts: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Call(Part):
    """A method and its options: in YAML its name, or `name: {option: value}`."""

    method: str
    """Its name, see `crossloom.codesign.recipe_methods.known`."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options by name."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"method": given}
        if isinstance(given, Mapping) and len(given) == 1 and "method" not in given:
            ((name, options),) = given.items()
            return {"method": name, "options": options or {}}
        return given

    @model_serializer
    def _plain(self) -> Any:
        return {self.method: self.options} if self.options else self.method


class TrainStep(Part):
    """A training with methods on it."""

    name: str = Field(min_length=1)
    """Unique in the recipe; for people and the folder."""

    methods: tuple[Call, ...] = ()
    """Prepared in this order before training and finished in it after."""

    epochs: int = Field(default=1, ge=0)
    """Of training; 0: the methods are prepared and finished, and nothing is trained."""

    rate: float = Field(default=0.1, gt=0)
    """Peak learning rate as a share of the network's reference recipe's."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Other fields of the reference `TrainingConfig` to change."""

    optional: bool = False
    """Whether a network or chip that cannot have the step goes without it; the record then says why."""

    spread: float | None = Field(default=None, gt=0)
    """Standard deviation of the logits at which the loss sees them as they are; larger ones are divided down to it, so
    that a network whose logits have grown does not learn from its few mistakes alone. None: never."""

    def schedule(self, base: TrainingConfig) -> TrainingConfig | None:
        """How the step trains, from the network's reference recipe; None without epochs.

        Raises:
            InputError: a field that there is not, or a value out of range.
        """
        if self.epochs == 0:
            return None
        return base.updated(**({"epochs": self.epochs, "lr": base.lr * self.rate} | self.training))


class MapStep(Part):
    """A pass over the integer program."""

    name: str = Field(min_length=1)
    """Unique in the recipe."""

    map: str
    """The pass, one of `crossloom.codesign.passes.PASSES`."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the pass by name."""

    optional: bool = False
    """Whether a chip that cannot have the pass goes without it; the record then says why."""


class Recipe(Part):
    """Ordered steps."""

    version: Literal[1] = 1
    """Of this format."""

    name: str = Field(min_length=1)
    """Of the recipe."""

    about: str = ""
    """What it does, in a sentence, and where it comes from."""

    hardware: str | None = None
    """The chip that it was made for; taken where none is named."""

    set: tuple[str, ...] = ()
    """Fields of the chip that the recipe chooses, `array.encoding=differential`: how weights are coded, not what the
    hardware is. A user's own changes come after them."""

    steps: tuple[TrainStep | MapStep, ...]
    """Training steps, then mapping steps."""

    @property
    def training(self) -> tuple[TrainStep, ...]:
        """The training steps."""
        return tuple(step for step in self.steps if isinstance(step, TrainStep))

    @property
    def mapping(self) -> tuple[MapStep, ...]:
        """The mapping steps."""
        return tuple(step for step in self.steps if isinstance(step, MapStep))

    @property
    def epochs(self) -> int:
        """Of all steps."""
        return sum(step.epochs for step in self.training)

    def within(self, epochs: int) -> Recipe:
        """The same in about so many epochs: the steps' shares stay, and a step that trains keeps one at least.

        Raises:
            InputError: fewer than one epoch a step that trains.
        """
        trained = [step for step in self.training if step.epochs]
        if epochs < len(trained):
            raise InputError("epochs", epochs, f"at least {len(trained)}, one a training step", str(len(trained)))
        share = epochs / max(self.epochs, 1)
        steps = [
            s.model_copy(update={"epochs": max(round(s.epochs * share), 1)}) if s in trained else s for s in self.steps
        ]
        return self.model_copy(update={"steps": tuple(steps)})

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As YAML, defaults left out; `from_plain(yaml.safe_load(…))` gives back an equal recipe."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))

    @staticmethod
    def from_plain(content: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """The recipe that JSON values describe.

        Raises:
            InputError: an unknown field (the nearest is suggested), a value that does not fit, an unknown method or
                pass, or an order that cannot work (the message says why).
        """
        from crossloom.codesign.recipe_order import check_order

        plain = dict(content)
        if isinstance(plain.get("steps"), (list, tuple)):
            plain["steps"] = [_part(f"{where}.steps.{i}", step) for i, step in enumerate(plain["steps"])]
        found = _valid(Recipe, plain, where)
        check_order(found)
        return found

    @staticmethod
    def load(name: str | os.PathLike[str]) -> Recipe:
        """A ready recipe by name, or one from a YAML file.

        Raises:
            InputError: neither; else as `from_plain`.
        """
        path = Path(name)
        if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError("recipe", str(name), f"a readable YAML file ({error})") from error
            return Recipe.from_plain(parse(text, str(path)), path.stem)
        if str(name) not in ready():
            raise InputError.choice("recipe", str(name), ready())
        text = (files("crossloom.codesign") / "recipes" / f"{name}.yaml").read_text("utf-8")
        return Recipe.from_plain(parse(text, str(name)), str(name))


def _part(where: str, step: Any) -> Any:
    """A step as the kind that it is, so that a wrong field is complained of as one of that kind."""
    if not isinstance(step, Mapping):
        return step
    return _valid(MapStep, step, where) if "map" in step else _valid(TrainStep, step, where)


def _valid[P: Part](model: type[P], content: Mapping[str, Any], where: str) -> P:
    from crossloom.codesign.config import explained

    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        wrong = explained(error, model)
        raise InputError(f"{where}.{wrong.field}", wrong.value, wrong.expected, wrong.nearest) from error


def ready() -> list[str]:
    """Names of the recipes that come with Crossloom."""
    folder = files("crossloom.codesign") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def named(content: Any, layers: Sequence[str]) -> Any:
    """Options with `@first` and `@last` replaced by layers' names."""
    words = {FIRST: layers[0], LAST: layers[-1]}
    if isinstance(content, Mapping):
        return {words.get(key, key): named(value, layers) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [named(value, layers) for value in content]
    return words.get(content, content) if isinstance(content, str) else content


def sequence(steps: Iterable[TrainStep | MapStep]) -> list[str]:
    """The steps as one reads them, a line each."""
    lines = []
    for step in steps:
        if isinstance(step, TrainStep):
            what = ", ".join(call.method for call in step.methods) or "training alone"
            lines.append(f"{step.name}: {what}, {step.epochs} epoch{'' if step.epochs == 1 else 's'}")
        else:
            lines.append(f"{step.name}: {step.map}")
    return lines
