"""A study's configuration: its sections, their defaults and their validation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from nas.datasets import DataConfig
from nas.objectives import (
    DEFAULT_OBJECTIVES,
    OBJECTIVES,
    Objective,
    is_own,
    measures_latency,
    select_objectives,
    set_up_of,
    trained_objectives,
)
from nas.own.blocks import find_block
from nas.own.imports import source_digest
from nas.own.objectives import find_objective
from nas.search.early_stopping import EarlyStopping
from nas.search.focus import Focus
from nas.search.samplers import SAMPLERS
from nas.setups import SetUp, completed
from nas.training import TrainingConfig
from search_spaces.errors import UserError, nearest
from search_spaces.numbers import MOST, Count, Number, Seed
from search_spaces.reader import without_objects
from search_spaces.space import SPACES, SearchSpace
from studies.config.trial_limits import TrialLimits
from studies.record.names import NAME_RULE, is_name
from studies.storage.addresses import masked


def _is_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(NAME_RULE)
    return text


Name = Annotated[str, AfterValidator(_is_name)]


LEAST_MEMORY_BYTES = 600_000_000
"""Memory of a worker before it trains, in bytes: no trial can run with less."""

MOST_MEMORY_BYTES = 10**18
"""Largest memory limit in bytes; no machine has as much."""

_UNITS_S = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Parse `90`, `90s`, `30m`, `1.5 h` as seconds; return other values unchanged."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", value) if isinstance(value, str) else None
    if found is None or found[2] not in _UNITS_S:
        return value
    try:
        return float(found[1]) * _UNITS_S[found[2]]
    except ValueError:
        return value


def _size(value: object) -> object:
    """Refuse texts that `ByteSize` cannot convert or misreads."""
    if isinstance(value, str) and not re.fullmatch(
        r"\s*[0-9]{1,18}(\.[0-9]{1,18})?\s*[A-Za-z]*\s*", value
    ):
        raise ValueError("write an amount of memory, such as 4GB or 1500MB")
    return value


def _enough(count: int) -> int:
    if count < LEAST_MEMORY_BYTES:
        raise ValueError(f"a worker needs {LEAST_MEMORY_BYTES // 10**6} MB before it trains")
    if count > MOST_MEMORY_BYTES:
        raise ValueError(f"at most {MOST_MEMORY_BYTES // 10**15} PB")
    return count


Seconds = Annotated[Number, BeforeValidator(_seconds), Field(gt=0, le=MOST)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EarlyStoppingConfig(_Config):
    """Settings of early stopping: see `nas.search.early_stopping.EarlyStopping`."""

    eta: Annotated[Count, Field(ge=2)] = 3
    rungs: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    grace: Count | None = None
    extrapolate: bool = False


class SearchConfig(_Config):
    """How candidates are proposed.

    Attributes:
        sampler: Name of the sampler.
        trials: Number of architectures to evaluate, besides the two references.
        seed: Seed of the sampler.
        early_stopping: Settings of early stopping; None trains every candidate to the end.
        focus: The part of the front that the sampler `pareto` searches for: low losses, both ends
            or low costs.
        warm_start: Name of an earlier study of the same space and data, with at least these
            objectives, from which the sampler `pareto` learns.
    """

    sampler: str = "pareto"
    trials: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 50
    seed: Seed = 0
    early_stopping: EarlyStoppingConfig | None = None
    focus: Focus = "balanced"
    warm_start: Name | None = None

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(f"not one of {', '.join(SAMPLERS)}{nearest(name, SAMPLERS)}")
        return name

    @model_validator(mode="after")
    def _focus_needs_pareto(self) -> Self:
        if self.focus != "balanced" and self.sampler != "pareto":
            raise ValueError(
                f"focus: the sampler {self.sampler} has none; choose sampler pareto, or focus "
                "balanced"
            )
        return self

    @model_validator(mode="after")
    def _warm_start_needs_pareto(self) -> Self:
        if self.warm_start and self.sampler != "pareto":
            raise ValueError(
                f"warm_start: the sampler {self.sampler} cannot use an earlier study; "
                "choose sampler pareto"
            )
        return self


def _above_zero(count: object) -> object:
    if count == 0 and not isinstance(count, bool):
        raise ValueError("must be 1 or more; to confirm nothing, write confirmation: null")
    return count


class ConfirmationConfig(_Config):
    """How the best models are trained again at the end: see `studies.confirm.plan.Plan`.

    Attributes:
        seeds: Largest number of trainings of each model that count, each with its own seed: of a
            candidate further ones, of a reference that of the search too.
        top: Largest number of models to confirm, besides the references.
    """

    seeds: Annotated[Count, BeforeValidator(_above_zero), Field(le=1000)] = 3
    top: Annotated[Count, BeforeValidator(_above_zero), Field(le=10_000)] = 6


class RayConfig(_Config):
    """Settings of `runner: ray`: see docs/cluster.md.

    Attributes:
        address: Address of a running cluster: HOST:PORT, or `auto` on one of its nodes. None starts
            a cluster on this machine only.
        cpus_per_trial: CPUs of one trial.
        gpus_per_trial: GPUs of one trial; 0.5 puts two trials on one GPU.
        memory_gb_per_trial: Memory of one trial in GB; None takes the estimate for training the
            larger reference.
        storage_path: A folder or URI that every node can reach; None is the study's folder.
        dashboard: Whether a cluster that is started here has Ray's dashboard.
    """

    address: Annotated[str, Field(min_length=1)] | None = None
    cpus_per_trial: Annotated[Number, Field(gt=0, le=1024)] = 1
    gpus_per_trial: Annotated[Number, Field(ge=0, le=64)] = 0
    memory_gb_per_trial: Annotated[Number, Field(gt=0, le=1e6)] | None = None
    storage_path: Annotated[str, Field(min_length=1)] | None = None
    dashboard: bool = False

    @model_validator(mode="before")
    @classmethod
    def _refuse_passwords(cls, section: Any) -> Any:
        """Refuse addresses with a password before an error on a key could show its value."""
        for key, value in section.items() if isinstance(section, Mapping) else ():
            if isinstance(value, str) and masked(value) != value:
                raise ValueError(f"{key}: must have no password, which would be stored")
        return section

    @field_validator("address")
    @classmethod
    def _refuse_ray_client(cls, address: str | None) -> str | None:
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                "a Ray client cannot drive a search; run the command on a node of the cluster and "
                "give HOST:PORT, or auto"
            )
        return address

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _whole_number_above_one(cls, count: float) -> float:
        if count > 1 and count != int(count):
            raise ValueError("must be a whole number where it is above 1")
        return count

    @field_validator("storage_path")
    @classmethod
    def _absolute_path_or_uri(cls, path: str | None) -> str | None:
        if path is not None and "://" not in path and not Path(path).is_absolute():
            raise ValueError("must be an absolute path or a URI, which every node can find")
        return path


def _declare_own(names: Iterable[str]) -> None:
    """Import the objectives of the user's own, so that their definitions are known.

    Raises:
        UserError: one of them cannot be imported, or is no objective.
    """
    for name in names:
        if is_own(name):
            find_objective(name)


def _space(space: str | Mapping[str, Any]) -> SearchSpace:
    if isinstance(space, str):
        return SearchSpace.load(space)
    return SearchSpace.from_dict(space, "its description")


_SETUP_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
"""Names of set-ups are parts of the names of objectives, columns and files."""


class StudyConfig(_Config):
    """Everything that determines a study's result, except the machine that runs it.

    Attributes:
        name: The study's name, which is also that of its folder.
        description: A text for people.
        space: Name or YAML file of the search space, or its description.
        data: The images.
        objectives: Names of the objectives, or import strings of those of one's own
            (`nas.own.objectives`).
        limits: The largest value of an objective that is still worth training, by name.
        training: The training protocol, equal for every candidate.
        latency: What is timed, and how: the first set-up, in which `latency_ms` is measured.
        setups: Further set-ups by name, each with the settings in which it differs from `latency`.
            `latency_ms:NAME` is an objective or a limit, or is only recorded.
        search: How candidates are proposed.
        confirmation: How the best models are confirmed at the end; None confirms none.
        device: Device of trainings and measurements.
        workers: Number of worker processes; None chooses it by cores, memory and device.
        threads: Threads of each training; None divides the cores among the workers. Latency
            measurements have their own setting.
        trial_timeout_s: Time limit of one trial in seconds (also `30m`, `2h`). A trial that exceeds
            it is ended and has failed; None sets no limit.
        trial_memory_bytes: Memory limit of one trial in bytes (also `4GB`), likewise.
        runner: `local` evaluates on this machine, `ray` as trials of Ray Tune.
        ray: Settings of `runner: ray`.
    """

    name: Name
    description: str = ""
    space: str | Mapping[str, Any]
    data: DataConfig = DataConfig()
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    limits: Mapping[str, Annotated[Number, Field(gt=0)]] = {}
    training: TrainingConfig = TrainingConfig()
    latency: SetUp = SetUp()
    setups: Mapping[Annotated[str, Field(pattern=_SETUP_NAME)], SetUp] = {}
    search: SearchConfig = SearchConfig()
    confirmation: ConfirmationConfig | None = ConfirmationConfig()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[Count, Field(le=256)] | None = None
    threads: Annotated[Count, Field(le=1024)] | None = None
    trial_timeout_s: Seconds | None = None
    trial_memory_bytes: (
        Annotated[ByteSize, BeforeValidator(_size), AfterValidator(_enough)] | None
    ) = None
    runner: Literal["local", "ray"] = "local"
    ray: RayConfig = RayConfig()

    @model_validator(mode="before")
    @classmethod
    def _further_setups_differ_from_the_first(cls, given: Any) -> Any:
        """Give each further set-up the settings of `latency` that it does not name."""
        setups = given.get("setups") if isinstance(given, Mapping) else None
        first = given.get("latency", {}) if setups else {}
        if not isinstance(setups, Mapping) or not isinstance(first, Mapping):
            return given
        complete = {
            name: completed(first, one) if isinstance(one, Mapping) else one
            for name, one in setups.items()
        }
        return {**given, "setups": complete}

    @field_validator("space", mode="plain")
    @classmethod
    def _known_space(cls, space: object) -> str | Mapping[str, Any]:
        if not isinstance(space, str | Mapping):
            raise ValueError("give the name or the file of a search space, or its description")
        try:
            for block in _space(space).own_blocks:
                find_block(block)
        except UserError as error:
            raise ValueError("; ".join(str(error).splitlines())) from None
        described: str | Mapping[str, Any] = without_objects(space)
        return described

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            _declare_own(names)
            select_objectives(names)
        except UserError as error:
            raise ValueError(str(error).removeprefix("objectives: ")) from None
        return names

    @field_validator("confirmation", mode="before")
    @classmethod
    def _null_confirms_nothing(cls, section: object) -> object:
        if section is not None and not isinstance(section, Mapping | ConfirmationConfig):
            raise ValueError("write a section with keys, or confirmation: null to confirm nothing")
        return section

    @field_validator("limits")
    @classmethod
    def _known_limits(cls, limits: Mapping[str, float]) -> Mapping[str, float]:
        _declare_own(limits)
        own = [OBJECTIVES[name] for name in limits if is_own(name)]
        known = [
            o.name for o in (*OBJECTIVES.values(), *own) if o.cost != "training" and o.sign > 0
        ]
        for name in limits:
            if name not in known and not set_up_of(name):
                raise ValueError(
                    f"{name!r} cannot be limited before training; use one of {', '.join(known)}"
                    f"{nearest(name, known)}"
                )
        return limits

    @model_validator(mode="after")
    def _latencies_have_set_ups(self) -> Self:
        for name in self.wanted:
            if (setup := set_up_of(name)) and setup not in self.setups:
                named = ", ".join(self.setups) or "none"
                raise ValueError(
                    f"{name}: setups has no {setup!r}, but {named}{nearest(setup, self.setups)}; "
                    f"add one, such as setups.{setup}.backend: onnxruntime"
                )
        return self

    @model_validator(mode="after")
    def _int8_has_images(self) -> Self:
        for name, setup in self.all_setups.items():
            if setup.precision == "int8" and not self.trains:
                key = f"setups.{name}" if name else "latency"
                raise ValueError(
                    f"{key}.precision: int8 takes the ranges of values from training images, and a "
                    "study that trains nothing has none; add an objective such as "
                    "reconstruction_loss, or use bfloat16"
                )
        return self

    @model_validator(mode="after")
    def _rungs_within_epochs(self) -> Self:
        try:
            self.stopping_rule()
        except ValueError as error:
            raise ValueError(f"search.early_stopping: {error}") from None
        return self

    @model_validator(mode="after")
    def _early_stopping_needs_a_loss(self) -> Self:
        if self.stopping_rule() and trained_objectives(self.objectives)[0] == "kl":
            raise ValueError(
                "search.early_stopping: compares the first trained objective, and kl does not fall "
                "during a training; name another trained objective before kl, or do not stop early"
            )
        return self

    @model_validator(mode="after")
    def _weights_keep_objectives_apart(self) -> Self:
        without = {
            "kl_weight": ("total_loss", "reconstruction_loss"),
            "l1_weight": ("reconstruction_loss", "ssim"),
        }
        for weight, (one, other) in without.items():
            if {one, other} <= set(self.objectives) and not getattr(self.training, weight):
                raise ValueError(
                    f"objectives: {one} is a function of {other} where training.{weight} is 0; "
                    "choose one of them"
                )
        return self

    @model_validator(mode="after")
    def _cuda_on_ray_needs_gpus(self) -> Self:
        if self.runner == "ray" and self.device == "cuda" and not self.ray.gpus_per_trial:
            raise ValueError("device: cuda on Ray needs ray.gpus_per_trial above 0")
        return self

    @property
    def trial_limits(self) -> TrialLimits:
        """The limits of time and memory of one trial."""
        return TrialLimits(self.trial_timeout_s, self.trial_memory_bytes)

    @property
    def wanted(self) -> frozenset[str]:
        """Names of all values that each candidate needs: objectives and limited ones."""
        return frozenset({*self.objectives, *self.limits})

    @property
    def timed(self) -> bool:
        """Whether a latency is wanted, so that values depend on the machine."""
        own = any(is_own(name) and OBJECTIVES[name].cost == "device" for name in self.wanted)
        return self.measured or own or "predicted_latency_ms" in self.wanted

    @property
    def measured(self) -> bool:
        """Whether latencies are measured."""
        return measures_latency(self.wanted)

    @property
    def all_setups(self) -> dict[str, SetUp]:
        """The set-ups by name; "" is the first one."""
        return {"": self.latency, **self.setups}

    @property
    def trains(self) -> bool:
        """Whether an objective requires training."""
        return bool(trained_objectives(self.objectives))

    def stopping_rule(self) -> EarlyStopping | None:
        """Return a new rule of early stopping; None where every candidate is trained to the end."""
        asked = self.search.early_stopping
        if asked is None or not self.trains:
            return None
        return EarlyStopping(self.training.epochs, **asked.model_dump())

    @property
    def selected(self) -> tuple[Objective, ...]:
        """The objectives, in order."""
        return select_objectives(self.objectives)

    @property
    def image_channels(self) -> int:
        """Channels of the images: 3 for colour, 1 for grey."""
        return self.load_space().image_channels

    def load_space(self) -> SearchSpace:
        """Return the search space; raise `UserError` for an unknown name or a faulty file."""
        return _space(self.space)

    @property
    def space_in_file(self) -> bool:
        """Whether the space is read from a file of the user's own, which may change or be lost."""
        return isinstance(self.space, str) and self.space.partition("@")[0] not in SPACES

    @property
    def space_name(self) -> str:
        """Name or file of the search space."""
        return self.space if isinstance(self.space, str) else self.load_space().name

    @property
    def own_parts(self) -> dict[str, str]:
        """What each import string of the user's own parts stands for, such as `objective`."""
        named = {
            **dict.fromkeys(sorted(self.wanted), "objective"),
            self.training.loss: "loss",
            self.training.recipe: "recipe",
            self.data.kind: "data set",
            **dict.fromkeys(self.load_space().own_blocks, "block"),
        }
        return {name: part for name, part in named.items() if is_own(name)}

    def describe_own(self) -> dict[str, Any]:
        """Return the record of the user's own parts by import string, as plain JSON types.

        Each has the digest of its source; an objective also its definition, so that the study can
        be read where the part cannot be imported.
        """
        described: dict[str, Any] = {}
        for name, part in self.own_parts.items():
            described[name] = {"part": part, "source": source_digest(name)}
            if part == "objective":
                described[name]["objective"] = asdict(OBJECTIVES[name])
        return described

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON types, with all fields."""
        return self.model_dump(mode="json")
