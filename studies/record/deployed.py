"""The records of `nas deploy` in a study: the variants of a model, as they were timed and judged.

Each deployed model has a file in the study's folder `deployed`, and another one for each target,
which the next deployment of the same model there replaces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studies.record.compressed import Finite, Interval, Ratio, Whole
from studies.record.formats import MISSING, format_ms

FOLDER = "deployed"
"""Name of the folder below the study's."""

Name = Annotated[str, Field(max_length=500)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class VariantRecord(_Value):
    """One variant of a model.

    Attributes:
        name: Its backend and precision.
        rejected: Why it is not deployed; None if it is.
        latency_ms: Its latency; None if it could not be built, as for the following.
        over_eager: Its ratio to the latency of the model in eager PyTorch, (median, low, high) of
            the 95 % interval. On a target: of the model in ONNX Runtime in float32, as exported.
        cost: Relative increase of the loss on validation images.
        cost_interval: Its 95 % interval.
    """

    name: Name
    rejected: Name | None = None
    latency_ms: Ratio | None = None
    over_eager: tuple[Ratio, Ratio, Ratio] | None = None
    cost: Finite | None = None
    cost_interval: Interval | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The latency, the ratio, the cost and what becomes of it, for people."""
        verdict = f"rejected: {self.rejected}" if self.rejected else "deployed"
        if self.latency_ms is None or self.over_eager is None or self.cost is None:
            return MISSING, MISSING, MISSING, verdict
        middle, low, high = self.over_eager
        ratio = f"{middle:.2f}x [{low:.2f}, {high:.2f}]"
        return format_ms(self.latency_ms), ratio, format_cost(self.cost), verdict


class DeployedRecord(_Value):
    """The variants of one model.

    Attributes:
        trial: Number of its trial.
        threads: Number of threads of each pass.
        device: Name of the processor, behind that of a target.
        target: Name of the target where variants ran; None is this machine.
        contended: Whether other work disturbed the measurement.
        variants: The variants, the fastest first.
    """

    trial: Whole
    threads: Whole
    device: Name
    target: Name | None = None
    contended: bool
    variants: tuple[VariantRecord, ...]

    @property
    def baseline(self) -> str:
        """What runs the model beside which variants were timed, in short."""
        return "eager" if self.target is None else "float32"

    @property
    def file(self) -> str:
        """The end of its file's name: a model has one record for each machine."""
        return f"-{self.target}.json" if self.target else ".json"


def format_cost(cost: float) -> str:
    """Format a relative increase of a loss: `+0.35 %`."""
    return f"{round(100 * cost, 2) + 0.0:+.2f} %"  # never "-0.00 %"


def read_deployed(folder: Path) -> tuple[list[DeployedRecord], list[str]]:
    """Return the deployed models of a study by trial, and a line for each damaged record.

    Args:
        folder: The study's folder.
    """
    found, damaged = list[DeployedRecord](), list[str]()
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            if not path.is_file():  # opening a FIFO would wait for ever
                raise OSError(None, "not an ordinary file")
            found.append(DeployedRecord.model_validate_json(path.read_bytes()))
        except OSError as error:
            damaged.append(f"{path}: cannot be read ({error.strerror}); remove it")
        except ValidationError as error:
            place = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))[:60]
            damaged.append(f"{path}: damaged ({place or 'no JSON'}); deploy the model again")
    return sorted(found, key=lambda one: (one.trial, one.target or "")), damaged
