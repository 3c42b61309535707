"""The result of a deployment, from which its files are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from nas.deploy.builder import EAGER
from nas.deploy.on_target import EXPORTED
from nas.deploy.quality import Quality
from nas.deploy.variants import PRECISIONS, Built, Shipped, Variant
from profiling.latency import LatencyConfig, Ratio
from profiling.runtime_files import inference_precision
from profiling.target.client import KnownTarget
from search_spaces.sizes import sides
from studies.deploy.choice import Bounds
from studies.deploy.examination import Examined
from studies.deploy.subject import Subject
from studies.record.deployed import DeployedRecord, VariantRecord

BASELINES = {EAGER: "eager PyTorch", EXPORTED: "ONNX Runtime in float32, as exported"}
"""What runs the model beside which variants are timed, by its name in the measurement."""

_LONGEST = 500
"""Maximum number of characters of a text of a record."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        backends: The backends to try; None is all.
        precisions: The precisions to try.
        bounds: What a variant may cost.
        config: Settings of the measurement.
        target: Machine where it will run, and is judged and timed; None is this one.
    """

    backends: Sequence[str] | None = None
    precisions: Sequence[str] = PRECISIONS
    bounds: Bounds = field(default_factory=Bounds)
    config: LatencyConfig = field(default_factory=LatencyConfig)
    target: KnownTarget | None = None


@dataclass(frozen=True)
class Deployment:
    """A variant of a model that was chosen and whose files are written.

    Attributes:
        subject: The model and its images.
        wish: What was asked for.
        examined: The variants.
        shipped: The files of the chosen one.
    """

    subject: Subject
    wish: Wish
    examined: Examined
    shipped: Shipped

    @property
    def chosen(self) -> Built:
        """The variant that is deployed."""
        return self.examined.chosen

    @property
    def packages(self) -> dict[str, str]:
        """Name -> version of the packages that `run.py` needs."""
        names, there = ("numpy", self.chosen.variant.runtime), self.wish.target
        known = there.facts.model_dump() if there else {}
        return {name: known.get(name) or version(name) for name in names}

    @property
    def baseline(self) -> str:
        """What runs the model beside which variants are timed, in words."""
        return BASELINES[self.examined.found.reference]

    @property
    def place(self) -> str:
        """The machine where variants were judged and timed: its processor, and a target's name."""
        found = self.examined.found
        device = found.counted(found.reference).environment.device_name
        return f"{self.wish.target.address.name} ({device})" if self.wish.target else device

    def over(self, name: str, base: str | None = None) -> Ratio:
        """Return the latency of what was timed over that of another one, by default `baseline`."""
        return self.examined.found.ratio(name, base)

    @property
    def variants(self) -> list[tuple[Variant, Built | None]]:
        """All variants, the fastest first, those that were not built at the end."""
        found = self.examined.found
        built = {one.variant: one for one in self.examined.built}
        ordered = sorted(built, key=lambda one: found.counted(one.name).median_ms)
        left = [one for one in self.examined.reasons if one not in built]
        return [*((one, built[one]) for one in ordered), *((one, None) for one in left)]

    def to_json(self) -> bytes:
        """Return the content of `deployment.json`, which `run.py` reads."""
        subject, chosen = self.subject, self.chosen
        height, width = sides(subject.architecture.image_size)
        shape = {"channels": subject.architecture.image_channels, "height": height, "width": width}
        about = {
            **subject.metadata,
            "architecture": subject.architecture.to_dict(),
            "recorded": subject.values,
            "judged_on": subject.dataset.fingerprint,
            "runtime": chosen.variant.runtime,
            "backend": chosen.variant.backend,
            "precision": chosen.variant.precision,
            "inference_precision": inference_precision(chosen.variant.precision),
            "in_floating_point": list(chosen.keep),
            "packages": self.packages,
            "threads": self.wish.config.threads,
            "target": _target(self.wish.target),
            "measured_on": self.place,
            "baseline": self.baseline,
            "image": {**shape, "fit": subject.fit},
            "files": dict(self.shipped.files),
            "quality": {
                "validation": _plain(chosen.quality),
                "test": _plain(self.shipped.test),
                "parts": _plain(self.examined.parts),
                "eager": _plain(self.examined.base),
            },
            "variants": [self._variant(*one) for one in self.variants],
            "contention": list(self.examined.found.contention),
        }
        return (json.dumps(about, indent=1) + "\n").encode()

    def record(self, trial: int) -> DeployedRecord:
        """Return what the study records of it."""
        there = self.wish.target
        return DeployedRecord(
            trial=trial,
            threads=self.wish.config.threads,
            device=self.place[:_LONGEST],
            target=there.address.name if there else None,
            contended=self.examined.found.contended,
            variants=tuple(self._recorded(*one) for one in self.variants),
        )

    def _recorded(self, variant: Variant, built: Built | None) -> VariantRecord:
        reason = self.examined.reasons.get(variant)
        told = VariantRecord(name=variant.name, rejected=reason and reason[:_LONGEST])
        if built is None:
            return told
        ratio, quality = self.over(variant.name), built.quality
        known = {
            "latency_ms": self.examined.found.counted(variant.name).median_ms,
            "over_eager": (ratio.median, *ratio.interval),
            "cost": quality.cost,
            "cost_interval": tuple(quality.interval),
        }
        return told.model_copy(update=known)

    def _variant(self, variant: Variant, built: Built | None) -> dict[str, Any]:
        reason = self.examined.reasons.get(variant)
        known = {"backend": variant.backend, "precision": variant.precision, "rejected": reason}
        if built is None:
            return known
        latency, ratio = self.examined.found.counted(variant.name), self.over(variant.name)
        return {
            **known,
            "latency_ms": latency.median_ms,
            "latency_interval_ms": list(latency.interval_ms),
            "over_eager": [ratio.median, *ratio.interval],
            "file_bytes": built.file_bytes,
            "max_error": built.max_error,
            "in_floating_point": list(built.keep),
            "note": built.note,
            "quality": _plain(built.quality),
        }


def _target(known: KnownTarget | None) -> dict[str, Any] | None:
    return None if known is None else {"name": known.address.name, **known.facts.lasting}


def _plain(quality: Quality | None) -> dict[str, Any] | None:
    return None if quality is None else {**asdict(quality), "interval": list(quality.interval)}
