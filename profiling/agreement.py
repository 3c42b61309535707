"""Judge the outputs of a backend against the same model in float64, before it is timed or written.

Eager float32 has rounding errors of its own, which depend on the model: they are the measure for
those of a backend. Errors are those of single output elements, the largest of each output.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from profiling.errors import ProfilingError
from profiling.symbolic import tensors_in

MULTIPLE = 50.0
"""A backend in float32 may have this multiple of eager's error, because it sums in another order.
The largest of 96 correct ones had 10.4; those in bfloat16 have 5,000 and more."""

FLOOR = 2e-6
"""Error, relative to the largest magnitude of the output, that is always allowed: 16 roundings."""

LOWER_MULTIPLE = 2.0**17
"""A lower precision may have this multiple of eager's error: bfloat16 rounds 2**16 times as
coarsely as float32. An untrained network can amplify this to the whole range of its output."""

LOWER_FLOOR = 0.1
"""Error of a lower precision, relative to the range of the output, that is always allowed."""

_SAME = 1e-4
"""Largest difference of two passes of one model, relative to the largest magnitude of the output:
operations on a GPU may sum in another order each time."""


@dataclass(frozen=True)
class Exact:
    """The outputs of a model for one example in float64, and the errors of eager float32.

    Attributes:
        outputs: The outputs in float64, on the CPU.
        own_errors: Largest error of eager for each output.
    """

    outputs: list[Tensor]
    own_errors: list[float]

    @classmethod
    def of(cls, model: nn.Module, args: tuple[Tensor, ...]) -> Exact:
        """Run a model in evaluation mode as it is and in float64.

        Raises:
            ProfilingError: the model is random, or cannot run in float64.
        """
        own = _repeatable_outputs(model, args)
        place = "cpu" if args[0].device.type == "mps" else args[0].device  # mps has no float64
        moved = [arg.to(place) for arg in args]
        doubled = tuple(arg.double() if arg.is_floating_point() else arg for arg in moved)
        try:
            outputs = _outputs(copy.deepcopy(model).to(place).double(), doubled)
        except (RuntimeError, TypeError) as error:
            raise ProfilingError(
                "model: cannot run in float64, by which outputs are judged: "
                f"{str(error).splitlines()[0]}"
            ) from error
        return cls(outputs, errors(own, outputs))

    def checked_error(
        self, what: str, run: Callable[..., Any], args: tuple[Tensor, ...], lower: bool = False
    ) -> float:
        """Run once and return the largest error relative to the range of its output.

        Args:
            what: Name of the backend, for the message.
            run: Takes the model's arguments.
            args: The arguments of the example.
            lower: Whether it computes in a lower precision than float32.

        Raises:
            ProfilingError: an error is larger than rounding explains.
        """
        found = errors(_outputs(run, args), self.outputs)
        allowed = map(_allowed_lower if lower else _allowed, self.own_errors, self.outputs)
        above = [(e, most) for e, most in zip(found, allowed, strict=True) if not e <= most]
        if above:
            error, most = max(above)
            raise ProfilingError(
                f"{what}: its output differs from float64's by {error:.2g}, and rounding explains "
                f"{most:.2g}: not used, since it computes something else"
            )
        return self._relative(found)

    def finite_error(self, what: str, run: Callable[..., Any], args: tuple[Tensor, ...]) -> float:
        """Run once and return the largest error, whatever it is, like `checked_error`.

        Raises:
            ProfilingError: an output has another shape, or is not a number where it should be one.
        """
        error = self._relative(errors(_outputs(run, args), self.outputs))
        if not math.isfinite(error):
            raise ProfilingError(f"{what}: its output is not that of this model, or not a number")
        return error

    def _relative(self, found: list[float]) -> float:
        """Return the largest of the errors, each relative to the range of its output."""
        ranges = map(_range, self.outputs)
        return max((e / r for e, r in zip(found, ranges, strict=True)), default=0.0)


def errors(outputs: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Return the largest absolute difference of each output.

    It is infinite if shapes differ or only one is NaN.
    """
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in expected]:
        return [math.inf] * len(expected)
    return [_difference(a, b) for a, b in zip(outputs, expected, strict=True)]


def _allowed(own_error: float, exact: Tensor) -> float:
    return MULTIPLE * own_error + FLOOR * _magnitude(exact)


def _allowed_lower(own_error: float, exact: Tensor) -> float:
    return max(LOWER_MULTIPLE * own_error, LOWER_FLOOR * _range(exact))


def _magnitude(exact: Tensor) -> float:
    finite = exact[exact.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def _range(exact: Tensor) -> float:
    """Return the difference of the largest and the smallest element, or the magnitude of all."""
    finite = exact[exact.isfinite()]
    extent = (finite.max() - finite.min()).item() if finite.numel() else 0.0
    return extent or _magnitude(exact) or 1.0


def _difference(output: Tensor, expected: Tensor) -> float:
    if output.numel() == 0:
        return 0.0
    gap = (output.double() - expected.double()).abs()
    same = (output == expected) | (output.isnan() & expected.isnan())  # inf - inf is NaN
    worst = gap.masked_fill(same, 0.0).max().item()
    return math.inf if math.isnan(worst) else worst


def _repeatable_outputs(run: Callable[..., Any], args: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs of `run` for `args`, on the CPU, if two calls give the same.

    Raises:
        ProfilingError: the outputs differ, so they cannot be compared with others.
    """
    first, second = _outputs(run, args), _outputs(run, args)
    for error, output in zip(errors(second, first), first, strict=True):
        if not error <= _SAME * _magnitude(output):
            raise ProfilingError(
                "example: the model draws random numbers, so its output cannot be checked: "
                "pass the noise as a further input, example=(images, noise)"
            )
    return first


def _outputs(run: Callable[..., Any], args: tuple[Tensor, ...]) -> list[Tensor]:
    """Run on copies, since the first layer may work in place; return copies on the CPU."""
    with torch.inference_mode():
        outputs = run(*(arg.clone() for arg in args))
        return [tensor.detach().cpu().clone() for tensor in tensors_in(outputs)]
