"""The variants of a model: the runtime, the rewrites before, and the precision in which it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.deploy.quality import Quality
from profiling.backends import BFLOAT16, FLOAT32, INT8, find_backend
from profiling.rewrites import rewritten
from profiling.runtime_files import FILE_BACKENDS

PRECISIONS = (FLOAT32, BFLOAT16, INT8)


@dataclass(frozen=True)
class Variant:
    """A way to deploy a model.

    Attributes:
        backend: One of `profiling.runtime_files.FILE_BACKENDS`.
        precision: One of `PRECISIONS`.
    """

    backend: str
    precision: str

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.backend} {self.precision}"

    @property
    def stem(self) -> str:
        """Its name as that of a file."""
        return f"{self.backend}-{self.precision}"

    @property
    def runtime(self) -> str:
        """The package that runs it."""
        return find_backend(self.backend).package

    @property
    def reason_against(self) -> str | None:
        """Why it cannot be built on this machine; None if it can."""
        return find_backend(self.backend).reason_against(torch.device("cpu"), self.precision)


@dataclass(frozen=True)
class Built:
    """A variant that was built.

    Attributes:
        variant: The variant.
        path: The file that the runtime is given.
        keep: Names of the layers that stay in floating point because they are sensitive.
        note: Remark on rewrites and on layers in floating point, or "".
        in_float: (name, kind) of the layers that the runtime does not compute in int8.
        max_error: Largest difference of an output from float64, relative to the output's range.
        quality: Its quality on the validation images.
        file_bytes: Size of the files of the whole model.
    """

    variant: Variant
    path: Path
    keep: tuple[str, ...]
    note: str
    in_float: tuple[tuple[str, str], ...]
    max_error: float
    quality: Quality
    file_bytes: int


@dataclass(frozen=True)
class Shipped:
    """The files of a variant that is deployed.

    Attributes:
        files: Pass (`model`, `encoder`, `decoder`) -> name of the file that the runtime is given.
        test: Its quality on the test images; None if there are none.
    """

    files: Mapping[str, str]
    test: Quality | None


def variants_of(
    model: nn.Module, backends: Sequence[str] | None, precisions: Sequence[str]
) -> list[Variant]:
    """Return the variants of a model, also those that cannot be built on this machine.

    Args:
        model: The pass that is deployed.
        backends: Some of `FILE_BACKENDS`; None is all, those with rewrites only if one applies.
        precisions: Some of `PRECISIONS`.
    """
    chosen = backends or [name for name in FILE_BACKENDS if _differs(name, model)]
    return [
        Variant(name, precision)
        for name in chosen
        for precision in precisions
        if precision in find_backend(name).precisions
    ]


def _differs(name: str, model: nn.Module) -> bool:
    """Whether a backend rewrites a model, or has no rewrites."""
    rewrites: Any = find_backend(name).rewrites
    return not rewrites or bool(rewritten(model, rewrites)[1])
