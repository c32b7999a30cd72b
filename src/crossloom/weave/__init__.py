"""Woven layers and programs: P, C, Q, their algebra and their integer meaning."""

from crossloom.weave.encoding import ENCODINGS, CellSlice, Field, WeightCode, fields, pieces, weight_code
from crossloom.weave.formats import Format, Rescale, round_shift
from crossloom.weave.layer import Convolution, OutputTransform, WovenLayer, zero_point_bias
from crossloom.weave.program import (
    Add,
    AveragePool,
    Concat,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Node,
    Pad,
    Permute,
    Program,
    Requantise,
    Reshape,
    Scale,
    Slice,
    Woven,
    describe,
)
from crossloom.weave.store import atomic_path, load_program, save_program, write_text
from crossloom.weave.transform import Factor, InputTransform, TransformOperations, fitting_copies

__all__ = [
    "ENCODINGS", "Add", "AveragePool", "CellSlice", "Concat", "Convolution", "Factor", "Field", "Format", "Input",
    "InputTransform", "Lookup", "MaxPool", "Multiply", "Node", "OutputTransform", "Pad", "Permute", "Program",
    "Requantise", "Rescale", "Reshape", "Scale", "Slice", "TransformOperations", "WeightCode",
    "Woven", "WovenLayer", "atomic_path", "describe", "fields", "fitting_copies", "load_program", "pieces",
    "round_shift", "save_program", "weight_code", "write_text", "zero_point_bias",
]  # fmt: skip
