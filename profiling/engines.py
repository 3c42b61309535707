"""How each backend gets a model ready; `backends.BACKENDS` is the table of them.

Each function takes a private copy of the model in evaluation mode, its arguments and a number of
threads, and returns a callable with the model's arguments and outputs, and a remark or "".
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from profiling.folding import fold_batch_norms
from profiling.onnx_export import onnx_model, onnxruntime_session

Args = tuple[Tensor, ...]
ForwardPass = Callable[..., Any]


def as_it_is(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Run the model as it is."""
    return model, ""


def in_channels_last(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Keep channels innermost in memory; the inputs are converted at each call."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(*args: Tensor) -> Any:
        return model(*(_last(arg) if arg.dim() == 4 else arg for arg in args))

    return run, ""


_last = partial(torch.Tensor.contiguous, memory_format=torch.channels_last)


def with_folded_norms(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Fold BatchNorms; the remark says how many could be."""
    model, folded, total = fold_batch_norms(model)
    return model, f"{folded} of {total} BatchNorms folded"


def compiled(
    model: nn.Module, args: Args, threads: int, engine: str = "inductor"
) -> tuple[ForwardPass, str]:
    """Compile the whole pass or fail: a part left eager would not be what the table says.

    Compiled code hangs on a function's code object, of which torch allows only a few variants
    per process: a code object of its own keeps this model apart from all others.
    """

    def forward(*args: Tensor) -> Any:
        return model(*args)

    own = types.FunctionType(
        forward.__code__.replace(), globals(), "forward", None, forward.__closure__
    )
    run: ForwardPass = torch.compile(own, fullgraph=True, dynamic=False, backend=engine)
    return run, ""


def in_onnxruntime(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Convert to ONNX, run in ONNX Runtime."""
    content = onnx_model(model, args).SerializeToString()
    return _structured(onnxruntime_session(content, threads), model, args), ""


def in_openvino(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Convert to ONNX, run in OpenVINO."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # pinning would outlive the call
    }
    core = openvino.Core()
    graph = core.read_model(onnx_model(model, args).SerializeToString())
    request = core.compile_model(graph, "CPU", settings).create_infer_request()

    def run(*args: Tensor) -> list[Tensor]:
        arrays = [arg.numpy() for arg in args]
        return [torch.from_numpy(a) for a in request.infer(arrays, share_inputs=True).values()]

    return _structured(run, model, args), ""


def _structured(run: ForwardPass, model: nn.Module, args: Args) -> ForwardPass:
    """Give a flat list of outputs the structure that the model's outputs have."""
    structure = tree_flatten(model(*(arg.clone() for arg in args)))[1]
    return lambda *args: tree_unflatten(run(*args), structure)


def on_cuda(model: nn.Module, args: Args, threads: int) -> tuple[ForwardPass, str]:
    """Run on the CUDA device what comes from, and goes back to, the CPU."""
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
            for _ in range(3):  # libraries choose and load their kernels before the capture
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
    """Forbid TF32 in convolutions, whose rounding would fail the check against the CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _moved(outputs: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), outputs)
