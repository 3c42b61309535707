"""The sections of `benchmarks.gpu`: each yields rows, which are written one by one as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.latency_trust import row
from nas.datasets import DataConfig, load_dataset
from nas.latency import measure_pair
from nas.setups import SetUp
from nas.timed_models import TimedImages, timed_model
from nas.training import Trainer, TrainingConfig
from profiling.allocator import tune_allocator
from profiling.backends import BACKENDS
from profiling.comparison import compare_backends
from profiling.environment import fingerprint, has_bfloat16, select_device
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.paired import PairedLatency
from profiling.trace import record_trace
from profiling.trace_page import write_trace_html
from search_spaces.architecture import Architecture
from search_spaces.references import MODIFIED, ORIGINAL, PUBLISHED, REFERENCES
from studies.cli.subjects import training_loss

Row = dict[str, Any]

BESIDE = "beside"
"""Name of the section that only trains, until its process is ended; `lane` starts it."""


@dataclass(frozen=True)
class Scale:
    """How large the sections are.

    Attributes:
        size: Side of the images in pixels.
        models: Names of the reference models.
        batches: Batch sizes of the latencies.
        compiles: Whether backends that compile are among the compared, which takes minutes.
        images: Images of a training.
        max_s: Limit of a latency measurement in seconds.
        measurement: Further settings of the latency measurements.
        study: Options of the small study.
    """

    size: int = 144
    models: tuple[str, ...] = ("original", "modified")
    batches: tuple[int, ...] = (1, 32)
    compiles: bool = True
    images: int = 640
    max_s: float = 6.0
    measurement: Mapping[str, Any] | None = None
    study: tuple[str, ...] = ("--space", "quickstart", "--images", "400")

    @property
    def latency(self) -> dict[str, Any]:
        """Settings of a latency measurement, without its batch size."""
        return {"max_s": self.max_s, "max_warmup_s": self.max_s / 2, **(self.measurement or {})}


FULL = Scale()
SMALL = Scale(
    size=16,
    models=("original",),
    batches=(1, 2),
    compiles=False,
    images=20,
    max_s=0.2,
    measurement={"min_rounds": 2, "max_rounds": 2, "max_warmup": 2, "warmup_window": 1},
    study=("--space", "tiny", "--images", "12"),
)


@dataclass(frozen=True)
class Setting:
    """Where a section runs, how large it is, and the folder of its files."""

    device: torch.device
    folder: Path
    scale: Scale

    @property
    def models(self) -> dict[str, Architecture]:
        """Name -> reference model at this size."""
        return {name: REFERENCES[name].resized(self.scale.size) for name in self.scale.models}

    def set_up(self, batch: int) -> SetUp:
        """Return the settings of one pair measurement."""
        return SetUp.model_validate({**self.scale.latency, "batch": batch, "attempts": 1})


def environment(setting: Setting) -> Iterator[Row]:
    """Yield the environment, with the properties of a GPU."""
    found = {"torch_cuda_build": torch.version.cuda, **fingerprint(setting.device).model_dump()}
    found["bfloat16"] = has_bfloat16(setting.device)
    if setting.device.type == "cuda":
        about = torch.cuda.get_device_properties(setting.device)
        found["compute_capability"] = f"{about.major}.{about.minor}"
        found["multiprocessors"] = about.multi_processor_count
        found["memory_gb"] = about.total_memory / 1e9
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    yield {**found, "allocator": json.dumps(found["allocator"])}


def references(setting: Setting) -> Iterator[Row]:
    """Yield the latency of each reference at each batch size, and the paper's.

    Both are measured beside `original`; on a GPU by wall-clock time, between CUDA events, and as a
    replayed CUDA graph.
    """
    lane, images = Lane(str(setting.device)), TimedImages.noise(setting.scale.size)
    for batch in setting.scale.batches:
        for name, architecture in setting.models.items():
            pair = measure_pair(architecture, setting.set_up(batch), setting.device, lane, images)
            published = _published(name, batch) if architecture == REFERENCES[name] else {}
            yield {"model": name, "batch": batch, **_latency(pair), **published}


def _latency(pair: PairedLatency) -> Row:
    one = pair.candidate
    return {
        "ms": one.median_ms,
        "low_ms": one.interval_ms.low,
        "high_ms": one.interval_ms.high,
        "events_ms": one.device_median_ms,
        "graph_ms": pair.replayed.median_ms if pair.replayed else None,
        "over_original": pair.ratio.median,
        "over_original_low": pair.ratio.interval.low,
        "over_original_high": pair.ratio.interval.high,
        "rounds": len(pair.interleaved.rounds),
        "contention": "; ".join(pair.contention),
    }


def _published(name: str, batch: int) -> Row:
    """Return the paper's figures for a batch size that it has, at 144 pixels on a Tesla T4."""
    times = {
        model: {1: one.latency_batch_1_ms, 32: one.latency_batch_32_ms}.get(batch)
        for model, one in PUBLISHED.items()
    }
    own, original = times[name], times["original"]
    if own is None or original is None:
        return {}
    return {"t4_ms": own[0], "t4_deviation_ms": own[1], "t4_over_original": own[0] / original[0]}


def training(setting: Setting) -> Iterator[Row]:
    """Yield images per second, losses and memory of two epochs, by model and precision."""
    dataset = load_dataset(DataConfig(kind="faces", count=setting.scale.images), setting.scale.size)
    precisions = ["float32", *(["bfloat16"] if has_bfloat16(setting.device) else [])]
    for name, architecture in setting.models.items():
        for precision in precisions:
            for last in (False, True):
                config = TrainingConfig.model_validate(
                    {"epochs": 2, "precision": precision, "channels_last": last}
                )
                _forget_peak(setting.device)
                trainer = Trainer(architecture, dataset, config, setting.device)
                for result in trainer.epochs():
                    yield {
                        "model": name,
                        "precision": precision,
                        "channels_last": last,
                        "epoch": result.epoch,
                        "images_per_s": result.images_per_s,
                        "train_loss": result.train_loss,
                        "validation_loss": result.validation.total,
                        "reconstruction_loss": result.validation.reconstruction,
                        "kl": result.validation.kl,
                        "peak_gb": _peak_gb(setting.device),
                    }


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def backends(setting: Setting) -> Iterator[Row]:
    """Yield each backend in each precision, timed in the same rounds as eager in float32.

    Those that compile come last, because they take longest to prepare.
    """
    compiling = {"compile"}
    yield from _compared(setting, [name for name in BACKENDS if name not in compiling])
    if setting.scale.compiles:
        yield from _compared(setting, sorted(compiling))


def _compared(setting: Setting, names: Sequence[str]) -> Iterator[Row]:
    images = TimedImages.noise(setting.scale.size)
    for batch, (model, architecture) in product(setting.scale.batches, setting.models.items()):
        built, _ = timed_model(architecture, images, setting.device)
        fed = images.tensor(setting.device, batch)
        noise = torch.randn(len(fed), architecture.latent_size).to(setting.device)
        shorter = {"max_s": setting.scale.max_s / 2, "priming_ms": 10.0, "batch": batch}
        config = LatencyConfig.model_validate({**setting.scale.latency, **shorter})
        for name in names:
            with Lane(str(setting.device)).measuring():
                found = compare_backends(built, (fed, noise), [name], config, setting.device)
            shown = found[name != "eager" :]  # the first row is eager in float32
            yield from ({"model": model, "batch": batch, **one.record()} for one in shown)


def traces(setting: Setting) -> Iterator[Row]:
    """Yield what a recorded step of inference and of training took; write their pages."""
    for name, architecture in setting.models.items():
        images = TimedImages.noise(setting.scale.size)
        model, _ = timed_model(architecture, images, setting.device)
        fed = images.tensor(setting.device, 8)[:8]
        for trains in (False, True):
            step = "training" if trains else "inference"
            folder = setting.folder / f"trace-{name}-{step}"
            found = record_trace(
                model, fed, folder, training=trains, device=setting.device,
                loss=training_loss(fed),
            )  # fmt: skip
            write_trace_html(found, folder / "trace.html")
            kernels = [span for span in found.step.spans if span.kind == "kernel"]
            yield {
                "model": name,
                "step": step,
                "plain_ms": found.setup.plain_ms,
                "inflation": found.inflation,
                "operators": sum(span.kind == "operator" for span in found.step.spans),
                "kernels": len(kernels),
                "kernel_ms": sum(span.duration_us for span in kernels) / 1000,
                "peak_gb": found.peak_bytes / 1e9,
                "page": f"{folder.name}/trace.html",
            }


def lane(setting: Setting) -> Iterator[Row]:
    """Yield one ratio measured alone, beside a training that shares the lane, and one without it.

    The ratio and its verdict should be those of a quiet machine with the lane, and be flagged or
    biased without it.
    """
    model, setup = MODIFIED.resized(setting.scale.size), setting.set_up(1)
    own = setting.folder / "own-lane"
    for beside, place in (("nothing", None), ("a training", ""), ("a training, no lane", str(own))):
        with nullcontext() if place is None else _trained_beside(setting, place):
            held = Lane(str(setting.device))
            pair = measure_pair(model, setup, setting.device, held)
        yield row(pair, beside=beside, waited_s=held.waited_s)


@contextmanager
def _trained_beside(setting: Setting, lane_folder: str) -> Iterator[None]:
    """Let another process train on the device while the body runs; `lane_folder` is its lane's."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", BESIDE]
    command += ["--device", str(setting.device), "--out", str(setting.folder)]
    command += ["--small"] if setting.scale is SMALL else []
    environment_ = {**os.environ, **({"NAS_LANE_DIR": lane_folder} if lane_folder else {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment_)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the training beside the measurement has ended")
        yield
    finally:
        process.kill()
        process.wait()


def beside(setting: Setting) -> Iterator[Row]:
    """Train until this process is ended; print a line when the first step is done."""
    tune_allocator()
    held = Lane(str(setting.device))
    dataset = load_dataset(DataConfig(kind="faces", count=setting.scale.images), setting.scale.size)
    config = TrainingConfig(epochs=10**6, patience=10**6)
    architecture = ORIGINAL.resized(setting.scale.size)
    with held.training():
        trainer = Trainer(architecture, dataset, config, setting.device)

        def at_batch(done: int, total: int) -> None:
            if done == 1 and not trainer.history:
                print("training", flush=True)
            held.enter()

        for _ in trainer.epochs(on_batch=at_batch):
            pass
    yield {}


def study(setting: Setting) -> Iterator[Row]:
    """Yield the trials of a study of three candidates and both references, one epoch each."""
    from studies.cli.main import nas
    from studies.store.store import StudyStore

    settings = {**setting.scale.latency, "attempts": 1}
    words = ["study", "run", "quickstart", "--name", "gpu", "--trials", "3", "--epochs", "1"]
    words += ["--device", setting.device.type, "--root", str(setting.folder)]
    words += [*setting.scale.study, "--set", "confirmation=null"]
    for key, value in settings.items():
        words += ["--set", f"latency.{key}={value}"]
    nas.main(words, standalone_mode=False)
    for trial in StudyStore.open(setting.folder, "gpu").record().trials:
        yield {
            "trial": trial.reference or f"#{trial.number}",
            "state": trial.state,
            **trial.objectives,
            **{
                name: trial.metrics.get(name)
                for name in ("latency_events_ms", "latency_graph_ms", "images_per_s")
            },
            "contended": trial.contended,
            "reason": trial.reason,
        }


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "environment": environment,
    "references": references,
    "training": training,
    "backends": backends,
    "traces": traces,
    "lane": lane,
    "study": study,
    BESIDE: beside,
}
"""Section -> what it yields. `benchmarks.gpu.TITLES` has their order."""


def serve(name: str, device: str, folder: Path, small: bool) -> int:
    """Run one section and append its rows to FOLDER/NAME.jsonl; a failure is the last line."""
    setting = Setting(select_device(device), folder.absolute(), SMALL if small else FULL)
    if name != BESIDE:
        tune_allocator()
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        try:
            for one in SECTIONS[name](setting):
                print(json.dumps(one), file=file, flush=True)
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), "")
            failure = f"{type(error).__name__}: {first}"
            print(json.dumps({"failure": failure}), file=file, flush=True)
            raise
    return 0
