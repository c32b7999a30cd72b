"""Data sets, reference networks and the training loop.

    data = load_dataset("digits")
    network = build_network("lenet5", len(data.classes), data.image_shape)
    result = fit(network, data, recipe("lenet5", "digits"), "runs/digits")

Lightning is imported by the first call of `fit` (or of `training.trainer`), not before.
"""

from crossloom.training.augment import Augment
from crossloom.training.config import DATASET_RECIPES, RECIPES, TrainingConfig, recipe
from crossloom.training.data import (
    NORMALISATIONS,
    SOURCES,
    DataSet,
    Loader,
    Normalisation,
    data_folder,
    dataset_names,
    load_dataset,
)
from crossloom.training.evaluate import evaluate
from crossloom.training.fit import FitResult, checkpoint_path, fit
from crossloom.training.networks import NETWORKS, NetworkInfo, build_network, describe_networks, network_names
from crossloom.training.readers import Split
from crossloom.training.seeds import derive, generator
from crossloom.training.weights import PRETRAINED, Pretrained, load_weights, read_state, save_weights

__all__ = [
    "DATASET_RECIPES", "NETWORKS", "NORMALISATIONS", "PRETRAINED", "RECIPES", "SOURCES", "Augment", "DataSet",
    "FitResult", "Loader", "NetworkInfo", "Normalisation", "Pretrained", "Split", "TrainingConfig", "build_network",
    "checkpoint_path", "data_folder", "dataset_names", "derive", "describe_networks", "evaluate", "fit", "generator",
    "load_dataset", "load_weights", "network_names", "read_state", "recipe", "save_weights",
]  # fmt: skip
