"""Check that two ways of running a model agree, before one is timed or written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from profiling.errors import ProfilingError
from profiling.symbolic import tensors_in

TOLERANCE = 1e-4  # largest absolute error of any output element, float32


def repeatable_outputs(run: Callable[..., Any], args: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs of `run` for `args`, on the CPU, if two calls give the same.

    Raises:
        ProfilingError: the outputs differ, so they cannot be compared with others.
    """
    first, second = _outputs(run, args), _outputs(run, args)
    if not max_error(first, second) <= TOLERANCE:
        raise ProfilingError(
            "example: the model draws random numbers, so its output cannot be checked: "
            "pass the noise as a further input, example=(images, noise)"
        )
    return first


def checked_error(what: str, run: Callable[..., Any], args: Any, expected: list[Tensor]) -> float:
    """Run once and return the largest absolute error of any output element.

    Raises:
        ProfilingError: the error is above `TOLERANCE`.
    """
    error = max_error(_outputs(run, args), expected)
    if error <= TOLERANCE:
        return error
    raise ProfilingError(
        f"{what}: its output differs from eager's by {error:.2g}, more than {TOLERANCE:g}: "
        "not used, since it computes something else"
    )


def max_error(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest absolute difference; infinite if shapes differ or only one is NaN."""
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in expected]:
        return math.inf
    errors = (_difference(a, b) for a, b in zip(outputs, expected, strict=True))
    return max(errors, default=0.0)


def _difference(output: Tensor, expected: Tensor) -> float:
    if output.numel() == 0:
        return 0.0
    gap = (output.double() - expected.double()).abs()
    same = (output == expected) | (output.isnan() & expected.isnan())  # inf - inf is NaN
    worst = gap.masked_fill(same, 0.0).max().item()
    return math.inf if math.isnan(worst) else worst


def _outputs(run: Callable[..., Any], args: tuple[Tensor, ...]) -> list[Tensor]:
    """Run on copies, since the first layer may work in place; return copies on the CPU."""
    with torch.inference_mode():
        outputs = run(*(arg.clone() for arg in args))
        return [tensor.detach().cpu().clone() for tensor in tensors_in(outputs)]
