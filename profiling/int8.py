"""Post-training quantisation: convolutions and linear layers in 8-bit integers.

Each function takes a private copy of the model in evaluation mode, its arguments, a number of
threads and calibration batches: arguments of further passes, from which the range of values of each
tensor is taken. What an engine cannot compute in integers stays in floating point, and the remark
counts these layers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    graph = openvino_graph(model, args)
    names = [one.get_any_name() for one in graph.inputs]
    with _silence():
        nncf = _nncf()
        data = nncf.Dataset(_named(names, batches))
        graph = nncf.quantize(graph, data, subset_size=len(batches))
    compiled = compiled_openvino(graph, threads)
    return openvino_pass(compiled, model, args), _remark(_not_in_integers(compiled))


def in_onnxruntime(
    model: nn.Module, args: Args, threads: int, batches: Sequence[Args]
) -> tuple[ForwardPass, str]:
    """Quantise the model by ONNX Runtime's static quantisation and run it there.

    ONNX Runtime has no transposed convolution in integers on a CPU: it would convert to integers
    and back for nothing.
    """
    import onnx

    content = _quantised_onnx(onnx_model(model, args).SerializeToString(), batches)
    run = structured(onnxruntime_session(content, threads), model, args)
    return run, _remark(_not_quantised(onnx.load_from_string(content).graph.node))


def _quantised_onnx(content: bytes, batches: Sequence[Args]) -> bytes:
    """Return a model with its tensors quantised and dequantised (QDQ), as an ONNX file."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    kinds = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"ConvTranspose"})
    with tempfile.TemporaryDirectory() as folder, _silence():
        plain, prepared, quantised = (Path(folder) / f"{n}.onnx" for n in range(3))
        plain.write_bytes(content)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # all shapes are fixed
        quantize_static(
            prepared,
            quantised,
            _Reader(_input_names(content), batches),
            op_types_to_quantize=kinds,
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


def _not_in_integers(compiled: Any) -> Counter[str]:
    """Count the layers of a compiled OpenVINO model that compute in floating point."""
    infos = [one.get_rt_info() for one in compiled.get_runtime_model().get_ops()]
    layers = [(info["layerType"].value, info["runtimePrecision"].value) for info in infos]
    return Counter(
        _OPENVINO_LAYERS[kind]
        for kind, precision in layers
        if kind in _OPENVINO_LAYERS and precision not in ("i8", "u8")
    )


def _not_quantised(nodes: Sequence[Any]) -> Counter[str]:
    """Count the layers of an ONNX graph that compute in floating point.

    An input may be quantised for the layer before alone, so the weights count.
    """
    quantised = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return Counter(
        _ONNX_LAYERS[node.op_type]
        for node in nodes
        if node.op_type in _ONNX_LAYERS and not set(node.input[:2]) <= quantised
    )


def _remark(layers: Counter[str]) -> str:
    counted = ", ".join(f"{count} x {kind}" for kind, count in layers.items())
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
