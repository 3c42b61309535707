"""The preparation of a model by each backend; `backends.BACKENDS` lists the backends.

Each function takes a private copy of the model in evaluation mode, its arguments and a number of
threads. It returns a callable with the model's arguments and outputs, and a remark or "".
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from profiling.onnx_export import onnx_model, onnxruntime_session

Args = tuple[Tensor, ...]
ForwardPass = Callable[..., Any]
Prepare = Callable[[nn.Module, Args, int], tuple[ForwardPass, str]]


def as_it_is(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Run the model as it is."""
    return model, ""


def in_channels_last(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Run the model in channels-last memory format; each call converts the inputs."""
    return _ChannelsLast(model).to(memory_format=torch.channels_last), ""  # type: ignore[call-overload]


class _ChannelsLast(nn.Module):
    """A model that gets its inputs in channels-last memory format."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor) -> Any:
        return self.model(*(_last(arg) if arg.dim() == 4 else arg for arg in args))


_last = partial(torch.Tensor.contiguous, memory_format=torch.channels_last)


def compiled(
    model: nn.Module, args: Args, threads: int, engine: str = "inductor"
) -> tuple[ForwardPass, str]:
    """Compile the whole pass with torch.compile, or fail if a part would remain eager.

    torch attaches compiled code to the code object of a function, and allows only a few variants of
    each. A new code object separates this model from all others.
    """

    def forward(*args: Tensor) -> Any:
        return model(*args)

    own = types.FunctionType(
        forward.__code__.replace(), globals(), "forward", None, forward.__closure__
    )
    run: ForwardPass = torch.compile(own, fullgraph=True, dynamic=False, backend=engine)
    return run, ""


def autocast(prepare: Prepare) -> Prepare:
    """Return a preparation in which convolutions and products run in bfloat16 (torch.autocast).

    Outputs are converted to float32. Layers store their weights in bfloat16, because autocast would
    convert them in each pass.
    """

    def prepared(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
        for module in model.modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                module.bfloat16()
        return prepare(_Autocast(model, args[0].device.type), args, threads)

    return prepared


class _Autocast(nn.Module):
    """A model under autocast."""

    def __init__(self, model: nn.Module, device_type: str) -> None:
        super().__init__()
        self.model = model
        self.device_type = device_type

    def forward(self, *args: Tensor) -> Any:
        with torch.autocast(self.device_type, torch.bfloat16):
            outputs = self.model(*args)
        return tree_map_only(Tensor, _not_lower, outputs)


def _not_lower(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def in_onnxruntime(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Convert the model to ONNX and run it in ONNX Runtime."""
    content = onnx_model(model, args).SerializeToString()
    return structured(onnxruntime_session(content, threads), model, args), ""


def in_openvino(
    model: nn.Module, args: Args, threads: int, precision: str = "f32"
) -> tuple[ForwardPass, str]:
    """Convert the model to ONNX and run it in OpenVINO."""
    compiled = compiled_openvino(openvino_graph(model, args), threads, precision)
    return openvino_pass(compiled, model, args), ""


def openvino_graph(model: nn.Module, args: Args) -> Any:
    """Return the model as an `openvino.Model`."""
    return openvino_graph_of(onnx_model(model, args).SerializeToString())


def openvino_graph_of(content: bytes | Path) -> Any:
    """Return an ONNX model, or the path of a model, as an `openvino.Model`."""
    import openvino

    return openvino.Core().read_model(content)


def compiled_openvino(graph: Any, threads: int, precision: str = "f32") -> Any:
    """Compile an `openvino.Model` for the CPU; `precision` is that of its floating-point layers."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,  # otherwise bfloat16 if the CPU supports it
        "ENABLE_CPU_PINNING": False,  # pinning would remain after the call
    }
    return openvino.Core().compile_model(graph, "CPU", settings)


def openvino_pass(compiled: Any, model: nn.Module, args: Args) -> ForwardPass:
    """Return a callable that runs a compiled model, with the structure of the model's outputs."""
    return structured(openvino_run(compiled), model, args)


def openvino_run(compiled: Any) -> ForwardPass:
    """Return a callable from tensors to a list of tensors that runs a compiled model."""
    request = compiled.create_infer_request()

    def run(*args: Tensor) -> list[Tensor]:
        arrays = [arg.numpy() for arg in args]
        return [torch.from_numpy(a) for a in request.infer(arrays, share_inputs=True).values()]

    return run


def structured(run: ForwardPass, model: nn.Module, args: Args) -> ForwardPass:
    """Return a callable whose outputs have the structure of the model's outputs."""
    structure = tree_flatten(model(*(arg.clone() for arg in args)))[1]
    return lambda *args: tree_unflatten(run(*args), structure)


def on_cuda(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Run the model on the CUDA device; inputs and outputs are copied from and to the CPU."""
    model = model.cuda()

    def run(*args: Tensor) -> Any:
        with _full_precision():
            outputs = model(*(arg.cuda() for arg in args))
        return _moved(outputs, args[0].device)

    return run, "with copies to the device and back"


def as_cuda_graph(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Capture one pass as a CUDA graph and replay it."""
    model, inputs = model.cuda(), [arg.cuda() for arg in args]
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    here = args[0].device
    precision = _full_precision() if here.type == "cpu" else torch.no_grad()
    with precision:
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries select and load kernels before the capture
                model(*(value.clone() for value in inputs))
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            outputs = model(*(value.clone() for value in inputs))

    def run(*args: Tensor) -> Any:
        for value, arg in zip(inputs, args, strict=True):
            value.copy_(arg)
        graph.replay()
        return _moved(outputs, here)

    return run, "with copies to the device and back" if here.type == "cpu" else ""


@contextmanager
def _full_precision() -> Iterator[None]:
    """Disable TF32 in convolutions, because its rounding fails the check against the CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _moved(outputs: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), outputs)
