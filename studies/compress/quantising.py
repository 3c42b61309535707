"""The stage `quantise`: trained models in a lower precision, beside float32 in the same runtime.

A stage is one runtime in one precision. Each model is calibrated on training images; in int8 its
most sensitive layers stay in floating point where the loss costs more than is allowed. What is
judged and timed is loaded from the files that are kept, as `nas deploy` does.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from nas.artefacts import folder_or_refuse, full_disk_refused, write_or_refuse
from nas.checkpoint import load_vae, weights_digest
from nas.deploy.source import Source
from nas.deploy.variants import Built, Variant
from nas.evaluate import static_costs
from nas.objectives import latency_in
from nas.own.objectives import own_static_costs
from nas.vae import VAE
from profiling.backends import FLOAT32, find_backend
from profiling.errors import ProfilingError
from profiling.fresh_process import FreshProcess
from profiling.latency import LatencyConfig, Ratio
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.compress.folder import StageFolder, stage_name
from studies.compress.training import Setting
from studies.deploy.choice import Bounds
from studies.deploy.examination import Builders, NotBuilt, Start, build
from studies.record.compressed import LOWERED, Costs, Lowered, Stage, Training
from studies.record.deployed import format_cost

TIMED = latency_in("deployed")
"""The latency as it is deployed: one image, decoding the latent mean, in the stage's runtime."""

_VARIANTS = "variants"
"""Folder of the files of one model until they are judged."""


def quantise_stage(
    setting: Setting,
    variant: Variant,
    bounds: Bounds,
    models: Mapping[int, Path],
    before: StageFolder | None,
    start: Start = FreshProcess,
) -> StageFolder:
    """Run models in a lower precision and record what it costs; return the stage's folder.

    Args:
        setting: What all stages have in common.
        variant: The runtime and the precision.
        bounds: What it may cost of the loss.
        models: Seed of a training -> file of its weights.
        before: The stage whose models they are; None if they are those of the trial.
        start: Starts the process in which models are built and timed.

    Raises:
        UserError: the runtime cannot run a model, or a file cannot be written.
        ProfilingError: the process ended.
    """
    folder = StageFolder(setting.study.folder, _stage(setting, variant, bounds, models, before))
    for seed, weights in models.items():
        if folder.stage.find(LOWERED, seed) is None:
            work = folder_or_refuse(folder.path / _VARIANTS)
            source = Source.of(weights, setting.dataset, setting.training(seed), _threads(setting))
            with full_disk_refused(folder.path), Builders(source, work, start) as builders:
                _Model(setting, folder, builders, seed, weights).add(variant, bounds)
            shutil.rmtree(work)
    return folder


def _threads(setting: Setting) -> int:
    return setting.config.latency.threads


def _stage(
    setting: Setting,
    variant: Variant,
    bounds: Bounds,
    models: Mapping[int, Path],
    before: StageFolder | None,
) -> Stage:
    trial, after = setting.trial, before.stage if before else None
    packages = find_backend(variant.backend).packages(variant.precision)
    common = {name: value for name, value in setting.common.items() if name != "epochs"}
    first = load_vae(next(iter(models.values())))
    settings = {
        **common,
        "variant": variant.stem,
        "bound": bounds.of(variant),
        "threads": _threads(setting),
        "packages": {name: version(name) for name in packages},
        "after": after.name if after else None,
        "weights": weights_digest(first.state_dict()),
    }
    return Stage(
        kind="quantise",
        name=stage_name(trial.number, "quantise", settings),
        title=f"{after.title if after else trial.name}, in {variant.name}",
        trial=trial.number,
        after=after.name if after else None,
        architecture=first.architecture,
        settings=settings,
    )


class _Model:
    """One model of a stage, from its weights to its record."""

    def __init__(
        self, setting: Setting, folder: StageFolder, builders: Builders, seed: int, weights: Path
    ) -> None:
        self._setting, self._folder, self._builders = setting, folder, builders
        self._seed, self._weights = seed, weights

    def add(self, variant: Variant, bounds: Bounds) -> None:
        """Build, time and judge the model; keep its files and record it."""
        title, seed = self._folder.stage.title, self._seed
        with self._setting.progress_bar(f"{variant.name}, seed {seed}") as progress:
            try:
                plain = build(self._builders, Variant(variant.backend, FLOAT32), bounds)
                lowered = build(self._builders, variant, bounds)
            except NotBuilt as error:
                raise UserError(f"{title}: {error}") from None
            progress(1, 3)
            if not self._folder.begun:
                self._begin(plain, lowered)
            progress(2, 3)
            source = self._setting.judged(load_vae(self._weights), "source", seed)
            trainings = source, self._judged(plain, "float32"), self._judged(lowered, LOWERED)
            progress(3, 3)
        self._keep(lowered)
        self._folder.add(*trainings)
        loss = self._setting.study.trained[0].name
        self._setting.say(
            f"{title}: seed {seed}: {loss} {trainings[-1].validation[loss]:.4f}, "
            f"{format_cost(lowered.quality.cost)} of the loss"
        )

    def _begin(self, plain: Built, lowered: Built) -> None:
        """Time the model in PyTorch and in both precisions, and begin the record with the costs."""
        settings, threads = self._setting.config, _threads(self._setting)
        known = settings.latency.model_dump(include=set(LatencyConfig.model_fields) - {"batch"})
        found = self._builders.measure(
            (plain, lowered),
            LatencyConfig.model_validate({**known, "threads": threads}),
            lambda done, total: None,
        )
        architecture = self._folder.stage.architecture
        static = static_costs(architecture) | own_static_costs(architecture, settings.wanted)

        def costs(name: str) -> Costs:
            latency, over = found.counted(name), found.ratio(name)
            return Costs(
                values={**static, TIMED: latency.median_ms},
                intervals={TIMED: (latency.interval_ms.low, latency.interval_ms.high)},
                over_source={TIMED: _triple(over)},
                contended=found.contended,
            )

        over_float32 = found.ratio(lowered.variant.name, plain.variant.name)
        result = costs(lowered.variant.name).model_copy(
            update={"over_float32": {TIMED: _triple(over_float32)}}
        )
        others = {"float32": costs(plain.variant.name)}
        self._folder.begin(costs(found.reference), result, others=others)

    def _judged(self, built: Built, role: str) -> Training:
        """Evaluate a model in its runtime on all validation and test images."""
        try:
            self._builders.call("parts", built)
        except ProfilingError as error:
            raise UserError(f"{self._folder.stage.title}: {error}") from None
        model = InRuntime(self._folder.stage.architecture, self._builders)
        quality = built.quality
        lowered = Lowered(
            cost=quality.cost,
            interval=(quality.interval.low, quality.interval.high),
            worst=quality.worst,
            images=quality.images,
            kept=built.keep,
            unserved=tuple(name for name, _ in built.in_float),
            file_bytes=built.file_bytes,
        )
        found = self._setting.judged(model, role, self._seed)
        return found.model_copy(update={"lowered": lowered})

    def _keep(self, built: Built) -> None:
        """Move the files of the model into the stage's folder, beside the weights in float32."""
        for path in sorted(built.path.parent.glob(f"{built.path.stem}.*")):
            path.replace(self._folder.path / f"{LOWERED}-{self._seed}{path.suffix}")
        write_or_refuse(self._folder.weights(LOWERED, self._seed), self._weights.read_bytes())


class InRuntime(VAE):
    """A VAE whose encoder and decoder run in another process, in the runtime of a variant.

    Its own weights are not used.

    Args:
        architecture: The architecture.
        builders: Has built the parts of the variant.
    """

    def __init__(self, architecture: Architecture, builders: Builders) -> None:
        super().__init__(architecture)
        self._builders = builders

    def forward(self, images: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance, as `VAE.forward`; eps must be given."""
        assert eps is not None
        given = (one.cpu().contiguous().numpy() for one in (images, eps))
        rebuilt, mean, log_variance = (
            torch.from_numpy(one).to(images.device)
            for one in self._builders.call("reconstruct", *given)
        )
        return rebuilt, mean, log_variance


def _triple(ratio: Ratio) -> tuple[float, float, float]:
    return ratio.median, ratio.interval.low, ratio.interval.high
