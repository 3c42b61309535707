"""The measurements that a latency predictor is fitted to: operations timed inside real models.

In other set-ups than eager PyTorch only whole models are timed (`nas.predict.linear_times`).

The time of an operation alone differs from its time in a model, where its input may still be in a
cache and its memory was used before. Operations are therefore timed where they are used: in
architectures drawn from a space, each in the same rounds as `original`. Times are stored as ratios
to it, because a machine changes its speed within minutes, but ratios hardly change. Other
architectures are held out: they are timed only as a whole and give the prediction errors.

Every measurement is appended to a file immediately, so that an interrupted calibration can be
resumed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field

from nas.datasets.cache import cache_directory
from profiling.files import write_whole
from profiling.progress import Progress
from search_spaces.architecture import Architecture
from search_spaces.axes import matches
from search_spaces.errors import UserError
from search_spaces.sizes import Size, sides, size_in_words

if TYPE_CHECKING:
    from nas.setups import SetUp
    from profiling.environment import Environment
    from profiling.target.client import KnownTarget
    from search_spaces.axes import Assignment
    from search_spaces.space import SearchSpace

Role = Literal["fitted", "held_out"]
Part = Literal["full", "encoder", "decoder"]
Pairs = tuple[tuple[float, float], ...]

_FORMAT = 4
"""Version of files and of how operations are measured: increase it when either changes."""
_PATIENCE = 1000  # consecutive draws of known architectures after which the space is exhausted


@dataclass(frozen=True)
class Setting:
    """The conditions of a calibration; `device` as torch writes it, `image_size` in pixels.

    The other fields are those of `nas.setups.SetUp`.
    """

    device: str = "cpu"
    threads: int = 1
    batch: int = 1
    image_size: Size = 144
    backend: str = "eager"
    precision: str = "float32"
    part: Part = "full"
    target: str | None = None

    @classmethod
    def of(cls, setup: SetUp, device: str, image_size: Size) -> Self:
        """Return the setting of a set-up; the device of a target is its CPU."""
        what = setup.backend, setup.precision, setup.part, setup.target
        place = "cpu" if setup.target else device
        return cls(place, setup.threads, setup.batch, image_size, *what)

    @property
    def by_operation(self) -> bool:
        """Whether operations can be timed one by one: in whole models in eager PyTorch, float32."""
        return not self.further

    @property
    def further(self) -> dict[str, str]:
        """The fields in which it differs from eager PyTorch on this machine."""
        usual = {"backend": "eager", "precision": "float32", "part": "full", "target": None}
        found = {name: getattr(self, name) for name in usual}
        return {name: value for name, value in found.items() if value != usual[name]}

    @property
    def words(self) -> str:
        """The setting in one line."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        pixels = f"{size_in_words(self.image_size)} pixels"
        plain = f"{self.device}, {threads}, batch {self.batch}, {pixels}"
        return ", ".join([plain, *self.further.values()])

    @property
    def remedy(self) -> str:
        """The command that calibrates for this setting."""
        deep = {64: "wide", 32: "paper"}  # the space whose deepest members still fit
        name = next((deep[size] for size in deep if size <= min(sides(self.image_size))), "SPACE")
        options = f"--space {name}@{size_in_words(self.image_size)} --device {self.device}"
        further = "".join(f" --{name} {value}" for name, value in self.further.items())
        counts = f"--threads {self.threads} --batch {self.batch}"
        return f"nas profile calibrate {options} {counts}{further}"


_Ms = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Times = tuple[tuple[_Ms, Annotated[_Ms, Field(gt=0)]], ...]


class _Line(BaseModel):
    """A measurement as a file has it, validated: `Measurement` explains the fields."""

    architecture: Architecture
    role: Role
    samples_ms: Annotated[_Times, Field(min_length=1)]
    cpu_ms: _Times
    contended: Annotated[bool, Field(strict=True)]
    operations: tuple[_Ms, ...]


@dataclass(frozen=True)
class Measurement:
    """One architecture, timed in the same rounds as `original`.

    Attributes:
        architecture: The architecture.
        role: Whether the predictor is fitted to it, or it is held out.
        samples_ms: A pair of wall times (architecture, `original`) for each round.
        cpu_ms: The CPU times of the same passes; empty unless one thread does all the work.
        contended: Whether other work disturbed the measurement.
        operations: For each of `nas.predict.operations.operations` the median over rounds of its
            time over that of the whole pass of `original`; empty for architectures held out, and
            where operations cannot be timed.
    """

    architecture: Architecture
    role: Role
    samples_ms: Pairs
    cpu_ms: Pairs = ()
    contended: bool = False
    operations: tuple[float, ...] = ()

    @cached_property
    def ratio(self) -> float:
        """Latency over that of `original`: the median over rounds."""
        return _ratio(self.samples_ms)

    @cached_property
    def undisturbed_ratio(self) -> float:
        """The same ratio from CPU times where these are known: without waiting for a busy core.

        Without contention both ratios are equal.
        """
        return _ratio(self.cpu_ms or self.samples_ms)

    @cached_property
    def original_ms(self) -> float:
        """Median latency of `original` in the same rounds, from CPU times where these are known."""
        return median(original for _, original in self.cpu_ms or self.samples_ms)

    def to_json(self) -> str:
        """Return the measurement as one line of JSON."""
        fields = {name: getattr(self, name) for name in ("role", "contended")}
        fields["samples_ms"] = [[round(ms, 4) for ms in pair] for pair in self.samples_ms]
        fields["cpu_ms"] = [[round(ms, 4) for ms in pair] for pair in self.cpu_ms]
        fields["operations"] = [float(f"{ratio:.4g}") for ratio in self.operations]
        return json.dumps({"architecture": self.architecture.to_dict(), **fields})

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the measurement of a line that `to_json` wrote.

        Raises:
            ValueError: the line is something else.
        """
        read = _Line.model_validate_json(line)
        return cls(**{name: getattr(read, name) for name in _Line.model_fields})


@dataclass
class Calibration:
    """The measurements of one setting in one environment, and their file."""

    setting: Setting
    environment: Environment
    path: Path
    measurements: list[Measurement] = field(default_factory=list)

    def of(self, role: Role) -> list[Measurement]:
        """Return the measurements of one role."""
        return [measurement for measurement in self.measurements if measurement.role == role]

    @property
    def digest(self) -> str:
        """Digest of the fitted measurements: equal digests mean equal predictions."""
        lines = [measurement.to_json() for measurement in self.of("fitted")]
        return sha256("\n".join(lines).encode()).hexdigest()[:12]

    @classmethod
    def here(cls, setting: Setting, known: KnownTarget | None = None) -> Calibration:
        """Return the calibration of this environment, or of a target's; it may be empty.

        Args:
            setting: The setting.
            known: The target of the setting; None where it has none.

        Raises:
            UserError: its file cannot be read.
        """
        environment = _environment(setting, known)
        path = _folder() / f"{_stem(setting)}-{_digest(environment)}.jsonl"
        found = cls(setting, environment, path)
        if path.is_file():
            found.measurements = list(_read(path))
        return found

    @staticmethod
    def elsewhere(setting: Setting, known: KnownTarget | None = None) -> str | None:
        """Return how this environment differs from the last one calibrated for `setting`.

        The arguments are those of `here`.
        """
        from profiling.environment import Environment, differences

        named = re.compile(rf"{re.escape(_stem(setting))}-[0-9a-f]+\.jsonl")  # no further set-up
        found = (path for path in _folder().glob("*.jsonl") if named.fullmatch(path.name))
        paths = sorted(found, key=_modified)
        if not paths:
            return None
        try:
            with paths[-1].open(encoding="utf-8") as file:
                there = Environment.model_validate(json.loads(file.readline())["environment"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None  # of another version, damaged, or an unfinished header
        return "; ".join(differences(there, _environment(setting, known)))

    def append(self, measurement: Measurement) -> None:
        """Add a measurement and append it to the file.

        Raises:
            UserError: the file cannot be written.
        """
        self.measurements.append(measurement)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists() or not self.path.stat().st_size
            with self.path.open("a", encoding="utf-8") as file:
                if new:
                    file.write(json.dumps(self._header()) + "\n")
                file.write(measurement.to_json() + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); set NAS_CACHE_DIR to a folder "
                "that you may write to"
            ) from None

    def _header(self) -> dict[str, Any]:
        environment = self.environment.model_dump(mode="json")
        return {"format": _FORMAT, "setting": asdict(self.setting), "environment": environment}


def extend(
    calibration: Calibration,
    space: SearchSpace,
    fitted: int,
    held_out: int,
    seconds: float | None = None,
    progress: Progress | None = None,
    *,
    measure: Callable[[Architecture, Role], Measurement | None],
    to_fit: Iterator[Architecture] | None = None,
) -> None:
    """Measure architectures of a space until there are enough of both roles.

    The roles alternate, so that a calibration that is stopped early has measurements of both.

    Args:
        calibration: Where measurements are added; those it has already count.
        space: The search space.
        fitted: Number of architectures to fit to.
        held_out: Number of architectures held out.
        seconds: Time after which no further measurement starts.
        progress: Called with (done, total) after each architecture.
        measure: Such as `nas.predict.timed.OperationTimer`; it returns None for an architecture
            that cannot be run.
        to_fit: Architectures to fit to, the first ones first. Without it these are drawn from the
            space, as those held out are.

    Raises:
        UserError: the calibration's file cannot be written.
    """
    wanted: dict[Role, int] = {"fitted": fitted, "held_out": held_out}
    known = {measurement.architecture.digest for measurement in calibration.measurements}
    draws, start = drawn(space), time.monotonic()
    sources: dict[Role, Iterator[Architecture]] = {"fitted": to_fit or draws, "held_out": draws}
    while role := _due(wanted, calibration):
        architecture = next(sources[role], None)
        if architecture is None or (seconds is not None and time.monotonic() - start > seconds):
            return
        if architecture.digest in known:
            continue
        known.add(architecture.digest)
        found = measure(architecture, role)
        if found is None:
            continue
        calibration.append(found)
        if progress:
            done = {role: min(len(calibration.of(role)), wanted[role]) for role in wanted}
            progress(sum(done.values()), sum(wanted.values()))


def drawn(space: SearchSpace, seed: int = 1) -> Iterator[Architecture]:
    """Yield distinct architectures with uniformly drawn axes, until no new one is found.

    Draws are not uniform over architectures, because nearly all of these have the maximum depth.
    """
    rng, seen, repeats = np.random.default_rng(seed), set[str](), 0
    while repeats < _PATIENCE:
        assignment: Assignment = {}
        for name, axis in space.axes.items():
            if matches(axis.when, assignment):
                assignment[name] = axis.choices[rng.integers(len(axis.choices))]
        repeats += 1
        if space.problem(assignment) is None:
            architecture = space.architecture(assignment)
            if architecture.digest not in seen:
                seen.add(architecture.digest)
                repeats = 0
                yield architecture


def _ratio(pairs: Pairs) -> float:
    return median(own / original for own, original in pairs)


def _due(wanted: dict[Role, int], calibration: Calibration) -> Role | None:
    """Return the role with the smallest share of its wanted number; None if both are complete."""
    shares = {
        role: len(calibration.of(role)) / count for role, count in wanted.items() if count > 0
    }
    role = min(shares, key=shares.__getitem__)
    return role if shares[role] < 1 else None


def _read(path: Path) -> Iterable[Measurement]:
    """Return the measurements of a file; an incomplete last line is removed."""
    try:
        text = path.read_text(encoding="utf-8")
        header, *lines = text[: text.rfind("\n") + 1].splitlines() or [_empty_header(text)]
        if json.loads(header)["format"] != _FORMAT:
            raise ValueError(header)
        found = [Measurement.from_json(line) for line in lines]
        if not text.endswith("\n"):
            write_whole(path, text[: text.rfind("\n") + 1].encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(
            f"{path}: not a calibration of this version; move the file away and calibrate again"
        ) from None
    return found


def _empty_header(text: str) -> str:
    """Return a header for a file that was cut within its own; raise `ValueError` for another."""
    header = json.dumps({"format": _FORMAT})
    if not header[:-1].startswith(text[: len(header) - 1]):
        raise ValueError(text)
    return header


def _environment(setting: Setting, known: KnownTarget | None = None) -> Environment:
    from nas.setups import SetUp
    from profiling.environment import fingerprint, threads

    if known is not None:
        return known.facts.environment(setting.threads)
    with threads(setting.threads):
        runtime = SetUp(backend=setting.backend).runtime
        return fingerprint(setting.device).model_copy(update={"runtime": runtime})


def _folder() -> Path:
    return cache_directory() / "predictors"


def _stem(setting: Setting) -> str:
    device = re.sub(r"\W", "-", setting.device)
    pixels = size_in_words(setting.image_size)
    plain = f"{device}-{setting.threads}threads-batch{setting.batch}-{pixels}px"
    return "-".join([plain, *setting.further.values()])


def _digest(environment: Environment) -> str:
    return sha256(f"{_FORMAT} {environment.model_dump_json()}".encode()).hexdigest()[:12]


def _modified(path: Path) -> float:
    return path.stat().st_mtime
