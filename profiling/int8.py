"""Post-training quantisation: convolutions and linear layers in 8-bit integers.

Each function takes a private copy of the model in evaluation mode, its arguments, a number of
threads and calibration batches: arguments of further passes, from which the range of values of each
tensor is taken. What an engine cannot compute in integers stays in floating point, and the remark
counts these layers. A layer has the name of its module, such as `encoder.mean`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from profiling.engines import (
    Args,
    ForwardPass,
    compiled_openvino,
    openvino_graph,
    openvino_pass,
    structured,
)
from profiling.onnx_export import onnx_model, onnxruntime_session

Quantise = Callable[[nn.Module, Args, int, Sequence[Args]], tuple[ForwardPass, str]]
"""(model, arguments, threads, calibration batches) -> what runs the model, and a remark or ""."""

Layers = list[tuple[str, str]]
"""Names of layers, each with its kind."""

_OPENVINO_WEIGHTED = (
    *("Convolution", "GroupConvolution", "MatMul"),
    *("ConvolutionBackpropData", "GroupConvolutionBackpropData"),
)
"""Operations of OpenVINO whose second input is the weight of a layer."""

_OPENVINO_LAYERS = {
    "Convolution": "convolution",
    "Deconvolution": "transposed convolution",
    "FullyConnected": "linear layer",
    "MatMul": "linear layer",
}
_ONNX_LAYERS = {
    "Conv": "convolution",
    "ConvTranspose": "transposed convolution",
    "Gemm": "linear layer",
    "MatMul": "linear layer",
}


def in_openvino(
    model: nn.Module, args: Args, threads: int, batches: Sequence[Args]
) -> tuple[ForwardPass, str]:
    """Quantise the model by NNCF and run it in OpenVINO."""
    graph = quantised_openvino(openvino_graph(model, args), batches)
    compiled = compiled_openvino(graph, threads)
    return openvino_pass(compiled, model, args), remark(openvino_in_float(compiled))


def quantised_openvino(graph: Any, batches: Sequence[Args], keep: Collection[str] = ()) -> Any:
    """Return an `openvino.Model`, quantised by NNCF, but for the layers of `keep`."""
    names = [one.get_any_name() for one in graph.inputs]
    layers = openvino_layers(graph)
    kept = [operation for operation, layer in layers.items() if layer in keep]
    with _silence():
        nncf = _nncf()
        data = nncf.Dataset(_named(names, batches))
        scope = {"ignored_scope": nncf.IgnoredScope(names=kept)} if kept else {}
        return nncf.quantize(graph, data, subset_size=len(batches), **scope)


def openvino_layers(graph: Any) -> dict[str, str]:
    """Return the layers of an `openvino.Model`: name of the operation -> name of the layer."""
    weights = {
        one.get_friendly_name(): _constant_behind(one.input_value(1).get_node())
        for one in graph.get_ops()
        if one.get_type_name() in _OPENVINO_WEIGHTED
    }
    return {operation: _layer_of(name) for operation, name in weights.items() if name}


def _constant_behind(node: Any) -> str | None:
    """Return the name of the constant that a node reshapes or converts; None if it has none."""
    while node.get_type_name() != "Constant":
        if node.get_input_size() == 0:
            return None
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def in_onnxruntime(
    model: nn.Module, args: Args, threads: int, batches: Sequence[Args]
) -> tuple[ForwardPass, str]:
    """Quantise the model by ONNX Runtime's static quantisation and run it there.

    ONNX Runtime has no transposed convolution in integers on a CPU: it would convert to integers
    and back for nothing.
    """
    content = quantised_onnx(onnx_model(model, args).SerializeToString(), batches)
    run = structured(onnxruntime_session(content, threads), model, args)
    return run, remark(onnx_in_float(content))


def quantised_onnx(content: bytes, batches: Sequence[Args], keep: Collection[str] = ()) -> bytes:
    """Return an ONNX file with its tensors quantised and dequantised (QDQ).

    Args:
        content: The file.
        batches: The calibration batches.
        keep: Names of the layers that stay in floating point.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    kinds = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"ConvTranspose"})
    with tempfile.TemporaryDirectory() as folder, _silence():
        plain, prepared, quantised = (Path(folder) / f"{n}.onnx" for n in range(3))
        plain.write_bytes(content)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # all shapes are fixed
        layers = _weighted(onnx.load(prepared).graph.node)
        quantize_static(
            prepared,
            quantised,
            _Reader(_input_names(content), batches),
            op_types_to_quantize=kinds,
            nodes_to_exclude=[one.name for one in layers if _layer_of(one.input[1]) in keep],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantised.read_bytes()


class _Reader:
    """The calibration batches as ONNX Runtime reads them: one at each call, then None."""

    def __init__(self, names: Sequence[str], batches: Sequence[Args]) -> None:
        self._left = iter(_named(names, batches))

    def get_next(self) -> Mapping[str, Any] | None:
        """Return the next batch."""
        return next(self._left, None)


def _input_names(content: bytes) -> list[str]:
    import onnx

    return [one.name for one in onnx.load_from_string(content).graph.input]


def _named(names: Sequence[str], batches: Sequence[Args]) -> list[dict[str, Any]]:
    """Return each batch as name of the input -> array."""
    return [
        {name: arg.numpy() for name, arg in zip(names, batch, strict=True)} for batch in batches
    ]


def openvino_in_float(compiled: Any, layers: Mapping[str, str] | None = None) -> Layers:
    """Return the layers of a compiled OpenVINO model that compute in floating point.

    Args:
        compiled: The compiled model.
        layers: What `openvino_layers` returned; without it, layers have the names of operations.
    """
    infos = [one.get_rt_info() for one in compiled.get_runtime_model().get_ops()]
    found: Layers = []
    for info in infos:
        kind, precision = info["layerType"].value, info["runtimePrecision"].value
        if kind in _OPENVINO_LAYERS and precision not in ("i8", "u8"):
            names = str(info["originalLayersNames"].value).split(",")
            known = (layers[name] for name in names if layers and name in layers)
            found.append((next(known, names[0]), _OPENVINO_LAYERS[kind]))
    return found


def onnx_in_float(content: bytes) -> Layers:
    """Return the layers of an ONNX file that compute in floating point.

    An input may be quantised for the layer before alone, so the weights count.
    """
    import onnx

    nodes = onnx.load_from_string(content).graph.node
    quantised = {one.output[0]: one.input[0] for one in nodes if one.op_type == "DequantizeLinear"}
    return [
        (_layer_of(quantised.get(node.input[1], node.input[1])), _ONNX_LAYERS[node.op_type])
        for node in _weighted(nodes)
        if not set(node.input[:2]) <= quantised.keys()
    ]


def _weighted(nodes: Sequence[Any]) -> list[Any]:
    return [node for node in nodes if node.op_type in _ONNX_LAYERS]


def _layer_of(weight: str) -> str:
    """Return the name of the layer that a weight belongs to, whatever fusions made of its name."""
    return re.sub(r"^\w+Fusion_W_|\.weight.*$", "", weight)


def remark(layers: Layers) -> str:
    """Return the remark that counts layers in floating point; "" if there are none."""
    counts = Counter(kind for _, kind in layers)
    counted = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
    return f"stays in floating point: {counted}" if counted else ""


def _nncf() -> Any:
    """Import NNCF without its messages to a server and its change of the class of loggers."""
    variable, kind = "NNCF_CI", logging.getLoggerClass()
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        import nncf
    finally:
        logging.setLoggerClass(kind)
        if before is None:
            del os.environ[variable]
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the progress bars, messages and warnings of the quantisers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
