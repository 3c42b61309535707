"""Predict the latency of a network without building it, from the times of its operations.

The predicted quantity is the ratio to `original`. A whole pass takes slightly longer than the sum
of its operations (Python, freeing of memory). Therefore the ratio is a weighted sum of two terms,
the sum of the operations' times and the number of launches, fitted to whole networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from nas.operation import Operation, OperationGroup
from nas.predict.calibration import Calibration, Measurement, Role, Setting, extend
from nas.predict.cost_model import Floats, OperationTimes
from nas.predict.linear_times import LinearTimes
from nas.predict.operations import operation_groups, operations, require_listed
from profiling.progress import Progress
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.sizes import size_in_words

if TYPE_CHECKING:
    from profiling.target.client import KnownTarget
    from search_spaces.space import SearchSpace

ENOUGH: Mapping[Role, int] = {"fitted": 30, "held_out": 20}
"""Minimum number of measurements of each role."""

_SAFE = 0.99  # quantile of the prediction errors that `margin` is


@dataclass(frozen=True)
class Vectorised:
    """Architectures as arrays of the numbers of their operations.

    Attributes:
        operations: `(k,)`, the numbers of the operations of all architectures, in order.
        starts: `(n,)`, position of the first operation of each architecture.
        launches: `(n,)`, launches of each architecture.
    """

    operations: NDArray[np.int64]
    starts: NDArray[np.int64]
    launches: Floats

    def __len__(self) -> int:
        return len(self.starts)


class LatencyPredictor:
    """Predicts latencies for the setting of a calibration.

    Attributes:
        calibration: The measurements it was fitted to, and those held out.
        original_ms: Latency of `original` in ms, the median over the calibration.

    Raises:
        UserError: there are too few measurements of a role.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration, self.setting = calibration, calibration.setting
        for role, least in ENOUGH.items():
            if (count := len(calibration.of(role))) < least:
                raise UserError(
                    f"latency predictor for {self.setting.words}: {count} architectures "
                    f"{role.replace('_', ' ')}, at least {least} are needed; "
                    f"continue with: {self.setting.remedy}"
                )
        self.original_ms = float(np.median([m.original_ms for m in calibration.measurements]))
        self._numbers: dict[Operation, int] = {}
        self._known: list[Operation] = []
        self._groups: dict[OperationGroup, list[int]] = {}
        self._times: Floats = np.zeros(0)
        fitted = uncontended(calibration.of("fitted"))
        ratios = np.array([m.undisturbed_ratio for m in fitted])
        self._operation_times = self._fitted(fitted, ratios)
        self._weights = np.ones(2)
        self._weights = _weigh(self._terms(self.vectorise(_architectures(fitted))), ratios)

    def _fitted(
        self, measurements: Sequence[Measurement], ratios: Floats
    ) -> OperationTimes | LinearTimes:
        """Return a model of the times of operations, fitted to operations or to whole models."""
        part, batch = self.setting.part, self.setting.batch
        each = [operations(m.architecture, part) for m in measurements]
        if not self.setting.by_operation:
            return LinearTimes.fit(each, ratios, batch)
        times = np.array([ratio for m in measurements for ratio in m.operations])
        return OperationTimes.fit([one for found in each for one in found], times, batch)

    @classmethod
    def load(cls, setting: Setting, known: KnownTarget | None = None) -> Self | None:
        """Return the predictor calibrated in this environment; None if there is no calibration.

        Allocator settings are part of the environment, so `tune_allocator` must be called before.

        Args:
            setting: What it predicts for.
            known: The target of the setting; None where it has none.

        Raises:
            UserError: the calibration is unfinished, or was made in another environment; the
                message lists the differences.
        """
        calibration = Calibration.here(setting, known)
        if calibration.measurements:
            return cls(calibration)
        if difference := Calibration.elsewhere(setting, known):
            raise UserError(
                f"latency predictor for {setting.words}: calibrated in another environment "
                f"({difference}); calibrate here with: {setting.remedy}"
            )
        return None

    @classmethod
    def calibrate(
        cls,
        setting: Setting,
        space: SearchSpace,
        fitted: int = 200,
        held_out: int = 100,
        seconds: float | None = None,
        progress: Progress | None = None,
        known: KnownTarget | None = None,
    ) -> Self:
        """Complete the calibration for `setting` and return the predictor.

        The arguments are those of `nas.predict.calibration.extend`, and of `load`.

        Raises:
            UserError: the file cannot be written, or `seconds` were too few.
        """
        import torch

        require_listed(space)
        from nas.predict.timed import ModelTimer, OperationTimer

        # A timer tunes the allocator, which the environment includes.
        timer: OperationTimer | ModelTimer
        if setting.by_operation:
            timer = OperationTimer(setting)
        else:
            timer = ModelTimer(setting, known or torch.device(setting.device))
        calibration = Calibration.here(setting, known)
        to_fit = None
        if not setting.by_operation:
            from nas.predict.design import informative

            timed = _architectures(calibration.of("fitted"))
            to_fit = informative(space, timed, setting.part, setting.batch)
        extend(
            calibration, space, fitted, held_out, seconds, progress, measure=timer, to_fit=to_fit
        )
        return cls(calibration)

    def vectorise(self, architectures: Iterable[Architecture]) -> Vectorised:
        """Convert architectures to arrays, for which a prediction takes microseconds each.

        Raises:
            UserError: an architecture is for images of another size, or has blocks of the user's
                own.
        """
        found, starts, launches = list[int](), list[int](), list[int]()
        for architecture in architectures:
            self._require_size(architecture)
            require_listed(architecture)
            starts.append(len(found))
            groups = operation_groups(architecture, self.setting.part)
            for group in groups:
                found.extend(self._numbers_of(group))
            launches.append(sum(group.launches for group in groups))
        return Vectorised(
            np.array(found, dtype=np.int64),
            np.array(starts, dtype=np.int64),
            np.array(launches, dtype=float),
        )

    def predict_ratio(self, architectures: Iterable[Architecture] | Vectorised) -> Floats:
        """Return predicted latencies over that of `original`, `(n,)`."""
        if not isinstance(architectures, Vectorised):
            architectures = self.vectorise(architectures)
        ratios: Floats = self._terms(architectures) @ self._weights
        return ratios

    def predict_ms(
        self, architectures: Iterable[Architecture] | Vectorised, original_ms: float | None = None
    ) -> Floats:
        """Return predicted latencies in ms, `(n,)`, where `original` takes `original_ms`."""
        return self.predict_ratio(architectures) * (original_ms or self.original_ms)

    def contributions(self, architecture: Architecture) -> dict[str, float]:
        """Return kind of operation -> share of an architecture's latency, largest first."""
        arrays, shares = self.vectorise([architecture]), dict[str, float]()
        (per_time, per_launch), times = self._weights, self._all_times()
        for number in arrays.operations:
            operation = self._known[number]
            spent = per_time * times[number] + per_launch * operation.launches
            shares[operation.kind] = shares.get(operation.kind, 0.0) + float(spent)
        total = sum(shares.values())
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        return {kind: spent / total for kind, spent in ordered}

    @cached_property
    def errors(self) -> Floats:
        """Predicted over measured ratio of the architectures held out, in ascending order."""
        held_out = uncontended(self.calibration.of("held_out"))
        predicted = self.predict_ratio(_architectures(held_out))
        return np.sort(predicted / np.array([m.ratio for m in held_out]))

    @property
    def margin(self) -> float:
        """The 99 % quantile of predicted over measured ratio, at least 1.

        A candidate whose prediction exceeds a limit by more than this factor may be rejected
        without a measurement.
        """
        return max(1.0, float(np.quantile(self.errors, _SAFE)))

    def interval(self, predicted: float) -> tuple[float, float]:
        """Return the 95 % prediction interval (ratio or ms), from the errors held out."""
        high, low = np.quantile(self.errors, (0.025, 0.975))
        return predicted / float(low), predicted / float(high)

    def _numbers_of(self, group: OperationGroup) -> list[int]:
        if (found := self._groups.get(group)) is None:
            for operation in group.operations:
                if operation not in self._numbers:
                    self._numbers[operation] = len(self._known)
                    self._known.append(operation)
            found = self._groups[group] = [
                self._numbers[operation] for operation in group.operations
            ]
        return found

    def _require_size(self, architecture: Architecture) -> None:
        if architecture.image_size != self.setting.image_size:
            other = replace(self.setting, image_size=architecture.image_size)
            raise UserError(
                f"latency predictor for {self.setting.words}: an architecture is for "
                f"{size_in_words(architecture.image_size)} pixels; calibrate with: {other.remedy}"
            )

    def _terms(self, arrays: Vectorised) -> Floats:
        """Return the two terms, sum of operation times and launches, `(n, 2)`."""
        if not len(arrays):
            return np.zeros((0, 2))
        times = np.add.reduceat(self._all_times()[arrays.operations], arrays.starts)
        return np.column_stack([times, arrays.launches])

    def _all_times(self) -> Floats:
        """Return the time of every known operation; each is predicted once."""
        if len(self._times) < len(self._known):
            new = self._operation_times(self._known[len(self._times) :])
            self._times = np.concatenate([self._times, new])
        return self._times


def uncontended(measurements: Sequence[Measurement]) -> Sequence[Measurement]:
    """Return the measurements without contention, or all if these are less than half."""
    found = [measurement for measurement in measurements if not measurement.contended]
    return found if 2 * len(found) >= len(measurements) else measurements


def _architectures(measurements: Iterable[Measurement]) -> list[Architecture]:
    return [measurement.architecture for measurement in measurements]


def _weigh(terms: Floats, ratios: Floats) -> Floats:
    """Fit weights >= 0 of the terms, `(n, k)`, by least squares of the relative error."""
    from scipy.optimize import nnls

    weights, _ = nnls(terms / ratios[:, None], np.ones(len(ratios)))
    return np.asarray(weights)
