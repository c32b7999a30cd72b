"""Convolutions over small maps as products: against the library's in float64, and only where they are meant."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossloom.training import small_maps
from crossloom.training.small_maps import SmallMaps


def gradients(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> tuple[Tensor, ...]:
    y = F.conv2d(x, weight, bias, 1, padding)
    wanted = [t for t in (x, weight, bias) if t is not None]
    return y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum(), wanted)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([(3, 3), (3, 1), (1, 3), (2, 2), (1, 2)]),
    st.tuples(st.integers(0, 1), st.integers(0, 1)), st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_product_is_the_convolution_and_so_are_its_gradients(
    batch: int, height: int, width: int, kernel: tuple[int, int], padding: tuple[int, int], biased: bool, last: bool,
    seed: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 64, height, width, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weight, bias = torch.randn(80, 64, *kernel, generator=generator), torch.randn(80, generator=generator)
    tensors = [t.bfloat16().float().requires_grad_() for t in (x, weight, bias)]
    given_bias = tensors[2] if biased else None
    with torch.autocast("cpu", torch.bfloat16):
        if not small_maps.suits(tensors[0], tensors[1], given_bias, 1, padding):
            size = [n + 2 * p - k + 1 for n, p, k in zip((height, width), padding, kernel, strict=True)]
            assert (
                min(size) < 1
                or size[0] * size[1] > small_maps.LARGEST
                or any(p >= k for p, k in zip(padding, kernel, strict=True))
            )
            return
        with SmallMaps():
            found = gradients(tensors[0], tensors[1], given_bias, padding)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    wanted = gradients(exact[0], exact[1], exact[2] if biased else None, padding)
    assert found[0].dtype == torch.bfloat16
    for made, right in zip(found, wanted, strict=True):
        assert made.shape == right.shape
        assert float((made - right).abs().max()) <= 2e-2 * float(right.abs().max()) + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": "same"}, {"padding": 3},
        {"size": 8}, {"channels": 32}, {"kernel": 1},
    ],
    ids=str,
)  # fmt: skip
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    channels, kernel, size = (int(str(options.pop(n, d))) for n, d in (("channels", 64), ("kernel", 3), ("size", 4)))
    groups = options.get("groups", 1)
    x, weight = torch.zeros(2, channels, size, size), torch.zeros(64, channels // int(str(groups)), kernel, kernel)
    call = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
    with torch.autocast("cpu", torch.bfloat16):
        assert small_maps.suits(torch.zeros(2, 64, 4, 4), torch.zeros(64, 64, 3, 3), None, 1, 1)
        assert not small_maps.suits(x, weight, None, *call.values())


def test_without_bfloat16_nothing_changes() -> None:
    assert not small_maps.suits(torch.zeros(2, 64, 4, 4), torch.zeros(64, 64, 3, 3), None, 1, 1)
    x, weight = torch.randn(2, 64, 4, 4), torch.randn(64, 64, 3, 3)
    with SmallMaps():
        inside = F.conv2d(x, weight, None, 1, 1)
    assert torch.equal(inside, F.conv2d(x, weight, None, 1, 1))
