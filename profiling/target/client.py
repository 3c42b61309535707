"""Time ONNX models on a target, as `profiling.latency` times models on this machine.

A measurement whose connection breaks begins again with its first round when the target is back, so
no result has samples of two connections.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from typing import Self, TypeVar

from profiling.environment import Environment
from profiling.errors import ProfilingError
from profiling.latency import Latency, LatencyConfig, precise
from profiling.progress import Progress
from profiling.target.addresses import Address
from profiling.target.agent import SILENCE_S
from profiling.target.answers import Facts, validated
from profiling.target.channel import Channel
from profiling.target.errors import (
    ModelRefusedError,
    TargetChangedError,
    TargetLostError,
)
from profiling.target.measurement import MATMUL, Array, Arrays, Enough, Measurement, Note, run_once
from profiling.target.requirements import require_packages

_Result = TypeVar("_Result")

MOST_BREAKS = 5
"""A call is given up when this many connections broke during it."""

PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses before the next attempts to connect; the last one is repeated."""


@dataclass(frozen=True)
class KnownTarget:
    """A target that could be used, and what it was like then."""

    address: Address
    facts: Facts


def reach(address: Address) -> KnownTarget:
    """Connect to a target, check that models can be timed there, and return what it is like.

    Raises:
        TargetLostError: it cannot be reached at present.
        TargetError: it cannot be used.
    """
    with connect(address) as target:
        return KnownTarget(address, target.facts())


def connect(address: Address, note: Note = lambda line: None) -> Target:
    """Connect to a target and check that models can be timed there, without waiting for it.

    Raises:
        TargetLostError: it cannot be reached at present.
        TargetError: it cannot be used.
    """
    target = Target(address, note, patience_s=0)
    try:
        require_packages(address, target.facts())
    except BaseException:
        target.close()
        raise
    target.patience_s = None
    return target


class Target:
    """A machine on which models are timed. It connects at the first use.

    Args:
        address: How it is reached.
        note: Called with one line when the target cannot be reached, is busy, or is back.
        patience_s: Seconds for which one call waits for an unreachable target; None waits without
            a limit, 0 not at all.
        silence_s: Seconds without any byte after which either side gives the connection up.
        facts: The properties that it must have; None takes those at the first connection.

    Attributes:
        waited_s: Seconds spent waiting until it was reached again, or for its lane.

    Every method that connects raises:
        TargetLostError: the target was not back within `patience_s`.
        TargetChangedError: its processor, system, runtime or clock is not that of `facts`, or of
            the first connection.
        TargetError: it cannot be used for another reason.
    """

    def __init__(
        self,
        address: Address,
        note: Note = lambda line: None,
        patience_s: float | None = None,
        silence_s: float = SILENCE_S,
        facts: Facts | None = None,
    ) -> None:
        self._address, self._note, self._facts = address, note, facts
        self.patience_s, self._silence_s, self.waited_s = patience_s, silence_s, 0.0
        self._channel: Channel | None = None
        self._was_busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next call connects again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def facts(self) -> Facts:
        """Return the properties of the target at the begin of the connection."""
        return self._patiently(lambda channel, facts: facts)

    def environment(self, threads: int = 1) -> Environment:
        """Return the environment of the target's measurements."""
        return self.facts().environment(threads)

    def measure_latency(
        self,
        models: Mapping[str, bytes],
        batches: Sequence[Arrays] | Mapping[str, Sequence[Arrays]],
        config: LatencyConfig | None = None,
        *,
        enough: Enough | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Latency]:
        """Time ONNX models in interleaved rounds on the target, while its lane is held.

        Args:
            models: Name -> content of an ONNX file. Each name gets a session of its own; equal
                contents are sent once.
            batches: The arguments of successive passes, in the order of the models' inputs, for all
                models or for each by name. Each pass of a model takes the next ones, and starts
                again at the end.
            config: Settings; `batch` is not used.
            enough: Name -> times in ms; returns whether rounds may end (default: every median is
                precise).
            progress: Called with (done, total) after each round.

        Raises:
            ProfilingError: there is no model, or no batch.
            ModelRefusedError: the target cannot run one of the models.
            TargetError: as above, or the target lacks a package.
        """
        each = batches if isinstance(batches, Mapping) else dict.fromkeys(models, batches)
        if not models or not all(each.get(name) and each[name][0] for name in models):
            raise ProfilingError("models: give at least one model, and one batch of arguments")
        config = config or LatencyConfig()
        enough = enough or partial(precise, half_width=config.half_width)
        return self._measured(Measurement(models, each, config, enough, progress))

    def outputs(self, model: bytes, arguments: Arrays, threads: int = 1) -> list[Array]:
        """Return the outputs of an ONNX model on the target, to compare them with others."""

        def run(channel: Channel, facts: Facts) -> list[Array]:
            require_packages(self._address, facts)
            return run_once(channel, model, arguments, threads)

        return self._patiently(run)

    def quiet(self, seconds: float = 3.0) -> Latency:
        """Time a product of matrices, to find out how quiet the target is; it needs numpy only."""
        config = LatencyConfig(max_s=seconds)
        return self._measured(Measurement({}, {}, config, lambda walls: False))[MATMUL]

    def _measured(self, measurement: Measurement) -> dict[str, Latency]:
        def measure(channel: Channel, facts: Facts) -> dict[str, Latency]:
            require_packages(self._address, facts, runtime=bool(measurement.models))
            taken, waited_s = measurement.run(channel, facts, self._note_busy)
            self.waited_s += waited_s
            return taken

        return self._patiently(measure)

    def _patiently(self, call: Callable[[Channel, Facts], _Result]) -> _Result:
        """Call a function with the connection, again and again while the target is lost."""
        waiting, breaks = _Waiting(self._note, self.patience_s), 0
        while True:
            try:
                channel, facts = self._connected()
                self.waited_s += waiting.end(f"{self._address.name}: is reached again")
                return call(channel, facts)
            except TargetLostError as lost:
                breaks += self._channel is not None
                self.close()
                if breaks == MOST_BREAKS:
                    raise ModelRefusedError(
                        f"{lost}; given up after {breaks} times: the target may lack memory"
                    ) from None
                waiting.pause(lost)
            except BaseException:
                self.close()  # further answers may be on their way
                raise

    def _note_busy(self, line: str) -> None:
        """Say once that others measure there: it may happen for every measurement of a study."""
        if not self._was_busy:
            self._note(line)
        self._was_busy = True

    def _connected(self) -> tuple[Channel, Facts]:
        if self._channel is None or self._facts is None:
            self._channel = Channel(self._address, self._facts is not None, self._silence_s)
            header, _ = self._channel.call({"do": "hello", "silence_s": self._silence_s})
            facts = validated(self._address.name, Facts, header.get("facts"))
            self._compare(facts, self._facts or facts)
            self._facts = facts
        return self._channel, self._facts

    def _compare(self, facts: Facts, before: Facts) -> None:
        """Check that the target is as it was at the last connection."""
        name = self._address.name
        if changes := facts.changes(before):
            raise TargetChangedError(
                f"{name}: has changed since the last connection ({'; '.join(changes)}), so "
                "latencies cannot be compared: undo the change, or begin another study"
            )
        if facts.boot != before.boot:
            self._note(f"{name}: was started anew meanwhile")


class _Waiting:
    """Pauses between attempts to connect, and what is said about them."""

    def __init__(self, note: Note, patience_s: float | None) -> None:
        self._note, self._patience_s = note, patience_s
        self._waited_s, self._said, self._since = 0.0, "", 0.0
        self._pauses = self._fresh()

    def pause(self, lost: TargetLostError) -> None:
        """Wait before the next attempt, or raise the fault when patience ends."""
        pause_s = next(self._pauses)
        if self._patience_s is not None and self._waited_s + pause_s > self._patience_s:
            raise lost
        if not self._said:
            self._since = monotonic()
        if str(lost) != self._said:
            self._said = str(lost)
            self._note(f"{lost}; waiting for it")
        sleep(pause_s)
        self._waited_s += pause_s

    def end(self, words: str) -> float:
        """Say that waiting has ended, if there was any, and return for how many seconds."""
        if not self._said:
            return 0.0
        self._note(words)
        self._said, self._pauses = "", self._fresh()
        return monotonic() - self._since

    def _fresh(self) -> itertools.chain[float]:
        return itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))
