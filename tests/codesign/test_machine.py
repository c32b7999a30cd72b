"""What is known of the machine before a run."""

from __future__ import annotations

import pytest
import torch

from crossloom.codesign.config import Machine
from crossloom.codesign.machine import slow_in_bfloat16


@pytest.mark.parametrize(("amx", "slow"), [(True, False), (False, True)])
def test_a_cpu_without_amx_is_slow_in_bfloat16(monkeypatch: pytest.MonkeyPatch, amx: bool, slow: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert slow_in_bfloat16(Machine(device="cpu")) == slow_in_bfloat16(Machine(device="auto")) == slow
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert slow_in_bfloat16(Machine(device="cpu")) == slow and not slow_in_bfloat16(Machine(device="auto"))


def test_a_torch_that_does_not_tell_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not slow_in_bfloat16(Machine(device="cpu"))
