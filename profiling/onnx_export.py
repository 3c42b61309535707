"""Export a model as ONNX and verify the result."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from profiling.agreement import Exact
from profiling.errors import ProfilingError
from profiling.files import behind_links, require_writable, write_whole
from profiling.latency import batched
from profiling.symbolic import Example, as_args

OPSET = 20  # supported by onnxruntime and OpenVINO, unlike newer ones
_MOST_BYTES = 2_000_000_000
"""Maximum size of the weights: a protobuf message holds 2 GiB, and the graph needs a part of it."""


@dataclass(frozen=True)
class OnnxReport:
    """A written and verified ONNX file.

    Attributes:
        path: The file.
        opset: Version of the operator set.
        nodes: Nodes of the graph.
        file_bytes: Size of the file.
        inputs, outputs: Name -> shape; a dynamic dimension is a name.
        dynamic_batch: Whether the batch dimension is dynamic.
        max_error: Largest difference of any output element in ONNX Runtime from float64 in PyTorch,
            relative to the range of that output; None if ONNX Runtime is not installed.
    """

    path: Path
    opset: int
    nodes: int
    file_bytes: int
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    dynamic_batch: bool
    max_error: float | None


_EXTRAS = ("onnx", "backends", "deploy")
"""Extras of this package, each with all that the ones before it install."""

_EXTRA_OF = {"openvino": "backends", "nncf": "deploy"}
"""Package -> the first extra that installs it; that of others is `onnx`."""


def missing(*packages: str) -> str | None:
    """Return how to install packages (by an extra of this one) if one is missing, else None."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    extra = max((_EXTRA_OF.get(name, "onnx") for name in absent), key=_EXTRAS.index)
    return f"needs {', '.join(absent)}: pip install 'vae-nas[{extra}]'"


def export_onnx(
    model: nn.Module,
    example: Example,
    path: Path,
    output_names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> OnnxReport:
    """Export `model` in evaluation mode to one ONNX file, after verification.

    Inputs have the names of the parameters of `forward`. The batch dimension, the first of every
    input, is dynamic if the model allows it. The model must be deterministic: noise must be an
    input. The metadata are stored as metadata properties of the file.

    Raises:
        ProfilingError: a package is missing, the model cannot be exported, is random or above 2 GB,
            the result is invalid or differs from float64 by more than rounding explains, or `path`
            cannot be written.
    """
    if reason := missing("onnx", "onnxscript"):
        raise ProfilingError(f"onnx: {reason}")
    if not path.parent.is_dir():  # checked before the export, which takes long
        raise ProfilingError(f"{path}: cannot be written (no folder {path.parent})")
    if path.exists() and not path.is_file():
        raise ProfilingError(f"{path}: cannot be written (not a regular file)")
    require_writable(path.parent)
    plain = copy.deepcopy(model).cpu().eval()
    args = tuple(tensor.cpu() for tensor in as_args(example))
    proto, dynamic = _dynamic_or_fixed(plain, args, output_names)
    add_metadata(proto, metadata or {})
    content = proto.SerializeToString()
    error = _verify(plain, args, proto, content, dynamic)
    _write(path, content)
    return OnnxReport(
        path=path,
        opset=int(next(s.version for s in proto.opset_import if s.domain in ("", "ai.onnx"))),
        nodes=len(proto.graph.node),
        file_bytes=len(content),
        inputs=_shapes(proto.graph.input),
        outputs=_shapes(proto.graph.output),
        dynamic_batch=dynamic,
        max_error=error,
    )


def onnx_model(
    model: nn.Module,
    args: tuple[Tensor, ...],
    *,
    dynamic_batch: bool = False,
    output_names: Sequence[str] | None = None,
) -> Any:
    """Convert a model in evaluation mode to an `onnx.ModelProto`, without verification.

    Raises:
        ProfilingError: torch cannot convert it, or it is above 2 GB.
    """
    _require_fit(model)
    # torch would treat a batch of one as a constant.
    shown = batched(args, 2, torch.device("cpu")) if dynamic_batch and len(args[0]) == 1 else args
    batch = torch.export.Dim("batch")
    try:
        with _quiet(), _translations_kept(), torch.no_grad():
            program = torch.onnx.export(
                model,
                shown,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=_input_names(model, args),
                output_names=output_names,
                dynamic_shapes=tuple({0: batch} for _ in args) if dynamic_batch else None,
            )
    except Exception as error:  # every stage of the exporter raises its own types
        cause = str(error.__cause__ or error).strip() or type(error).__name__
        raise ProfilingError(
            f"onnx: torch cannot export {type(model).__name__}: {cause.splitlines()[0]}"
        ) from error
    if program is None:
        raise ProfilingError(f"onnx: torch cannot export {type(model).__name__}")
    return program.model_proto


def add_metadata(proto: Any, metadata: Mapping[str, str]) -> None:
    """Add metadata properties to an `onnx.ModelProto`."""
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)


def _require_fit(model: nn.Module) -> None:
    tensors = (*model.parameters(), *model.buffers())
    if (size := sum(tensor.nbytes for tensor in tensors)) > _MOST_BYTES:
        raise ProfilingError(
            f"onnx: the weights of {type(model).__name__} take {size:,} bytes, and an ONNX "
            f"file holds at most {_MOST_BYTES:,}: use smaller widths"
        )


def _dynamic_or_fixed(
    model: nn.Module, args: tuple[Tensor, ...], output_names: Sequence[str] | None
) -> tuple[Any, bool]:
    """Convert with a dynamic batch dimension, or with a fixed one if that fails."""
    with contextlib.suppress(ProfilingError):
        proto = onnx_model(model, args, dynamic_batch=True, output_names=output_names)
        # torch may fix the dimension without an error.
        if all(isinstance(shape[0], str) for shape in _shapes(proto.graph.input).values()):
            return proto, True
    return onnx_model(model, args, output_names=output_names), False


def _verify(
    model: nn.Module, args: tuple[Tensor, ...], proto: Any, content: bytes, dynamic: bool
) -> float | None:
    """Check validity and outputs, if the batch is dynamic for two batch sizes."""
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the errors of the checker have no common base
        raise ProfilingError(
            f"onnx: the export is invalid: {str(error).splitlines()[0]}"
        ) from error
    if missing("onnxruntime"):
        return None
    run = onnxruntime_session(content, threads=torch.get_num_threads())
    examples = [args]
    if dynamic:
        examples.append(tuple(torch.cat([arg, arg[:1]]) for arg in args))
    with torch.random.fork_rng(devices=[]):
        return max(
            Exact.of(model, sample).checked_error("onnx", run, sample) for sample in examples
        )


def onnxruntime_session(content: bytes, threads: int) -> Any:
    """Return a callable from tensors to a list of tensors that runs `content` on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    # Waiting threads must not spin while other models are timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*args: Tensor) -> list[Tensor]:
        feeds = {name: arg.numpy() for name, arg in zip(names, args, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feeds)]

    return run


def _input_names(model: nn.Module, args: tuple[Tensor, ...]) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in named]
    return [names[i] if i < len(names) else f"input_{i}" for i in range(len(args))]


def _shapes(values: Any) -> dict[str, tuple[int | str, ...]]:
    return {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    }


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(behind_links(path), content)
    except OSError as error:
        raise ProfilingError(f"{path}: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings about its internals and about unneeded packages."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


_translations: dict[int, Any] = {}
"""Version of the operator set -> torch's translations of its operators, where they were read."""


@contextlib.contextmanager
def _translations_kept() -> Iterator[None]:
    """Let torch read the translations of its operators once, and not at each export.

    Reading them takes half of the export of a small model. torch has no option for it; where its
    internals are others, nothing is changed.
    """
    original, name = None, "from_torchlib"
    with contextlib.suppress(ImportError, AttributeError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        original = inspect.getattr_static(ONNXRegistry, name)
    if original is None:
        yield
        return
    read = ONNXRegistry.from_torchlib

    def kept(opset_version: int = OPSET) -> Any:
        if opset_version not in _translations:
            _translations[opset_version] = read(opset_version)
        return _translations[opset_version]

    setattr(ONNXRegistry, name, staticmethod(kept))
    try:
        yield
    finally:
        setattr(ONNXRegistry, name, original)
