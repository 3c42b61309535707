"""The operations that run in one pass of a model in a backend, after the backend's own rewriting.

Runtimes fold BatchNorms, fuse activations into convolutions and insert changes of memory layout.
What is left explains a part of the difference between two runtimes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from profiling.backends import find_backend
from profiling.complexity import complexity
from profiling.onnx_export import onnx_model
from profiling.rewrites import remark, rewritten

KINDS = (
    *("convolution", "linear", "batch_norm", "activation", "concatenation", "resampling"),
    *("layout", "other"),
)
"""Kinds of operations that every backend has; `layout` changes the order of elements in memory."""

_CONVOLUTIONS = ("convolution", "depthwise", "pointwise")

_ONNX = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvTranspose"), "convolution"),
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul"), "linear"),
    "BatchNormalization": "batch_norm",
    **dict.fromkeys(("Elu", "Relu", "LeakyRelu", "Sigmoid", "Gelu", "QuickGelu"), "activation"),
    "Concat": "concatenation",
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"), "resampling"),
    **dict.fromkeys(("Resize", "Upsample", "DepthToSpace"), "resampling"),
    **dict.fromkeys(("ReorderInput", "ReorderOutput", "Transpose"), "layout"),
}
"""Type of an operation of ONNX Runtime -> its kind."""

_OPENVINO = {
    **dict.fromkeys(("Convolution", "Deconvolution", "GroupConvolution"), "convolution"),
    **dict.fromkeys(("FullyConnected", "MatMul"), "linear"),
    "Concatenation": "concatenation",
    **dict.fromkeys(("Pooling", "Interpolate", "DepthToSpace", "Reduce"), "resampling"),
    **dict.fromkeys(("Reorder", "Transpose"), "layout"),
}
"""Type of a layer of OpenVINO -> its kind. Element-wise layers, fused or not, are `other`."""

_FREE = ("Input", "Output", "Const", "Constant", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Types that do nothing in a pass: ends of the graph, weights and views."""


def executed(
    backend: str, model: nn.Module, args: tuple[Tensor, ...], precision: str = "float32"
) -> tuple[Mapping[str, int] | None, str]:
    """Return how many operations of each of `KINDS` run in one pass, and what was rewritten.

    Args:
        backend: Key of `profiling.backends.BACKENDS`.
        model: The model, in evaluation mode.
        args: Its arguments.
        precision: The precision in which the backend computes.

    Returns:
        The counts, None where they are not known (torch.compile, int8), and a remark about exact
        rewrites of the model or "".

    Raises:
        Exception: the backend cannot run the model.
    """
    found, words = find_backend(backend), ""
    if found.rewrites:
        model, done = rewritten(model, found.rewrites)
        words = remark(done)
    if precision == "int8" or backend == "compile":
        return None, words
    count = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}.get(found.package, _in_torch)
    counts = count(model, args)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}, words


def _in_torch(model: nn.Module, args: tuple[Tensor, ...]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in complexity(model, args).rows:
        counts["convolution" if row.kind in _CONVOLUTIONS else row.kind] += row.launches
    return counts


def _in_onnxruntime(model: nn.Module, args: tuple[Tensor, ...]) -> Counter[str]:
    """Return the operations of the graph that ONNX Runtime writes after its optimisation."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        content = onnx_model(model, args).SerializeToString()
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(str(path)).graph
    types = [node.op_type for node in graph.node]
    return Counter(_ONNX.get(one, "other") for one in types if one not in _FREE)


def _in_openvino(model: nn.Module, args: tuple[Tensor, ...]) -> Counter[str]:
    """Return the layers of the graph that OpenVINO runs."""
    import openvino

    core, settings = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    graph = core.read_model(onnx_model(model, args).SerializeToString())
    layers = core.compile_model(graph, "CPU", settings).get_runtime_model().get_ordered_ops()
    types = [_layer_type(layer) for layer in layers]
    return Counter(_OPENVINO.get(one, "other") for one in types if one not in _FREE)


def _layer_type(layer: Any) -> str:
    return str(layer.get_rt_info()["layerType"].astype(str))
