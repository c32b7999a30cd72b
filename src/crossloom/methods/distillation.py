"""Distillation: a term of the loss that pulls a network's answers to a teacher's (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossloom.errors import InputError


class Distillation:
    """share/(1 − share)·T²·KL(teacher ‖ network) at temperature T: with the loss's own term 1 the shares are right.

    Args:
        teacher: images → logits; put into evaluation mode and never trained.
        share: of the loss, 0 to below 1.
        temperature: T, positive.

    Raises:
        InputError: a share or temperature out of range.
    """

    def __init__(self, teacher: nn.Module, share: float = 0.5, temperature: float = 4.0) -> None:
        if not 0 <= share < 1:
            raise InputError("distillation.share", share, "a share from 0 to below 1", "0.9")
        if temperature <= 0:
            raise InputError("distillation.temperature", temperature, "a positive number", "4.0")
        self.teacher, self.share, self.temperature = teacher.eval(), share, temperature

    def __call__(self, network: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The term, a scalar."""
        place = next(self.teacher.parameters()).device
        if place != images.device:
            self.teacher.to(images.device)
        with torch.no_grad():
            target = F.log_softmax(self.teacher(images).float() / self.temperature, 1)
        answer = F.log_softmax(logits.float() / self.temperature, 1)
        distance = F.kl_div(answer, target, reduction="batchmean", log_target=True)
        return distance * (self.temperature**2 * self.share / (1 - self.share))
