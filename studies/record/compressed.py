"""The records of `nas compress`: the stages that a model of a study went through.

Each stage has a folder in the study's folder `compressed`, with its record, which is replaced as a
whole after each training, and the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas.objectives import OBJECTIVES, Objective, by_factor
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.numbers import Seed
from studies.record.noise import Mean, SeedNoise

FOLDER = "compressed"
"""Name of the folder below the study's."""

RECORD = "record.json"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]
Interval = tuple[Finite, Finite]


@dataclass(frozen=True)
class Kind:
    """A kind of stage: what its record contains, in words.

    Attributes:
        result: Role of the trainings that are its result.
        controls: Roles that the result is compared with.
        roles: Role -> its description, in the order of tables.
        noun: What the stage does, as the subject of a sentence.
        model: Its result, likewise.
    """

    result: str
    controls: tuple[str, ...]
    roles: Mapping[str, str]
    noun: str
    model: str


LOWERED = "lowered"
"""Role of the models in a lower precision."""

KINDS: dict[str, Kind] = {
    "prune": Kind(
        "pruned",
        ("scratch",),
        {
            "source": "the trained model",
            "cut": "pruned, not trained further",
            "pruned": "pruned, trained further",
            "scratch": "from new weights, as many epochs in total",
        },
        "Pruning",
        "the pruned model",
    ),
    "distil": Kind(
        "distilled",
        ("control", "longer"),
        {
            "source": "the trained model",
            "distilled": "student with its teacher",
            "control": "no teacher, same weight on the reconstruction",
            "longer": "no teacher, trained longer by its time",
        },
        "Distillation",
        "the student",
    ),
    "quantise": Kind(
        LOWERED,
        (),
        {
            "source": "float32, in eager PyTorch",
            "float32": "float32, in the same runtime",
            LOWERED: "in the lower precision",
        },
        "The lower precision",
        "the model in the lower precision",
    ),
}
"""Name -> kind of stage, in the order in which stages run.

A new kind is one entry here, one function in `studies.compress`, and one option of `nas compress`.
"""


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"is not one of {', '.join(KINDS)}")
    return name


def _positive(values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        if name in OBJECTIVES and by_factor(name) and value <= 0:
            raise ValueError(f"{name} is not above 0")
    return values


Losses = Annotated[dict[str, Finite], AfterValidator(_positive)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Lowered(_Value):
    """What a runtime costs a model of its loss, judged as `nas.deploy.quality` does.

    Attributes:
        cost: Relative increase of the reconstruction loss over that in eager float32.
        interval: Its 95 % interval, by a bootstrap over images.
        worst: Relative increase of the loss of the image that loses most.
        images: Number of validation images.
        kept: Names of the layers that stay in floating point because they are sensitive.
        unserved: Names of the layers that the runtime does not compute in the precision.
        file_bytes: Size of the model's files.
    """

    cost: Finite
    interval: Interval
    worst: Finite
    images: Whole
    kept: tuple[str, ...] = ()
    unserved: tuple[str, ...] = ()
    file_bytes: Whole


class Training(_Value):
    """One training of a stage, or one model that was only evaluated.

    Attributes:
        role: What it is, one of the roles of its kind of stage.
        seed: Seed of the order of images and the noise, and of new weights.
        epochs: Largest number of epochs; 0 if the model was only evaluated.
        trained: Number of epochs that were trained.
        best_epoch: Epoch of the lowest validation loss, whose weights are evaluated; 0 as above.
        duration_s: Duration of training and validation in seconds.
        validation: Means over the validation images, by the names of a study's record.
        test: Means over the test images, likewise; empty if there are none.
        lowered: What its runtime costs; None if it runs in PyTorch.
    """

    role: str
    seed: Seed
    epochs: Whole = 0
    trained: Whole = 0
    best_epoch: Whole = 0
    duration_s: Duration = 0.0
    validation: Losses
    test: Losses = {}
    lowered: Lowered | None = None


class Costs(_Value):
    """The costs of an architecture.

    Attributes:
        values: Objective -> value.
        intervals: Objective -> 95 % interval, of those that are measured.
        over_source: Latency -> ratio to that of the trained model, (median, low, high) of the 95 %
            interval, measured in the same rounds.
        over_float32: Latency -> ratio to that in float32 in the same runtime, likewise.
        contended: Whether other work disturbed the measurement.
    """

    values: Losses = {}
    intervals: dict[str, Interval] = {}
    over_source: dict[str, tuple[Ratio, Ratio, Ratio]] = {}
    over_float32: dict[str, tuple[Ratio, Ratio, Ratio]] = {}
    contended: bool = False


class Stage(_Value):
    """A stage of the compression of one model.

    Attributes:
        kind: What was done, a key of `KINDS`.
        name: Name of its folder.
        title: What was done, in words, such as "#8 pruned to 50 % of its widths".
        trial: Number of the trial in its study.
        after: Name of the stage whose models it continues; None for the first one.
        architecture: The architecture of the result.
        settings: All that the result depends on; another value of any is another stage.
        source: Costs of the trained model.
        costs: Costs of the result.
        others: Costs of further roles, if they are not those of the result.
        trainings: The finished trainings, in the order in which they ended.
    """

    kind: Annotated[str, AfterValidator(_known)]
    name: str
    title: str
    trial: Whole
    after: str | None = None
    architecture: Architecture
    settings: dict[str, Any]
    source: Costs = Costs()
    costs: Costs = Costs()
    others: dict[str, Costs] = {}
    trainings: tuple[Training, ...] = ()

    @model_validator(mode="after")
    def _trainings_are_of_its_kind(self) -> Self:
        for one in self.trainings:
            if one.role not in self.words.roles:
                raise ValueError(f"{one.role[:20]!r} is not one of {', '.join(self.words.roles)}")
            if "total_loss" not in one.validation:
                raise ValueError(f"the total loss of {one.role} is missing")
        return self

    @property
    def words(self) -> Kind:
        """What its record contains, in words."""
        return KINDS[self.kind]

    def of(self, role: str) -> list[Training]:
        """Return the trainings of a role in the order of their seeds."""
        return sorted((t for t in self.trainings if t.role == role), key=lambda one: one.seed)

    def find(self, role: str, seed: int) -> Training | None:
        """Return a training; None if it is not finished."""
        return next((one for one in self.of(role) if one.seed == seed), None)

    def costs_of(self, role: str) -> Costs:
        """Return the costs of the models of a role."""
        return self.source if role == "source" else self.others.get(role, self.costs)

    def values(self, role: str, name: str) -> list[float]:
        """Return a value on the validation images: one for each training of a role."""
        return [one.validation[name] for one in self.of(role) if name in one.validation]

    def noise(self, loss: Objective) -> SeedNoise | None:
        """Return the seed noise of a loss, pooled over the roles; None with one seed."""
        trained = (self.values(role, loss.name) for role in self.words.roles)
        return SeedNoise.pooled(trained, relative=loss.by_factor)

    @property
    def best(self) -> Training:
        """The training of the result with the lowest total validation loss."""
        return min(self.of(self.words.result), key=lambda one: one.validation["total_loss"])


def read_stage(path: Path) -> Stage:
    """Read the record of a stage.

    Raises:
        UserError: it cannot be read or is damaged; the message names the first fault.
    """
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise UserError(f"{path}: cannot be read (not an ordinary file)")
        stage = Stage.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))[:60]
        reason = fault["msg"].removeprefix("Value error, ")[:60]
        raise UserError(
            f"{path}: damaged ({f'{place}: ' if place else ''}{reason}); remove its folder to "
            "begin the stage again"
        ) from None
    if stage.name != path.parent.name:
        raise UserError(f"{path}: is the record of {stage.name[:60]!r}; restore the folder's name")
    return stage


def read_stages(folder: Path) -> tuple[list[Stage], list[str]]:
    """Return the stages of a study with a finished training, and a line for each damaged record.

    A stage comes after the one that it continues.

    Args:
        folder: The study's folder.
    """
    stages, damaged = list[Stage](), list[str]()
    for path in sorted((folder / FOLDER).glob(f"*/{RECORD}")):
        try:
            stages.append(read_stage(path))
        except UserError as error:
            damaged.append(str(error))
    known = {stage.name: stage for stage in stages}
    stages.sort(
        key=lambda stage: [(one.trial, _order(one), one.name) for one in _chain(stage, known)]
    )
    return [stage for stage in stages if stage.of(stage.words.result)], damaged


def _order(stage: Stage) -> int:
    return list(KINDS).index(stage.kind)


def _chain(stage: Stage, known: Mapping[str, Stage]) -> list[Stage]:
    """Return the stages from the first one to this one; those that are missing are left out."""
    chain = [stage]
    while (before := known.get(chain[0].after or "")) and before not in chain:
        chain.insert(0, before)
    return chain


def tied(noise: SeedNoise | None, ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Return whether a difference of two means is within the seed noise, or that is not known."""
    if noise is None:
        return True
    means = [Mean(sum(one) / len(one), len(one)) for one in (ours, theirs)]
    return not noise.differ(*means)
