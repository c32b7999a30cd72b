"""The options that several commands share, each with its help, and the class of all commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from crossloom.cli import output

NETWORK_PANEL, CHIP_PANEL, RUN_PANEL, SHOW_PANEL = "Network and data", "Chip", "Run", "Output"


class Command(TyperCommand):
    """A command whose body cannot write to standard output: what libraries print there goes to standard error."""

    def invoke(self, ctx: Any) -> Any:
        """Run the body."""
        given = ctx.params
        output.log_to_stderr(bool(given.get("quiet")), bool(given.get("verbose")))
        with contextlib.redirect_stdout(sys.stderr):
            return super().invoke(ctx)


def complete(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion from a list that is read when asked for."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _networks() -> list[str]:
    from crossloom.training import network_names

    return network_names()


def _data() -> list[str]:
    from crossloom.codesign import data_names

    return data_names()


def _chips() -> list[str]:
    from crossloom.hardware import names

    return names()


def _recipes() -> list[str]:
    from crossloom.codesign.recipe import ready

    return ready()


Network = Annotated[
    str | None,
    typer.Option(
        "--network", "-n", metavar="NAME", autocompletion=complete(_networks), rich_help_panel=NETWORK_PANEL,
        help="A network of `crossloom networks`, torchvision:<name> or timm:<name>.",
    ),
]  # fmt: skip
Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", metavar="NAME", autocompletion=complete(_data), rich_help_panel=NETWORK_PANEL,
        help="digits, mnist, fashion-mnist, cifar10, cifar100; default the network's usual one.",
    ),
]  # fmt: skip
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", envvar="CROSSLOOM_DATA", rich_help_panel=NETWORK_PANEL,
        help="Folder of the data sets, in torchvision's layout or CIFAR's binary version; default ./data.",
    ),
]  # fmt: skip
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", "-w", metavar="FILE", rich_help_panel=NETWORK_PANEL,
        help="Trained weights: .safetensors, .npz, or a PyTorch checkpoint of plain tensors.",
    ),
]  # fmt: skip
Normalisation = Annotated[
    str | None,
    typer.Option(
        "--normalisation", metavar="NAME", rich_help_panel=NETWORK_PANEL,
        help="Of the input: imagenet, unit, caffe; default that of known weights, else the data set's own.",
    ),
]  # fmt: skip
TrainImages = Annotated[
    int | None,
    typer.Option("--train-images", metavar="N", rich_help_panel=NETWORK_PANEL, help="Training images; default all."),
]
Hardware = Annotated[
    str | None,
    typer.Option(
        "--hardware", "-H", metavar="NAME|FILE", autocompletion=complete(_chips), rich_help_panel=CHIP_PANEL,
        help="A chip of `crossloom hardware list`, or a hardware file; default crimp-isaac.",
    ),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="PATH=VALUE", rich_help_panel=CHIP_PANEL,
        help="Change one field of the chip, such as array.b_adc=6 or 'device.r_on=6 kohm'; may be repeated.",
    ),
]  # fmt: skip
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", rich_help_panel=RUN_PANEL, help="Of everything random; default 0.")
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", metavar="DIR", rich_help_panel=RUN_PANEL, help="The run's folder.")
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", rich_help_panel=RUN_PANEL, help="The run's folder below runs/."),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", rich_help_panel=RUN_PANEL, help="Of float training; default the recipe's."),
]
EpochsFrom = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="N", rich_help_panel=RUN_PANEL,
        help="Of float training; default the recipe's. With --weights default none; N trains on from them.",
    ),
]  # fmt: skip
Finetune = Annotated[
    int | None,
    typer.Option(
        "--finetune", metavar="N", rich_help_panel=RUN_PANEL,
        help="Epochs of quantisation-aware fine-tuning, 0 for none; default a quarter of the float epochs.",
    ),
]  # fmt: skip
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="N|RUNG=N", rich_help_panel=RUN_PANEL,
        help="Test images, of all rungs or of one (crossbar=500); may be repeated; default all.",
    ),
]  # fmt: skip
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", rich_help_panel=RUN_PANEL,
        help="Where to compute; auto trains on a GPU if there is one.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", rich_help_panel=RUN_PANEL, help="CPU threads; default all.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", rich_help_panel=RUN_PANEL, help="Start over in place of going on with the folder.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", rich_help_panel=RUN_PANEL,
        help="A run's configuration (config.yaml) in place of the options above.",
    ),
]  # fmt: skip
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", "-r", metavar="NAME|FILE", autocompletion=complete(_recipes), rich_help_panel=RUN_PANEL,
        help="A recipe of `crossloom recipes`, or a YAML file.",
    ),
]  # fmt: skip
Chips = Annotated[
    int | None,
    typer.Option(
        "--chips", metavar="N", rich_help_panel=RUN_PANEL,
        help="Also measure accuracy on so many chips, each with its own cells (analog rung).",
    ),
]  # fmt: skip
Noise = Annotated[
    list[float] | None,
    typer.Option(
        "--noise", metavar="SIGMA", rich_help_panel=RUN_PANEL,
        help="Also measure those chips at this strength of programming variation; may be repeated.",
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=SHOW_PANEL, help="Print one JSON object and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=SHOW_PANEL, help="No progress.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", rich_help_panel=SHOW_PANEL, help="More remarks; where an error came from.")
]
