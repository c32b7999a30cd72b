"""Co-design methods: one file each, found by name; a package adds one through `crossloom.methods`."""

from crossloom.methods.approximation import Approximation, Setting
from crossloom.methods.block_pruning import BlockMask, BlockPruning
from crossloom.methods.protocol import Method, method, methods

__all__ = ["Approximation", "BlockMask", "BlockPruning", "Method", "Setting", "method", "methods"]
