"""Real data and weights where the machine has them, and one thread so that tests neither crowd nor differ."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets (environment CROSSLOOM_DATA)."""
    folder = os.environ.get("CROSSLOOM_DATA")
    if not folder:
        pytest.skip("CROSSLOOM_DATA is not set: no real data sets here")
    return Path(folder)


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder with the published weights (environment CROSSLOOM_WEIGHTS)."""
    folder = os.environ.get("CROSSLOOM_WEIGHTS")
    if not folder:
        pytest.skip("CROSSLOOM_WEIGHTS is not set: no published weights here")
    return Path(folder)
