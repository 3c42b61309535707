"""Models as files that a runtime reads: conversion, quantisation and loading.

What is timed, judged and given away is loaded from such a file. ONNX Runtime reads ONNX; OpenVINO
reads ONNX too, and its own format (IR: an XML file and one with the weights) after a quantisation.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from profiling.backends import BACKENDS, BFLOAT16, INT8, find_backend, first_line
from profiling.engines import (
    Args,
    ForwardPass,
    compiled_openvino,
    openvino_graph_of,
    openvino_run,
)
from profiling.errors import ProfilingError
from profiling.files import FULL_DISK
from profiling.int8 import (
    Layers,
    onnx_in_float,
    openvino_in_float,
    openvino_layers,
    quantised_onnx,
    quantised_openvino,
)
from profiling.int8 import remark as quantisation_remark
from profiling.latency import batches_of
from profiling.onnx_export import add_metadata, onnx_model, onnxruntime_session
from profiling.rewrites import remark, rewritten
from profiling.symbolic import Example

RUNTIMES = ("onnxruntime", "openvino")
"""The packages that run models from files."""

FILE_BACKENDS = tuple(name for name, one in BACKENDS.items() if one.package in RUNTIMES)
"""The backends whose models are files."""

IR_METADATA = "vae_nas"
"""Section of OpenVINO's format that holds the metadata."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RuntimeFile:
    """A converted model.

    Attributes:
        content: Suffix -> content; the first file is the one that a runtime is given.
        note: Remark on rewrites and on layers in floating point, or "".
        in_float: The layers that the runtime does not compute in integers although int8 was asked
            for, without those that were to stay in floating point.
    """

    content: Mapping[str, bytes]
    note: str = ""
    in_float: tuple[tuple[str, str], ...] = ()

    def write(self, stem: Path) -> Path:
        """Write the files and return the path of the first one.

        Args:
            stem: Their path without the suffix.

        Raises:
            OSError: a file cannot be written.
        """
        paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in self.content]
        for path, content in zip(paths, self.content.values(), strict=True):
            path.write_bytes(content)
        return paths[0]


class Converter:
    """Converts one module for several backends; what they share is exported once.

    Args:
        module: The module; it is not changed.
        args: Arguments of a pass on the CPU. Their shapes are those of the files.
        outputs: Names of the outputs.
    """

    def __init__(self, module: nn.Module, args: Args, outputs: Sequence[str]) -> None:
        self._module = copy.deepcopy(module).cpu().eval()
        self._args, self._outputs = args, tuple(outputs)
        self._exported: dict[tuple[str, ...], tuple[bytes, str]] = {}

    def convert(
        self,
        backend: str,
        dtype: str,
        calibration: Example | None = None,
        keep: Collection[str] = (),
    ) -> RuntimeFile:
        """Return the module as a file for a backend.

        Args:
            backend: One of `FILE_BACKENDS`.
            dtype: A precision of the backend.
            calibration: Arguments of several passes, from which int8 takes the ranges of values.
            keep: Names of the layers that stay in floating point in int8.

        Raises:
            ProfilingError: the backend or the precision is not available, int8 has no calibration,
                or the module cannot be converted.
            OSError: the disk of temporary files is full.
        """
        if reason := find_backend(backend).reason_against(_CPU, dtype):
            raise ProfilingError(f"{backend}: {reason}")
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                return self._converted(backend, dtype, calibration, keep)
        except ProfilingError as error:
            raise ProfilingError(f"{backend}: {error}") from error
        except Exception as error:  # each converter raises its own types
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            reason = first_line(error)
            raise ProfilingError(f"{backend}: cannot convert this model: {reason}") from error

    def _converted(
        self, backend: str, dtype: str, calibration: Example | None, keep: Collection[str]
    ) -> RuntimeFile:
        found = find_backend(backend)
        if dtype == INT8 and calibration is None:
            raise ProfilingError("int8 needs calibration images")
        content, note = self._onnx(found.rewrites_in(dtype))
        if dtype != INT8 or calibration is None:
            return RuntimeFile({".onnx": content}, note)
        batches = batches_of(calibration, len(self._args[0]), _CPU)
        files, in_float = _QUANTISED[found.package](content, batches, keep)
        left = [one for one in in_float if one[0] not in keep]
        notes = filter(None, [note, quantisation_remark(left)])
        return RuntimeFile(files, "; ".join(notes), tuple(left))

    def _onnx(self, rewrites: tuple[str, ...]) -> tuple[bytes, str]:
        """Return the module as ONNX after rewrites, and the remark on them."""
        if rewrites not in self._exported:
            module, done = rewritten(self._module, rewrites) if rewrites else (self._module, None)
            proto = onnx_model(module, self._args, output_names=self._outputs)
            note = "" if done is None else remark(done)
            self._exported[rewrites] = proto.SerializeToString(), note
        return self._exported[rewrites]


def _in_onnxruntime(
    content: bytes, batches: Sequence[Args], keep: Collection[str]
) -> tuple[Mapping[str, bytes], Layers]:
    quantised = quantised_onnx(content, batches, keep)
    return {".onnx": quantised}, onnx_in_float(quantised)


def _in_openvino(
    content: bytes, batches: Sequence[Args], keep: Collection[str]
) -> tuple[Mapping[str, bytes], Layers]:
    graph = openvino_graph_of(content)
    layers = openvino_layers(graph)
    quantised = quantised_openvino(graph, batches, keep)
    left = openvino_in_float(compiled_openvino(quantised, torch.get_num_threads()), layers)
    return _as_ir(quantised), left


_QUANTISED = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
"""Runtime -> (ONNX file, calibration batches, layers to keep) -> files and layers in float."""


def _as_ir(graph: Any) -> dict[str, bytes]:
    """Return the two files of OpenVINO's format."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return {".xml": path.read_bytes(), ".bin": path.with_suffix(".bin").read_bytes()}


def with_metadata(path: Path, metadata: Mapping[str, str]) -> RuntimeFile:
    """Return the model of a file with metadata, which do not change what it computes.

    Args:
        path: The first file of a `RuntimeFile`.
        metadata: Key -> value.
    """
    if path.suffix == ".xml":
        graph = openvino_graph_of(path)
        for key, value in metadata.items():
            graph.set_rt_info(value, [IR_METADATA, key])
        return RuntimeFile(_as_ir(graph))
    import onnx

    proto = onnx.load(path)
    add_metadata(proto, metadata)
    return RuntimeFile({".onnx": proto.SerializeToString()})


def loaded(path: Path, runtime: str, dtype: str, threads: int) -> ForwardPass:
    """Return a callable from tensors to a list of tensors that runs the model of a file.

    Args:
        path: The first file of a `RuntimeFile`.
        runtime: One of `RUNTIMES`.
        dtype: The precision for which it was converted.
        threads: Number of threads.

    Raises:
        ProfilingError: the runtime cannot run the model.
    """
    try:
        if runtime == "onnxruntime":
            run: ForwardPass = onnxruntime_session(path.read_bytes(), threads)
            return run
        return openvino_run(
            compiled_openvino(openvino_graph_of(path), threads, inference_precision(dtype))
        )
    except Exception as error:  # each runtime raises its own types
        raise ProfilingError(f"{runtime}: cannot run {path.name}: {first_line(error)}") from error


def inference_precision(dtype: str) -> str:
    """Return OpenVINO's name of the precision of floating-point layers."""
    return "bf16" if dtype == BFLOAT16 else "f32"


def file_bytes(path: Path) -> int:
    """Return the size of all files of a model."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.stem}.*"))
