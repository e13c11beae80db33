"""Small ONNX encoders made in the tests: no torch, no files from elsewhere."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def encoder_bytes(
    *,
    d: int = 16,
    seed: int = 0,
    batch: int | str = "batch",
    channels: int = 3,
    side: int | str = 112,
    outputs: int = 1,
    constant: bool = False,
    flat: bool = True,
    across: bool = False,
) -> bytes:
    """Mean over 8 x 8 cells, then a random matrix: a picture's code follows its coarse light and colour.

    `constant`: gives every picture the same code; `across`: a code depends on its whole batch; `flat` False: keeps
    spatial axes in the output.
    """
    rng = np.random.default_rng(seed)
    cells = side // 8 if isinstance(side, int) else 14
    matrix = rng.standard_normal((channels * cells * cells, d)).astype(np.float32)
    bias = rng.standard_normal(d).astype(np.float32) * (1 if constant else 0)
    if constant:
        matrix[:] = 0
    nodes = [helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8])]
    last = "pooled"
    if across:
        nodes.append(helper.make_node("ReduceMean", [last], ["mean"], axes=[0], keepdims=1))
        nodes.append(helper.make_node("Sub", [last, "mean"], ["centred"]))
        nodes.append(helper.make_node("Add", ["centred", "one"], ["shifted"]))
        last = "shifted"
    if flat:
        nodes.append(helper.make_node("Flatten", [last], ["flat"]))
        nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["code"]))
        shape: tuple[int | str, ...] = (batch, d)
    else:
        nodes.append(helper.make_node("Relu", [last], ["code"]))
        shape = (batch, channels, cells, cells)
    made = [helper.make_tensor_value_info("code", TensorProto.FLOAT, shape)]
    for i in range(1, outputs):
        nodes.append(helper.make_node("Identity", ["code"], [f"code{i}"]))
        made.append(helper.make_tensor_value_info(f"code{i}", TensorProto.FLOAT, shape))
    tensors = {"matrix": matrix, "bias": bias, "one": np.ones((1,), np.float32)}
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, channels, side, side))],
        made,
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
