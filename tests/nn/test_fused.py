"""The one-pass quantiser gives the bits of the operations that it stands for, in every layout and on any threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossloom.nn import fused
from crossloom.nn.quantisers import _FakeQuantise


def plain(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    codes = torch.floor(x.float() / scale.view(-1, *[1] * (x.dim() - 1)) + 0.5) + zero
    kept = codes.clamp(low, high)
    return ((kept - zero) * scale.view(-1, *[1] * (x.dim() - 1))).to(x.dtype), kept == codes


def values(shape: tuple[int, ...], layout: str, dtype: torch.dtype, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if len(shape) == 4 and layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    return x.transpose(0, 1).contiguous().transpose(0, 1) if layout == "turned" else x


@given(
    st.sampled_from([(8, 16, 16, 16), (3, 5, 37, 41), (40, 500), (70001,), (2, 20000)]),
    st.sampled_from(["as it comes", "channels last", "turned"]), st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(), st.sampled_from([(-128, 127, 0), (0, 255, 0), (0, 15, 6), (-7, 7, 0)]), st.integers(1, 2),
    st.integers(0, 999),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_one_pass_gives_the_bits_of_the_operations(
    shape: tuple[int, ...], layout: str, dtype: torch.dtype, per_channel: bool, codes: tuple[int, int, int],
    threads: int, seed: int,
) -> None:  # fmt: skip
    if layout == "turned" and len(shape) == 1:
        layout = "as it comes"
    x = values(shape, layout, dtype, seed)
    low, high, zero = codes
    scale = torch.rand(len(x) if per_channel else 1) * 0.1 + 1e-3
    if not fused.suits(x, scale):
        assert per_channel and layout == "turned"  # the steps' axis is not the outermost one in memory
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made, inside = fused.quantised(x, scale, torch.tensor(zero), low, high, True)
        alone, none = fused.quantised(x, scale, torch.tensor(zero), low, high, False)
        gradient = torch.randn_like(x)
        assert inside is not None and none is None
        gated = fused.passed(gradient, inside)
    finally:
        torch.set_num_threads(before)
    grid, within = plain(x, scale, torch.tensor(zero), low, high)
    assert torch.equal(made, grid) and made.stride() == x.stride() and made.dtype == x.dtype
    assert torch.equal(alone, made)
    assert torch.equal(inside, within)
    assert torch.equal(gated, torch.where(within, gradient, torch.zeros_like(gradient)))


def test_what_is_not_a_number_stays_none() -> None:
    x = torch.full((fused.FEWEST,), torch.nan)
    for dtype in (torch.float32, torch.bfloat16):
        made, inside = fused.quantised(x.to(dtype), torch.tensor(0.1), torch.tensor(0), -128, 127, True)
        assert inside is not None
        assert bool(made.isnan().all()) and not bool(inside.any())


@pytest.mark.parametrize(
    "x",
    [torch.zeros(8), torch.zeros(1 << 15, dtype=torch.float64), torch.zeros(1 << 9, 1 << 9)[:, ::2]],
    ids=["few values", "float64", "holes between values"],
)
def test_other_tensors_are_left_to_torch(x: Tensor) -> None:
    assert not fused.suits(x, torch.tensor(0.1))


def test_a_gradient_in_another_layout_is_gated_value_by_value() -> None:
    inside = torch.rand(8, 16, 16, 16) > 0.5
    gradient = torch.randn(8, 16, 16, 16).contiguous(memory_format=torch.channels_last)
    assert torch.equal(fused.passed(gradient, inside), gradient * inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_values_get_the_grid_points_that_many_get(dtype: torch.dtype) -> None:
    x = (torch.randn(fused.FEWEST, generator=torch.Generator().manual_seed(0)) * 30).to(dtype)
    scale, zero = torch.tensor(0.37), torch.tensor(0)
    few = [_FakeQuantise.apply(part, scale, zero, -128, 127) for part in x.split(fused.FEWEST // 4)]
    assert torch.equal(torch.cat(few), _FakeQuantise.apply(x, scale, zero, -128, 127))
