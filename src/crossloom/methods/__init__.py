"""Co-design methods: one file each, found by name; a package adds one through `crossloom.methods`."""

from crossloom.methods.admm import ADMM
from crossloom.methods.admm_state import Residuals, Rho
from crossloom.methods.approximation import Approximation, Setting
from crossloom.methods.block_pruning import BlockMask, BlockPruning
from crossloom.methods.constraints import (
    NM,
    Blocks,
    Channels,
    Columns,
    Constraint,
    Filters,
    Polarised,
    Support,
    Unstructured,
    Window,
)
from crossloom.methods.levels import DeviceLevels, FixedPoint, Levels, PowerOfTwo
from crossloom.methods.protocol import Method, method, methods
from crossloom.methods.purification import Flow, narrow

__all__ = [
    "ADMM", "NM", "Approximation", "BlockMask", "BlockPruning", "Blocks", "Channels", "Columns", "Constraint",
    "DeviceLevels", "Filters", "FixedPoint", "Flow", "Levels", "Method", "Polarised", "PowerOfTwo", "Residuals", "Rho",
    "Setting", "Support", "Unstructured", "Window", "method", "methods", "narrow",
]  # fmt: skip
