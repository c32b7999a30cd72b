"""Any PyTorch module or ONNX file → quantised network → integer program."""

from crossloom.frontend.capture import capture
from crossloom.frontend.convert import QuantisationConfig, calibrate, convert, quantisers
from crossloom.frontend.lower import fake_quantised_codes, lower
from crossloom.frontend.onnx import load_onnx

__all__ = [
    "QuantisationConfig", "calibrate", "capture", "convert", "fake_quantised_codes", "load_onnx", "lower", "quantisers",
]  # fmt: skip
