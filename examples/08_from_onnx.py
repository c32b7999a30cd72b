"""An ONNX file in: the same three calls, on a network that PyTorch never saw. Needs `pip install crossloom[onnx]`."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import crossloom


def write_classifier(path: Path) -> None:
    """A convolution, a ReLU, a pooling and a linear layer, built with onnx alone."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 1, 3, 3)).astype(np.float32)
    matrix = (rng.normal(size=(10, 6 * 9)) / 8).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("MaxPool", ["active"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["classes"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def main() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.onnx"
        write_classifier(path)
        model = crossloom.load_onnx(path)
    chip = crossloom.compile(model, hardware="isaac", calibration=images, name="classifier")
    difference = (chip.logits(images, "integer") - chip.logits(images, "float")).abs().max()
    same = (chip.logits(images, "crossbar").argmax(1) == chip.logits(images, "float").argmax(1)).double().mean()
    print(f"{chip}; logits within {difference:.3f} of the float network's, {100 * same:.0f} % of classes equal")
    assert same > 0.9


if __name__ == "__main__":
    main()
