"""The engines of the fidelity ladder and the executor that runs programs on them."""

from crossloom.simulate.adc import Adc, array_adc
from crossloom.simulate.calibration import Calibration, fit
from crossloom.simulate.engine import Engine, Kernel, Settings, engine, engines
from crossloom.simulate.executor import Executor

__all__ = [
    "Adc", "Calibration", "Engine", "Executor", "Kernel", "Settings", "array_adc", "engine", "engines", "fit",
]  # fmt: skip
