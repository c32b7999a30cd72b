"""The main job: from a configuration to a run's folder, and the papers' results made with it.

config = configure("lenet5", "digits", "crimp-isaac")
result = run(config, "runs/demo")
"""

from crossloom.codesign.config import (
    DataChoice,
    Evaluation,
    HardwareChoice,
    Machine,
    NetworkChoice,
    RunConfig,
    WeightsFile,
)
from crossloom.codesign.configure import DEFAULT_HARDWARE, configure
from crossloom.codesign.evaluation import Outputs, agreement, outputs
from crossloom.codesign.own import Woven, codesign
from crossloom.codesign.plugins import data_names, default_data, open_data
from crossloom.codesign.progress import Progress, Silent
from crossloom.codesign.recipe import MapStep, Recipe, TrainStep
from crossloom.codesign.record import Agreement, Result
from crossloom.codesign.run import run

__all__ = [
    "DEFAULT_HARDWARE", "Agreement", "DataChoice", "Evaluation", "HardwareChoice", "Machine", "MapStep",
    "NetworkChoice", "Outputs", "Progress", "Recipe", "Result", "RunConfig", "Silent", "TrainStep", "WeightsFile",
    "Woven", "agreement", "codesign", "configure", "data_names", "default_data", "open_data", "outputs", "run",
]  # fmt: skip
