"""ONNX in: the module computes what onnxruntime computes, and compiles."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crossloom.errors import InputError
from crossloom.frontend import calibrate, convert, lower
from crossloom.frontend.onnx import load_onnx
from crossloom.simulate import Executor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def write_network(path: Path) -> None:
    """Convolution (grouped, padded), batch norm, ReLU, pooling, residual add, concatenation, Gemm."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def tensor(name: str, *shape: int, positive: bool = False) -> object:
        values = rng.normal(size=shape).astype(np.float32) * 0.4
        return numpy_helper.from_array(np.abs(values) + 0.5 if positive else values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["b"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("BatchNormalization", ["b", "g", "o", "m", "v"], ["n1"]),
        helper.make_node("Add", ["n1", "a1"], ["c"]),
        helper.make_node("Relu", ["c"], ["c1"]),
        helper.make_node("MaxPool", ["c1"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["d", "d"], ["e"], axis=1),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["f1"]),
        helper.make_node("Gemm", ["f1", "w3", "b3"], ["y"], transB=1),
    ]
    weights = [
        tensor("w1", 4, 3, 3, 3), tensor("b1", 4), tensor("w2", 4, 1, 3, 3), tensor("g", 4), tensor("o", 4),
        tensor("m", 4), tensor("v", 4, positive=True), tensor("w3", 5, 8), tensor("b3", 5),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)


def test_onnx_equals_its_runtime_and_compiles(tmp_path: Path) -> None:
    write_network(tmp_path / "net.onnx")
    module = load_onnx(tmp_path / "net.onnx")
    x = torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    with torch.no_grad():
        assert torch.allclose(module(x), expected, atol=1e-5)
    converted = convert(module, x[:2])
    calibrate(converted, [x])
    logits = Executor(lower(converted)).logits(x)
    assert (logits - expected).abs().max() <= 0.05 * expected.abs().max()


def test_files_that_are_not_onnx_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing ONNX file"):
        load_onnx(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\x80\x04 not a model")
    with pytest.raises(InputError, match="valid ONNX file"):
        load_onnx(tmp_path / "bad.onnx")
    write_network(tmp_path / "net.onnx")
    whole = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="valid ONNX file"):
        load_onnx(tmp_path / "cut.onnx")
