"""Augmentation of whole batches of uint8 images: a random crop after zero padding, and a random mirror.

Work is done on the batch at once, on whatever device the images live; the random draws always come from a CPU
generator, so that the same seed gives the same images on every machine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Integer, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Augment(BaseModel):
    """What happens to a training image before it is normalised."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    padding: int = Field(default=0, ge=0)
    """Black border in pixels on each side before a random crop back to the original size; 0 leaves the image where
    it is. 4 is the convention for CIFAR (He et al., CVPR 2016, section 4.2)."""

    flip: bool = False
    """Mirror left and right with probability one half. Right for photographs, wrong for digits."""


def crop(
    images: UInt8[Tensor, "B C H W"], padding: int, tops: Integer[Tensor, " B"], lefts: Integer[Tensor, " B"]
) -> UInt8[Tensor, "B C H W"]:
    """Each image padded by `padding` zeros on all sides and cut to H × W from row `tops[b]`, column `lefts[b]`.

    `tops` and `lefts` run from 0 to 2·padding; `padding` itself gives the image back.
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    batch = torch.arange(len(images), device=images.device)
    return windows[batch, :, tops, lefts]


def augmented(
    images: UInt8[Tensor, "B C H W"], augment: Augment, randomness: torch.Generator
) -> UInt8[Tensor, "B C H W"]:
    """The batch after one random draw of `augment` per image. `images` is left as it was."""
    count, device = len(images), images.device
    if augment.padding:
        offsets = torch.randint(0, 2 * augment.padding + 1, (2, count), generator=randomness).to(device)
        images = crop(images, augment.padding, offsets[0], offsets[1])
    if augment.flip:
        mirrored = torch.randint(0, 2, (count,), generator=randomness).to(device, torch.bool)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images
