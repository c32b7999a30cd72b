"""Residuals become one curve a set and layer."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from crossloom.errors import InputError
from crossloom.methods import Residuals
from crossloom.report.residuals import residual_chart


def test_one_curve_a_set_and_layer() -> None:
    history = [Residuals(u, layer, "columns", 0.1, 1 / (1 + u), 0.0) for u in range(4) for layer in ("conv1", "fc<2>")]
    for kind in ("primal", "dual"):
        text = residual_chart(history, kind)
        ElementTree.fromstring(text)
        assert "conv1, columns" in text
        assert "fc&lt;2&gt;, columns" in text
        assert kind in text


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="at least one update"):
        residual_chart([])
    with pytest.raises(InputError, match="primal"):
        residual_chart([Residuals(0, "a", "b", 1, 1, 1)], "prime")
