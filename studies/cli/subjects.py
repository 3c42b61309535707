"""Arguments of `nas profile`: the model or layer to measure, and the folder of results."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.cli.console import stdout
from studies.cli.options import find_architecture, find_artefacts, progress_bar

if TYPE_CHECKING:
    import torch

    from nas.datasets import ImageDataset
    from nas.protocol import TrainingConfig
    from nas.timed_models import TimedImages
    from nas.vae import VAE
    from profiling.comparison import BackendRow
    from profiling.handmade import HandmadeLayer
    from profiling.latency import LatencyConfig
    from profiling.sweep import CapturedLayer


@dataclass(frozen=True)
class Subject:
    """The model to measure.

    Attributes:
        name: The model's name as the user gave it, or the name of its file without the suffix.
        architecture: Its architecture.
        artefacts: Its folder of artefacts, if it is a trial of a study.
    """

    name: str
    architecture: Architecture
    artefacts: Path | None

    @classmethod
    def find(cls, text: str, root: Path) -> Subject:
        """Find the model that the user names; see `find_architecture` for the forms of `text`.

        Raises:
            UserError: `text` names no architecture.
        """
        in_file = Path(text).suffix in {".json", ".yaml", ".yml"}
        name = Path(text).stem if in_file else text
        return cls(name, find_architecture(text, root), find_artefacts(text, root))

    def require_memory(self, batch: int, place: torch.device, *, training: bool = False) -> None:
        """Refuse a step that cannot run or does not fit into memory, before anything is allocated.

        Raises:
            UserError: the model cannot run at this batch size.
            ProfilingError: the step needs more memory than `place` has.
        """
        import torch

        from nas.vae import build_vae
        from profiling.errors import ProfilingError
        from profiling.memory import require_memory

        with torch.device("meta"):
            outline, example = build_vae(self.architecture), self.images(batch, "meta")
        try:
            require_memory(outline, example, place, training=training)
        except ProfilingError:
            raise
        except (ValueError, RuntimeError) as error:  # such as BatchNorm over a single value
            raise UserError(f"{self.name}, --batch {batch}: {str(error).splitlines()[0]}") from None

    def build(self, device: str) -> tuple[VAE, torch.device, str]:
        """Build the model for inference on a device, prepared for measuring as in studies.

        A trial has its trained weights. Any other model has initial weights, with BatchNorm
        statistics of the images that it is timed on.

        Returns:
            The model, the device, and the description of the weights.

        Raises:
            UserError, ProfilingError: an unknown device, or a model too large for memory.
        """
        from nas.timed_models import timed_model
        from profiling.environment import select_device

        place = select_device(device)
        prepare(place)
        self.require_memory(1, place)
        model, weights = timed_model(self.architecture, self.fed, place, self.weights)
        return model, place, weights

    @property
    def weights(self) -> Path | None:
        """The file of its trained weights, if there is one."""
        from nas.artefacts import WEIGHTS

        path = self.artefacts / WEIGHTS if self.artefacts else None
        return path if path and path.is_file() else None

    @cached_property
    def fed(self) -> TimedImages:
        """The images that it is timed on: of its study if it is a trial, else noise."""
        from nas.timed_models import TimedImages

        found = self.architecture
        noise = TimedImages.noise(found.image_size, found.image_channels)
        if self.artefacts is None:
            return noise
        samples = self.artefacts.parent / "samples.npy"
        return (TimedImages.read(samples) or noise).fit(found)

    def report(self, root: Path) -> Path | None:
        """Rewrite the report of the model's study, so that it links to the new profile.

        Returns:
            The report's path; None if the model is not from a study, or the study has no report.
        """
        from studies.report.report import write_report
        from studies.store.store import StudyStore

        if self.artefacts is None:
            return None
        record = StudyStore.open(root, self.name.rpartition("#")[0]).record()
        shown = record.folder / "report.html"
        return write_report(record) if shown.exists() else None

    def training(self, root: Path) -> TrainingConfig:
        """Return the settings of the loss of the study whose trial the model is."""
        from studies.record.model_files import loss_settings
        from studies.store.store import StudyStore

        study = StudyStore.open(root, self.name.rpartition("#")[0]).record()
        return loss_settings(study.config.get("training"))

    def images(self, batch: int = 1, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return one batch of the images that it is timed on, the same at each call.

        Shape: (batch, channels, height, width).
        """
        import torch

        found = self.architecture
        if torch.device(device).type == "meta":
            return torch.empty((batch, *found.image_shape), device="meta")
        return self.fed.tensor(device, batch)[:batch]

    def noise(self, batch: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return fixed noise for the latent sample, which makes a forward pass repeatable.

        Shape: (batch, latent_size).
        """
        import torch

        shape = (batch, self.architecture.latent_size)
        return torch.randn(shape, generator=_generator(device), device=device)


def prepare(device: torch.device) -> None:
    """Prepare to measure: keep freed memory, as studies do, and hold the device's lane.

    The environment records whether the allocator accepted the setting. Trainings on this host
    pause at their next batch until the command ends.
    """
    from profiling.allocator import tune_allocator

    tune_allocator()
    hold_lane(device)


def hold_lane(device: torch.device) -> None:
    """Hold the measurement lane of a device until the current command ends."""
    from profiling.lane import Lane

    click.get_current_context().with_resource(Lane(str(device)).measuring())


def _generator(device: torch.device | str) -> torch.Generator | None:
    import torch

    device = torch.device(device)
    return None if device.type == "meta" else torch.Generator(device).manual_seed(0)


def latency_config(batch: int, threads: int, seconds: float) -> LatencyConfig:
    """Return the configuration of a measurement that takes about `seconds`."""
    from profiling.latency import LatencyConfig

    warm_up_s = min(10.0, seconds / 2 or seconds)  # half of the smallest number is 0
    return LatencyConfig(batch=batch, threads=threads, max_s=seconds, max_warmup_s=warm_up_s)


def find_layer(
    words: Sequence[str], root: Path, device: str
) -> tuple[HandmadeLayer | CapturedLayer, str]:
    """Return the layer to measure and its title.

    `words` is either a kind of layer with its sizes (`dsconv in=64 out=128 size=36`) or a model and
    a path inside it (`original decoder.stages.2`). A layer of a model is returned on the device,
    with the input that it gets inside the model.

    Raises:
        UserError, ProfilingError: `words` has neither form; the message suggests the nearest kind
            or path.
    """
    from profiling.environment import select_device
    from profiling.handmade import LAYER_TYPES, parse_layer
    from profiling.sweep import capture_input

    text = " ".join(words)
    first, *rest = text.split() or [""]
    if first in LAYER_TYPES or (len(rest) != 1 or "=" in rest[0]):
        if first not in LAYER_TYPES and not rest:
            raise UserError(
                f"layer {text!r}: give a model and a path inside it (original decoder.stages.2), "
                "or a kind with its sizes (dsconv in=64 out=128 size=36); "
                f"kinds: {', '.join(LAYER_TYPES)}"
            )
        prepare(select_device(device))
        return parse_layer(text), text
    subject = Subject.find(first, root)
    vae, place, _ = subject.build(device)
    captured = capture_input(vae, rest[0], subject.fed.tensor(place))
    return replace(captured, batch=1), f"{subject.name} {rest[0]}"


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[int]]:
    """Parse texts such as `batch=1,2,4`; return the values of each axis.

    Raises:
        UserError: a text has another form, or an axis is given twice.
    """
    over: dict[str, list[int]] = {}
    for text in texts:
        axis, _, values = text.partition("=")
        numbers = [value.strip() for value in values.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,12}", number) for number in numbers):
            raise UserError(f"--sweep {text}: give an axis and whole numbers, such as batch=1,2,4")
        if axis in over:
            raise UserError(
                f"--sweep {text}: {axis} is given twice; list all its values in one --sweep"
            )
        over[axis] = [int(number) for number in numbers]
    return over


def images_of(subject: Subject, folder: Path | None, root: Path) -> ImageDataset | None:
    """Return images in a folder, or those of a trained trial's study; None where there are none.

    Raises:
        UserError: the folder cannot be read, or has too few images.
    """
    from nas.datasets import DataConfig, require_source
    from studies.run.images import load_images
    from studies.store.store import StudyStore

    size, channels = subject.architecture.image_size, subject.architecture.image_channels
    try:
        if folder is not None:
            config = DataConfig(kind="folder", path=folder)
        elif subject.weights is not None:
            study = StudyStore.open(root, subject.name.rpartition("#")[0])
            config = DataConfig(**study.record().config["data"])
        else:
            return None
        require_source(config, size)  # before waiting for the lane
        return load_images(config, size, progress_bar, channels)
    except UserError as error:
        if folder is not None:
            raise UserError(f"--images: {str(error).removeprefix('path: ')}") from None
        stdout.say(f"without images of the study: {error}", style="dim", wrap=True)
        return None


def choose_backends(names: list[str] | None, device: str) -> list[str] | None:
    """Check the backends of `--backends`; None means all backends.

    Raises:
        ProfilingError: a name is unknown.
        UserError: none of the named backends can run here; the message says what to do.
    """
    from profiling.backends import find_backend
    from profiling.environment import select_device

    if names is None:
        return None
    place = select_device(device)
    reasons = {name: find_backend(name).unavailable(place) for name in names}
    if all(reasons.values()):
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        raise UserError(f"--backends {','.join(names)}: {why}")
    return names


def training_loss(images: torch.Tensor) -> Callable[[Any], torch.Tensor]:
    """Return the training loss as a function of the model's outputs for `images`."""
    from nas.losses import vae_loss

    def loss(outputs: Any) -> torch.Tensor:
        reconstruction, mean, log_variance = outputs
        return vae_loss(reconstruction, images, mean, log_variance).total

    return loss


def writable(folder: Path) -> Path:
    """Create a folder and check, before anything is measured, that files can be written there.

    When the command ends, folders that were created here and are still empty are removed.

    Raises:
        UserError: the folder cannot be written.
    """
    from studies.record.table_files import cannot_write

    probe = folder / ".writable"
    new = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write("--out", folder, error) from None
    if context := click.get_current_context(silent=True):
        context.call_on_close(lambda: _remove_empty(new))
    return folder


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # it holds files
        for folder in folders:
            folder.rmdir()


def file_name(title: str) -> str:
    """Return `title` as a folder name: other characters than letters, digits, `_.=@` become `-`."""
    return re.sub(r"[^\w.=@-]+", "-", title).strip("-.") or "layer"


def save_rows(rows: Sequence[BackendRow], path: Path) -> None:
    """Write a comparison of backends: as JSON if the suffix is `.json`, otherwise as CSV.

    Raises:
        UserError: the file cannot be written.
    """
    from studies.record.table_files import table_of, write_table

    kind = "json" if path.suffix == ".json" else "csv"
    write_table(table_of([row.record() for row in rows]), path, kind)
