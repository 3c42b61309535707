"""An axis as an Optuna parameter, which keeps order and distance of numbers for samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.axes import Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Parameter:
    """An Optuna parameter: an integer range of values or of their logarithms, or a category.

    Attributes:
        name: Name in the Optuna study.
        choices: The choices of the axis.
        span: (low, high, step) of the integers in the Optuna study; None for a category.
        log2: Whether Optuna stores the binary logarithm of a choice.
    """

    name: str
    choices: tuple[Scalar, ...]
    span: tuple[int, int, int] | None = None
    log2: bool = False

    @classmethod
    def of(cls, axis: str, choices: tuple[Scalar, ...]) -> Parameter:
        """Return a range for evenly spaced integers or exponents of two, else a category."""
        numbers = sorted(value for value in choices if type(value) is int)
        if len(numbers) == len(choices):
            if span := _span(numbers):
                return cls(axis, choices, span)
            if all(number > 0 and number.bit_count() == 1 for number in numbers) and (
                span := _span([number.bit_length() - 1 for number in numbers])
            ):
                return cls(f"log2({axis})", choices, span, log2=True)
        return cls(axis, choices)

    def suggest(self, trial: Any) -> Scalar:
        """Return the choice that `trial` suggests, an `optuna.trial.Trial` or its equal."""
        if self.span is None:
            return self.decode(trial.suggest_categorical(self.name, self.choices))
        low, high, step = self.span
        return self.decode(trial.suggest_int(self.name, low, high, step=step))

    def encode(self, value: Scalar) -> Scalar:
        """Return the value that Optuna stores for a choice."""
        return value.bit_length() - 1 if self.log2 and isinstance(value, int) else value

    def decode(self, stored: Scalar) -> Scalar:
        """Return the choice of a value that Optuna stores."""
        return 2**stored if self.log2 and isinstance(stored, int) else stored

    def distribution(self) -> BaseDistribution:
        """Return the Optuna distribution that `suggest` draws from."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.span is None:
            return CategoricalDistribution(self.choices)
        low, high, step = self.span
        return IntDistribution(low, high, step=step)


def _span(numbers: Sequence[int]) -> tuple[int, int, int] | None:
    low, high = numbers[0], numbers[-1]
    step = numbers[1] - low if len(numbers) > 1 else 1
    return (low, high, step) if list(range(low, high + 1, step)) == list(numbers) else None
