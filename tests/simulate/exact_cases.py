"""Random layers, arrays and inputs for the tests of the exact rungs."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from crossloom.hardware import Array
from crossloom.mapping import LayerMapping, cut, packed
from crossloom.simulate.digital import storage
from crossloom.simulate.unfold import Fold
from crossloom.weave import Convolution, Factor, Format, InputTransform, OutputTransform, Rescale, WovenLayer


def make_array(**fields: object) -> Array:
    """A 128 × 128 bit-serial array, fields replaced."""
    usual = {
        "rows": 128, "columns": 128, "encoding": "offset", "b_cell": 1, "b_dac": 1, "b_adc": 6, "adc_range": "full",
        "columns_per_adc": 1, "active_rows": 128,
    }  # fmt: skip
    return Array(**(usual | fields))


def make_layer(
    transform: InputTransform,
    columns: int,
    rng: np.random.Generator,
    *,
    groups: int = 1,
    weight_bits: int = 8,
    form: Format | None = None,
    convolution: Convolution | None = None,
    zeros: float = 0.0,
) -> WovenLayer:
    """A layer with random core whose Q passes accumulators on."""
    top = (1 << (weight_bits - 1)) - 1
    shape = (groups, transform.rows // groups, columns)
    core = rng.integers(-top, top + 1, shape) if weight_bits > 1 else rng.choice([-1, 1], shape)
    core = np.where(rng.random(shape) < zeros, 0, core) if weight_bits > 1 else core
    output = OutputTransform(np.zeros(groups * columns, np.int64), Rescale(), Format(32, True))
    form = form or Format(8, False)
    return WovenLayer(
        "layer", transform, core.astype(np.int32), output, form, weight_bits, None, np.ones(1), convolution
    )


@dataclass(frozen=True)
class Case:
    """One drawn layer on one drawn array with its input."""

    mapping: LayerMapping
    x: torch.Tensor

    @property
    def fold(self) -> Fold:
        return Fold.of(self.mapping.layer, tuple(self.x.shape))

    def vectors(self) -> np.ndarray:
        """The input vectors by a loop over positions, apart from the package's own unfolding."""
        x, layer = self.x.numpy().astype(np.int64), self.mapping.layer
        geometry, zero = layer.convolution, layer.input_format.zero_point
        if geometry is None:
            return x.reshape(-1, layer.inputs)
        top, bottom, left, right = geometry.padding
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
        (kh, kw), (sy, sx), (dy, dx) = geometry.kernel, geometry.stride, geometry.dilation
        height, width = geometry.output_size(*self.x.shape[2:])
        found = [
            image[:, y * sy : y * sy + (kh - 1) * dy + 1 : dy, i * sx : i * sx + (kw - 1) * dx + 1 : dx].reshape(-1)
            for image in x for y in range(height) for i in range(width)
        ]  # fmt: skip
        return np.stack(found)

    def as_output(self, accumulators: np.ndarray) -> torch.Tensor:
        return self.fold.accumulators(torch.from_numpy(accumulators))


def codes(form: Format, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Random codes of a format in its storage type."""
    return torch.from_numpy(rng.integers(form.low, form.high + 1, shape)).to(storage(form))


def random_transform(inputs: int, kind: str, rng: np.random.Generator) -> InputTransform:
    """An input transform of a named kind."""
    if kind == "identity":
        return InputTransform.identity(inputs)
    chosen = InputTransform.select(inputs, rng.permutation(inputs)[: max(inputs * 2 // 3, 1)])
    if kind == "select":
        return chosen
    if kind == "sum":
        return InputTransform.sum(rng.integers(-1, max(inputs // 2, 1), inputs), max(inputs // 2, 1))
    groups = max(chosen.rows // 3, 1)
    moments = np.zeros((2 * groups, chosen.rows), np.int64)
    for k in range(chosen.rows):
        group, t = min(k // 3, groups - 1), k % 3
        moments[2 * group, k], moments[2 * group + 1, k] = 1, t - 1
    shift = 2 if kind == "rounding" else 0
    return chosen.then(InputTransform(chosen.rows, (Factor.of("moments", moments, shift),)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any layer, linear or convolution, grouped or not, on any small array."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    encoding = draw(st.sampled_from(["offset", "differential", "twos_complement", "polarised"]))
    rows, flip = draw(st.integers(2, 40)), encoding == "offset" and draw(st.booleans())
    b_cell, weight_bits = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 5, 8, 9]))
    divisors = [n for n in range(1, rows + 1) if encoding != "polarised" or rows % n == 0]
    array = make_array(
        rows=rows,
        columns=draw(st.integers(18, 64)),
        encoding=encoding,
        b_cell=b_cell,
        b_dac=draw(st.integers(1, 4)),
        b_adc=draw(st.integers(1, 9)),
        adc_range=draw(st.sampled_from(["full", "unit"])),
        active_rows=rows if flip else draw(st.sampled_from(divisors)),
        flip=flip,
    )
    kind = draw(st.sampled_from(["identity", "select", "sum", "moments", "rounding"]))
    signed, bits = draw(st.booleans()), draw(st.sampled_from([1, 2, 4, 8, 11]))
    low, high = Format(bits, signed).low, Format(bits, signed).high
    form = Format(bits, signed, 1.0, 0 if kind == "rounding" else draw(st.integers(low, high)))
    columns, batch = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    zeros = draw(st.sampled_from([0.0, 0.5, 1.0]))
    if draw(st.booleans()):
        inputs = draw(st.integers(1, 70))
        layer = make_layer(
            random_transform(inputs, kind, rng), columns, rng, weight_bits=weight_bits, form=form, zeros=zeros
        )
        return Case(cut(packed(layer, array.fragment), array), codes(form, (batch, inputs), rng))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    geometry = Convolution(
        kernel,
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        tuple(draw(st.integers(0, 2)) for _ in range(4)),  # type: ignore[arg-type]
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
    )
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    channels = groups * draw(st.integers(1, 3))
    inputs = channels * kernel[0] * kernel[1]
    transform = random_transform(inputs, kind if groups == 1 else "identity", rng)
    layer = make_layer(
        transform, columns, rng, groups=groups, weight_bits=weight_bits, form=form, convolution=geometry, zeros=zeros
    )
    size = (draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    return Case(cut(packed(layer, array.fragment), array), codes(form, (batch, channels, *size), rng))
