"""Validate stored attributes of studies and trials: what has passed has the right types and ranges.

A storage may be damaged, edited or written by another program. Everything that is read from it
comes through `study_attributes` or `TrialAttributes`, so no other code has to expect a null, a text
or a NaN where a number belongs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nas.findings import EvaluationStep, Findings
from nas.objectives import (
    OBJECTIVES,
    TRAINED_OBJECTIVE,
    Cost,
    Direction,
    Objective,
    by_factor,
    is_own,
    select_objectives,
)
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.record.earlier import complete_latency, complete_training

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Duration = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Short = Annotated[str, Field(strict=True, max_length=200)]
Choice = Flag | Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)] | Finite | Text | None

_REASONS = {
    "model_type": "not a mapping",
    "dict_type": "not a mapping",
    "list_type": "not a list",
    "tuple_type": "not a list",
    "missing": "missing",
}
"""Reasons in place of pydantic's, which names types of Python."""

CONFIRMED = "confirmed:"
"""Beginning of the names of the attributes that hold further trainings, one attribute each."""

_LONGEST = 60  # characters of a foreign text that a message repeats


class _Attributes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)


class Candidate(_Attributes):
    """The attribute `candidate` of a trial: see `studies.store.frozen.new_trial`."""

    digest: Text
    architecture: Architecture
    assignment: dict[Text, Choice]
    reference: Text | None
    repeats: Count


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the lower bound is above the upper one")
    return interval


_Interval = Annotated[tuple[Finite, Finite], AfterValidator(_ordered)]


def _positive_ratios(metrics: dict[str, float]) -> dict[str, float]:
    for name, value in metrics.items():
        if name.startswith("latency_over_") and value <= 0:
            raise ValueError(f"{name!r} is not above 0")
    return metrics


def _in_range(objectives: dict[str, float]) -> dict[str, float]:
    for name, value in objectives.items():
        if value <= 0 and by_factor(name):
            raise ValueError(f"{_plain(name)!r} is not above 0")
    return objectives


def _bounds_in_range(
    intervals: dict[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    _in_range({name: low for name, (low, _) in intervals.items()})
    return intervals


def _with_losses(epoch: dict[str, float]) -> dict[str, float]:
    for name in ("epoch", TRAINED_OBJECTIVE):
        if name not in epoch:
            raise ValueError(f"{name!r} is missing")
    return epoch


class _Findings(_Attributes):
    """Findings of any trial; a value that is no finite number makes a trial fail."""

    step: EvaluationStep = "static"
    objectives: dict[Text, Number] = {}
    metrics: dict[Text, Number] = {}
    intervals: dict[Text, tuple[Number, Number]] = {}
    contended: Flag = False
    history: list[Annotated[dict[Text, Finite], AfterValidator(_with_losses)]] = []
    timings_s: dict[Text, Duration] = {}


class _Complete(_Findings):
    """Findings of a complete trial, which are compared and drawn."""

    objectives: Annotated[dict[Text, Finite], AfterValidator(_in_range)]
    metrics: Annotated[dict[Text, Finite], AfterValidator(_positive_ratios)] = {}
    intervals: Annotated[dict[Text, _Interval], AfterValidator(_bounds_in_range)] = {}


class TrialAttributes(_Attributes):
    """The attributes of a trial; those that it does not have yet keep their defaults."""

    candidate: Candidate
    findings: _Findings = _Findings()
    reason: Text | None = None
    stopped: Flag = False
    starts: Count = 0
    epochs: Count = 0
    owner: Text | None = None

    @property
    def found(self) -> Findings:
        """The findings of the trial's evaluation."""
        return Findings(**{name: getattr(self.findings, name) for name in _Findings.model_fields})


class _CompleteTrial(TrialAttributes):
    findings: _Complete


def _is_objective(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"{name!r} is not one of {', '.join(OBJECTIVES)}")
    return name


def _objectives(names: list[str]) -> list[str]:
    select_objectives(names)  # raises a `ValueError`
    return names


class _Data(_Attributes):
    kind: Text | None = None
    count: Count | None = None


class _Training(_Attributes):
    epochs: Count | None = None


class _Latency(_Attributes):
    batch: Count | None = None
    threads: Count | None = None


class _Search(_Attributes):
    sampler: Text | None = None


class _Config(_Attributes):
    """The entries of a configuration that are read from a stored study, not from a file."""

    objectives: Annotated[list[Text], AfterValidator(_objectives)]
    space: Any
    description: Text | None = None
    limits: dict[Annotated[Text, AfterValidator(_is_objective)], Positive] | None = None
    data: _Data = _Data()
    training: _Training = _Training()
    latency: _Latency = _Latency()
    setups: dict[Text, _Latency] = {}
    search: _Search = _Search()


class _Environment(_Attributes):
    device: Text | None = None
    device_name: Text | None = None
    threads: Count | None = None
    runtime: Text | None = None
    data_fingerprint: Text | None = None
    images: dict[Text, Count] | None = None
    about_images: list[Text] = []
    original_latency_ms: Positive | None = None
    original_latencies_ms: dict[Text, Positive] = {}
    mixed: list[Text] = []


class _Final(_Attributes):
    over: Annotated[dict[Text, tuple[Positive, Positive, Positive]], Field(min_length=1)]
    contended: Flag
    weights: Text = ""


def _positive_losses(values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        # A loss of the user's own may have a negative total.
        if name in OBJECTIVES and name != "total_loss" and by_factor(name) and value <= 0:
            raise ValueError(f"{name!r} is not above 0")
    return values


class Run(_Attributes):
    """A further training: an attribute of the study, named as `confirmed:DIGEST:SEED`."""

    seed: Count
    validation: Annotated[dict[Text, Finite], AfterValidator(_positive_losses)] = {}
    test: dict[Text, Finite] = {}
    best_epoch: Count = 0
    duration_s: Duration = 0.0
    reason: Text | None = None


class _Floor(_Attributes):
    reconstruction: Finite
    ssim: Finite
    l1: Finite
    psnr_db: Finite
    ms_ssim: Finite


_Size = Annotated[int, Field(ge=1, lt=2**53)]  # not strict: JSON has only texts as keys


class _PartFloors(_Attributes):
    mean: _Floor
    pca: dict[_Size, _Floor]


class _Floors(_Attributes):
    source: dict[Text, Any]
    fitted_on: Count
    validation: _PartFloors
    test: _PartFloors
    absent: dict[_Size, Text]


class _Axis(_Attributes):
    choices: list[Choice]


class _Space(_Attributes):
    axes: dict[Text, _Axis]


class _Definition(_Attributes):
    """The definition of an objective of the user's own, as it was when the study ran."""

    title: Short
    unit: Short
    cost: Cost
    explanation: Short
    direction: Direction
    compared_by: Literal["factor", "difference"]
    ideal: Finite


def _import_string(name: str) -> str:
    if not is_own(name):
        raise ValueError(f"{_plain(name)!r} is not an import string")
    return name


class _Own(_Attributes):
    part: Short
    source: Short
    objective: _Definition | None = None


class _OwnParts(_Attributes):
    own: dict[Annotated[Text, AfterValidator(_import_string)], _Own] = {}


class _Study(_Attributes):
    config: _Config | None = None
    space: _Space | None = None
    space_digest: Text | None = None
    space_size: Positive | None = None
    space_distinct: Count | None = None
    environment: _Environment | None = None
    final_latency: dict[Text, _Final] = {}
    confirmed: dict[Text, Run] = {}
    floors: _Floors | None = None
    artefacts: Text | None = None
    format: Any = None

    @model_validator(mode="after")
    def _created_means_complete(self) -> Self:
        if self.format is not None:  # it is written last
            for name in ("config", "space", "space_digest", "space_size", "environment"):
                if getattr(self, name) is None:
                    raise ValueError(f"the attribute {name} is missing")
        return self


_Model = TypeVar("_Model", bound=BaseModel)


def study_attributes(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of a study if they are valid, with the settings that it does not name.

    Args:
        stored: The attributes; those of a study that is being created may be missing.

    Raises:
        UserError: an attribute has a wrong type, shape or range; the message names the first.
    """
    _validated(_Study, {**stored, "confirmed": runs_in(stored)})
    config = stored.get("config")
    if not config:
        return stored
    complete = {"training": complete_training, "latency": complete_latency}
    named = {key: complete[key](config[key]) for key in complete if key in config}
    setups = {name: complete_latency(one) for name, one in config.get("setups", {}).items()}
    return {**stored, "config": {**config, **named, "setups": setups}}


def own_definitions(stored: Mapping[str, Any]) -> list[Objective]:
    """Return the definitions of the user's own objectives in a study; nothing is imported.

    Raises:
        UserError: the attribute `own` has a wrong type, shape or range.
    """
    found = _validated(_OwnParts, {"own": stored.get("own", {})})
    known = {name: one.objective for name, one in found.own.items() if one.objective}
    names = {field.name for field in fields(Objective)} - {"name"}
    return [
        Objective(name, **{key: getattr(one, key) for key in names}) for name, one in known.items()
    ]


def runs_in(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further trainings among the attributes of a study, as stored, by `DIGEST:SEED`."""
    return {
        key.removeprefix(CONFIRMED): value
        for key, value in stored.items()
        if key.startswith(CONFIRMED)
    }


def trial_attributes(stored: Mapping[str, Any], number: int, *, complete: bool) -> TrialAttributes:
    """Return the validated attributes of a trial.

    Args:
        stored: The attributes.
        number: The trial's number, for the error.
        complete: Whether the trial is complete; otherwise its values may be infinite or NaN.

    Raises:
        UserError: an attribute has a wrong type, shape or range; the message names the first.
    """
    model = _CompleteTrial if complete else TrialAttributes
    return _validated(model, stored, f"trial {number}: ")


def _validated(model: type[_Model], stored: Mapping[str, Any], where: str = "") -> _Model:
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        more = f", and {len(others)} more" if others else ""
        raise UserError(f"{where}damaged ({_line(first)}{more})") from None


def _line(fault: ErrorDetails) -> str:
    place = ".".join(_plain(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    reason, value = _short(_REASONS.get(fault["type"], message)), fault["input"]
    found = "" if isinstance(value, dict) else f", found {_short(repr(value))}"
    return f"{place}: {reason}{found}" if place else reason


def _plain(part: int | str) -> str:
    """Return a key of foreign origin without control characters."""
    return _short(re.sub(r"[^\x20-\x7e]", "?", str(part)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
