"""What a co-design method is, and where methods are found.

A method edits the woven layers of a converted network (`crossloom.convert`) before, during and after training. It
knows the hooks of `crossloom.nn` and the array's shape that it aligns to, nothing else of the chip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar

from torch import Tensor, nn

from crossloom.errors import InputError

GROUP = "crossloom.methods"


class Method:
    """One step of a recipe. A method overrides what it needs; the defaults do nothing.

    Attributes:
        name: the word in recipes.
        recores: it gives layers another core.
        prunes: it leaves zeros that are to stay zeros in the steps behind it.
        keeps_zeros: if it recores, weights that are zero stay so.
        requantises: it puts in all quantisers anew.
        lasting: its loss, extra loss and callbacks go on in the steps behind it.
    """

    name: ClassVar[str]
    recores: ClassVar[bool] = False
    prunes: ClassVar[bool] = False
    keeps_zeros: ClassVar[bool] = False
    requantises: ClassVar[bool] = False
    lasting: ClassVar[bool] = False

    def prepare(self, network: nn.Module) -> None:
        """Edit the network before training: weave layers, add masks, set quantisers."""

    def callbacks(self) -> Sequence[Any]:
        """Lightning callbacks that act during training."""
        return ()

    def extra_loss(self) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None:
        """A term of the loss: (network, images, logits, labels) → scalar, or None."""
        return None

    def loss(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What takes the place of cross-entropy: (logits, labels) → scalar, or None."""
        return None

    def finish(self, network: nn.Module) -> dict[str, Any]:
        """Make the edits final after training; returns plain figures for the record."""
        return {}


def methods() -> dict[str, type[Method]]:
    """All methods by name: our own, and those of installed packages (entry-point group `crossloom.methods`)."""
    from crossloom.methods.admm import ADMM
    from crossloom.methods.approximation import Approximation
    from crossloom.methods.block_pruning import BlockPruning
    from crossloom.methods.crossbar_masks import CrossbarMasks, KeepZeroBlocks
    from crossloom.methods.integer_training import IntegerTraining
    from crossloom.methods.keep_zeros import KeepZeros
    from crossloom.methods.kernel_groups import KernelGroups
    from crossloom.methods.layer_bits import LayerBits
    from crossloom.methods.power_of_two import PowerOfTwoIntegers
    from crossloom.methods.runtime_simulator import RuntimeAdaptation

    ours: tuple[type[Method], ...] = (
        ADMM, Approximation, BlockPruning, CrossbarMasks, IntegerTraining, KeepZeroBlocks, KeepZeros,
        KernelGroups, LayerBits, PowerOfTwoIntegers, RuntimeAdaptation,
    )  # fmt: skip
    own: dict[str, type[Method]] = {cls.name: cls for cls in ours}
    others = {point.name: point for point in entry_points(group=GROUP) if point.name not in own}
    return {**own, **{name: point.load() for name, point in others.items()}}


def method(name: str, **options: Any) -> Method:
    """A method by name.

    Raises:
        InputError: an unknown method, or options that it does not take.
    """
    known = methods()
    if name not in known:
        raise InputError.choice("method", name, known)
    try:
        return known[name](**options)
    except TypeError as error:
        raise InputError(f"method.{name}", options, f"options that it takes ({error})") from error
