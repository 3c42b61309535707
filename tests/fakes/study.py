"""A seeded, made-up study with every kind of trial, for tests of tables, figures and reports.

Nothing is trained. Costs follow from the architecture by rough formulas, the loss falls with the
logarithm of the cost, so that the trade-off has the shape of a real one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.datasets import DataConfig
from nas.findings import Findings
from nas.objectives import DEFAULT_OBJECTIVES, select_objectives
from nas.protocol import TrainingConfig
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from studies.config.study import SearchConfig, StudyConfig
from studies.record.records import StudyRecord, TrialRecord
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.findings import epoch, metrics
from tests.fakes.records import with_findings

IMAGE_SIZE = 64
EPOCHS = 6
Images = npt.NDArray[np.uint8]


def fake_study(
    folder: Path,
    *,
    seed: int = 0,
    found: int = 32,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    references: Mapping[str, Architecture] = REFERENCES,
    images: int = 0,
) -> StudyRecord:
    """Return a study of `found` architectures, with rejected, repeated and failed ones included.

    `images` > 0 also writes samples, reconstructions and samples from the prior below `folder`.
    """
    rng = np.random.default_rng(seed)
    trials = [
        complete_trial(number, architecture.resized(IMAGE_SIZE), {}, rng, objectives, name)
        for number, (name, architecture) in enumerate(references.items())
    ]
    for index in range(found):
        trials.append(_trial(index, len(trials), rng, objectives))
    original_ms = trials[0].objectives.get("latency_ms") if trials else None
    study = StudyRecord(
        name="faces-64",
        objectives=select_objectives(objectives),
        trials=tuple(trials),
        config=_config(objectives, found).to_dict(),
        environment={**ENVIRONMENT, "original_latency_ms": original_ms},
        folder=folder,
        space_size=41472,
    )
    if images:
        _write_images(study, images, rng)
    return study


def complete_trial(
    number: int,
    architecture: Architecture,
    assignment: Mapping[str, Any],
    rng: np.random.Generator,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    reference: str | None = None,
) -> TrialRecord:
    """Return an evaluated trial with made-up but plausible values."""
    values = _costs(architecture, rng)
    loss = 0.62 - 0.034 * math.log(values["macs"] / 1e5) + float(rng.normal(0, 0.02))
    if architecture.encoder.stages[0].block == "dense":
        loss += 0.02
    values["reconstruction_loss"] = loss
    latency = values["latency_ms"]
    return TrialRecord(
        number=number,
        state="complete",
        digest=architecture.digest,
        architecture=architecture,
        assignment=assignment,
        reference=reference,
        findings=Findings(
            "done",
            objectives={name: values[name] for name in objectives},
            metrics=_with_latent(metrics(loss), loss, architecture.latent_size),
            intervals={"latency_ms": (0.96 * latency, 1.05 * latency)},
            contended=number % 9 == 4,
            history=_history(loss, values["macs"], rng),
            timings_s={"training": EPOCHS * values["macs"] / 2e7, "latency": 2.0},
        ),
    )


def _with_latent(known: dict[str, float], loss: float, latent_size: int) -> dict[str, float]:
    """Add a rate that grows with the latent, and with it the total loss and the active units."""
    units = min(latent_size, 8 + latent_size // 5)
    kl = 1.7 * units
    return {**known, "kl": kl, "total_loss": loss + 1e-3 * kl, "active_units": float(units)}


def _trial(
    index: int, number: int, rng: np.random.Generator, objectives: Sequence[str]
) -> TrialRecord:
    assignment = _assignment(rng)
    trial = complete_trial(number, _architecture(assignment), assignment, rng, objectives)
    known = {n: v for n, v in trial.objectives.items() if n != "reconstruction_loss"}
    unfinished = with_findings(trial, step="static", objectives=known, metrics={}, history=())
    if index % 11 == 5:
        reason = f"params {1 + index / 10:.1f} M above the limit of 1 M"
        return replace(with_findings(unfinished, intervals={}), state="rejected", reason=reason)
    if index % 13 == 7:
        return replace(unfinished, state="failed", reason=f"diverged: loss is NaN in epoch {index}")
    return replace(trial, repeats=int(index % 10 == 9))


def _assignment(rng: np.random.Generator) -> dict[str, Any]:
    block = str(rng.choice(["plain", "dense"]))
    assignment: dict[str, Any] = {
        "block": block,
        "convolution": str(rng.choice(["standard", "depthwise_first", "pointwise_first"])),
        "depth": int(rng.integers(2, 5)),
        "width": int(rng.choice([8, 16, 24, 32, 48])),
        "layers": int(rng.integers(1, 4)),
        "latent_size": int(rng.choice([32, 64, 128, 256])),
        "activation": str(rng.choice(["elu", "relu", "silu"])),
        "head": str(rng.choice(["flatten", "global_average"])),
    }
    if block == "dense":
        assignment["growth_rate"] = int(rng.choice([8, 16, 32]))
    return assignment


def _architecture(choice: Mapping[str, Any]) -> Architecture:
    stage = {key: choice[key] for key in ("block", "convolution", "layers")}
    stage["growth_rate"] = choice.get("growth_rate")
    widths = [choice["width"] * 2**i for i in range(choice["depth"])]
    return Architecture.from_dict(
        {
            "image_size": IMAGE_SIZE,
            "latent_size": choice["latent_size"],
            "activation": choice["activation"],
            "encoder": {"stages": [{**stage, "width": w} for w in widths], "head": choice["head"]},
            "decoder": {
                "seed_width": widths[-1],
                "stages": [{**stage, "width": w} for w in reversed(widths)],
            },
        }
    )


def _costs(architecture: Architecture, rng: np.random.Generator) -> dict[str, float]:
    params, macs, launches = 0.0, 0.0, 0
    channels, size, _ = architecture.image_shape
    for stage in architecture.encoder.stages:
        share = 9 if stage.convolution == "standard" else 1.4
        growth = stage.growth_rate or stage.width
        weights = share * stage.layers * growth * (channels + stage.width) / 2
        params += 2 * weights
        macs += 2 * weights * size**2
        launches += stage.layers * (3 if stage.block == "dense" else 1)
        channels, size = stage.width, (size + 1) // 2
    features = channels * (size**2 if architecture.encoder.head == "flatten" else 1)
    params += 3 * features * architecture.latent_size
    macs += 3 * features * architecture.latent_size
    latency = (macs / 3e7 + 0.08 * launches) * float(rng.lognormal(0, 0.1))
    macs = float(round(macs))
    return {
        "params": float(round(params)),
        "macs": macs,
        "flops": 2 * macs,
        "latency_ms": latency,
        "peak_memory_bytes": float(round(4 * params + 4000 * IMAGE_SIZE**2 * launches / 8)),
    }


def _history(loss: float, macs: float, rng: np.random.Generator) -> list[dict[str, float]]:
    rows = []
    for number in range(1, EPOCHS + 1):
        trained = loss + 0.3 * math.exp(-0.7 * number) + float(rng.normal(0, 0.002))
        reached = loss + 0.25 * math.exp(-0.7 * number) + float(rng.normal(0, 0.004))
        rows.append(epoch(number, reached, trained, macs / 2e7))
    return rows


def _config(objectives: Sequence[str], found: int) -> StudyConfig:
    return StudyConfig(
        name="faces-64",
        description="Small VAEs for 64 x 64 rendered faces.",
        space="paper",
        data=DataConfig(kind="faces", count=4000),
        objectives=tuple(objectives),
        limits={"params": 1e6},
        training=TrainingConfig(epochs=EPOCHS),
        search=SearchConfig(sampler="tpe", trials=found),
        device="cpu",
    )


def _write_images(study: StudyRecord, count: int, rng: np.random.Generator) -> None:
    samples = np.stack([_face(rng) for _ in range(count)])
    study.samples.parent.mkdir(parents=True, exist_ok=True)
    np.save(study.samples, samples)
    for trial in study.complete:
        path = study.reconstructions(trial)
        path.parent.mkdir(exist_ok=True)
        np.save(path, _blurred(samples, trial.objectives.get("reconstruction_loss", 0.4)))
        np.save(study.prior_samples(trial), _blurred(samples[::-1], 0.6))


def _face(rng: np.random.Generator) -> Images:
    """A head with hair, eyes and mouth on a gradient: enough to judge a picture grid by."""
    y, x = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
    tilt = float(rng.uniform(-0.15, 0.15))
    x = x - tilt * y
    light = 1 + 0.2 * x
    image = np.stack([c + 0.2 * y for c in rng.uniform(0.3, 0.8, 3)])
    parts: list[tuple[npt.NDArray[np.bool_], Sequence[float]]] = [
        ((x / 0.62) ** 2 + ((y + 0.15) / 0.78) ** 2 < 1, rng.uniform(0.05, 0.5, 3).tolist()),
        ((x / 0.5) ** 2 + ((y - 0.05) / 0.68) ** 2 < 1, (rng.uniform(0.6, 0.95), 0.62, 0.5)),
        (((abs(x) - 0.2) / 0.09) ** 2 + ((y + 0.05) / 0.06) ** 2 < 1, (0.12, 0.1, 0.12)),
        ((x / rng.uniform(0.12, 0.25)) ** 2 + ((y - 0.42) / 0.06) ** 2 < 1, (0.7, 0.25, 0.25)),
    ]
    for mask, colour in parts:
        for channel, value in enumerate(colour):
            image[channel][mask] = (value * light)[mask]
    image += rng.normal(0, 0.01, image.shape)
    return np.asarray(np.clip(image, 0, 1) * 255, dtype=np.uint8)


def _blurred(images: Images, loss: float) -> Images:
    from scipy.ndimage import gaussian_filter

    sigma = max(0.4, 9 * (loss - 0.28))
    return np.asarray(gaussian_filter(images, sigma=(0, 0, sigma, sigma)), dtype=np.uint8)
