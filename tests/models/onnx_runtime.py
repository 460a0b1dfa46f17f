"""ONNX Runtime, the reference for everything ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-5
"""Of the largest number, in float32."""


def run(path: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def close(got: np.ndarray, expected: np.ndarray, what: str = "output") -> None:
    assert got.shape == expected.shape, f"{what}: {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{what}: {got.dtype}"
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * scale, err_msg=what)


def write(
    path: Path, nodes: list[Any], constants: dict[str, np.ndarray], shape: tuple[Any, ...], opset: int = 13, **more: Any
) -> Path:
    """A file with one input x and one output y. nodes: (operator, inputs, output, attributes)."""
    made = [onnx.helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes]
    graph = onnx.helper.make_graph(
        made, "net", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7, **more)
    path.write_bytes(model.SerializeToString())
    return path
