"""The engines of the fidelity ladder and the executor that runs programs on them."""

from crossloom.simulate.adc import Adc, array_adc
from crossloom.simulate.analog_chip import Conditions, ReadNoise
from crossloom.simulate.calibration import Calibration, fit
from crossloom.simulate.engine import Engine, Kernel, Settings, engine, engines
from crossloom.simulate.executor import Executor
from crossloom.simulate.observe import calibrate_converters, input_vectors

__all__ = [
    "Adc", "Calibration", "Conditions", "Engine", "Executor", "Kernel", "ReadNoise", "Settings", "array_adc",
    "calibrate_converters", "engine", "engines", "fit", "input_vectors",
]  # fmt: skip
