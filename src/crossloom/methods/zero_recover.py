"""Zero-and-recover training (CRIMP, Algorithm 1): values are set to zero and may grow back by their momentum.

Before epoch s a phase trains plainly. From s on it alternates

* a *zero epoch*: weights and activations quantised to powers of two, the forward pass through the runtime simulator,
  an L1 pull on the importances, and at the end the least important ones set to zero;
* a *recovery epoch*: the float forward pass, the L1 pull as well.

The last epoch is a zero epoch. Only values are zeroed: the optimiser's momentum buffers stay, so that what was wrongly
zeroed comes back. Any optimiser with momentum will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from crossloom.errors import InputError
from crossloom.nn import Quantiser, held_weights, woven_layers


class Importances(Protocol):
    """What a phase prunes by."""

    def importances(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The parameters under the L1 pull."""
        ...

    def zero(self, network: nn.Module) -> None:
        """Rank them all, and set those under their layer's threshold to zero in place."""
        ...


def set_quantised(network: nn.Module, quantised: bool) -> None:
    """Turn all fake quantisation, and with it the runtime simulators, on or off."""
    for layer in woven_layers(network).values():
        layer.weight_quantiser.enabled = quantised
    for module in network.modules():
        if isinstance(module, Quantiser):
            module.enabled = quantised


@torch.no_grad()
def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Set every activation's step anew from one batch, as the weights are now."""
    modes = {module: module.training for module in network.modules()}
    found = [m for m in network.modules() if isinstance(m, Quantiser)]
    network.eval()
    for quantiser in found:
        quantiser.observing = True
        quantiser.lowest.fill_(torch.inf)
        quantiser.highest.fill_(-torch.inf)
    with held_weights(network):
        network(images)
    for quantiser in found:
        quantiser.calibrate()
    for module, training in modes.items():
        module.training = training


class ZeroAndRecover(Callback):
    """Algorithm 1 as a Lightning callback.

    Args:
        network: the network that is trained.
        prune: what is zeroed.
        start: s, as a fraction of the epochs, 0 … 1.
        penalty: λ of the L1 pull, added to the gradient as λ·sign.

    Raises:
        InputError: a start outside 0 … 1, or a negative penalty.
    """

    def __init__(self, network: nn.Module, prune: Importances, start: float, penalty: float) -> None:
        if not 0 <= start <= 1:
            raise InputError("zero-recover.start", start, "a fraction of the epochs from 0 to 1")
        if penalty < 0:
            raise InputError("zero-recover.penalty", penalty, "0 or more")
        self.network, self.prune, self.start, self.penalty = network, prune, start, penalty

    def kind(self, epoch: int, epochs: int) -> str:
        """`plain`, `zero` or `recovery`: what an epoch of a phase is."""
        if epoch < min(int(self.start * epochs), epochs - 1):
            return "plain"
        return "recovery" if (epochs - 1 - epoch) % 2 else "zero"

    def now(self, trainer: Any) -> str:
        """What the current epoch is."""
        return self.kind(trainer.current_epoch, trainer.max_epochs)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Quantised in zero epochs, plain in others."""
        set_quantised(self.network, self.now(trainer) == "zero")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Steps anew from the first batch of a zero epoch: the weights have moved since the last one."""
        if batch_idx == 0 and self.now(trainer) == "zero":
            recalibrate(self.network, batch[0])

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The L1 pull."""
        if self.penalty and self.now(trainer) != "plain":
            for parameter in self.prune.importances(self.network):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sign(), alpha=self.penalty)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Zero what is least important; the optimiser's state is left alone."""
        if self.now(trainer) == "zero":
            self.prune.zero(self.network)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the network quantised."""
        set_quantised(self.network, True)
