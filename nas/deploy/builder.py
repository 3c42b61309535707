"""Build, judge and time the variants of a trained model, in a process that does nothing else.

A runtime may end its process while it compiles a model, and models run slower in a process that
has trained: `profiling.fresh_process` calls a `Builder` in another process. Everything that is
judged and timed is loaded from the file that would be deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.checkpoint import load_vae
from nas.deploy.passes import DECODER, ENCODER, MODEL, OUTPUTS, Decoding, Encoding, Reconstruction
from nas.deploy.quality import HeldOut, Quality, Run
from nas.deploy.source import Pixels, Source
from nas.deploy.variants import Built, Shipped, Variant
from nas.host_meter import environment_of
from nas.losses import vae_loss
from nas.setups import SetUp
from nas.timed_models import TimedImages, timed_model
from nas.timed_parts import quiet_speed
from nas.vae import VAE
from profiling.agreement import Exact
from profiling.backends import FLOAT32, INT8
from profiling.environment import threads
from profiling.lane import Lane
from profiling.latency import LatencyConfig, Model
from profiling.onnx_export import export_onnx
from profiling.paired import InterleavedLatencies, measure_interleaved
from profiling.progress import Progress
from profiling.runtime_files import Converter, file_bytes, loaded, with_metadata
from profiling.sensitivity import sensitivities
from search_spaces.references import ORIGINAL

EAGER, REFERENCE = "eager", "original"
"""Names of what is timed beside the variants: the model and `original`, in eager PyTorch.

On a target, where there is no PyTorch, `nas.deploy.on_target` times `original` as exported.
"""

PORTABLE = "float32.onnx"
"""The model in float32 for other runtimes, where the deployed files are no such ONNX files."""

_SENSITIVITY_IMAGES = 32
_CPU = torch.device("cpu")

Note = Callable[[str], None]


class Builder:
    """Builds the variants of one model in a folder.

    Args:
        source: The model and its images.
        folder: Folder for the files of variants.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source, self._folder, self._lane = source, folder, Lane("cpu")
        self._vae = load_vae(source.weights)
        self._eager = Reconstruction(self._vae).eval()
        self._calibration = _floats(source.calibration)
        self._image = (self._calibration[:1],)
        self._parts: tuple[Run, Run] | None = None
        self._sensitive: tuple[str, ...] | None = None

    def base(self) -> Quality:
        """Return the quality of the model in eager float32, on the validation images."""
        with self._working():
            return self._held_out.base

    def build(self, variant: Variant, keep: Collection[str] = ()) -> Built:
        """Convert the model for a variant, write the files, load them and judge what they compute.

        Args:
            variant: The variant.
            keep: Names of the layers that stay in floating point in int8.

        Raises:
            ProfilingError: the model cannot be converted or run, or something else is computed.
            OSError: a file cannot be written.
        """
        with self._working():
            calibration = self._calibration if variant.precision == INT8 else None
            made = self._converter.convert(variant.backend, variant.precision, calibration, keep)
            # Another name for each, because OpenVINO maps the weights of a loaded file.
            path = made.write(self._folder / f"{variant.stem}-{len(keep)}")
            run = self._loaded(variant, path)
            error = self._checked(variant, run)
            quality = self._held_out.judge(run)
        size = file_bytes(path)
        return Built(variant, path, tuple(keep), made.note, made.in_float, error, quality, size)

    def sensitive_layers(self, progress: Progress | None = None) -> tuple[str, ...]:
        """Return the names of the convolutions and linear layers, the most sensitive first.

        Judged by the loss on training images when one layer alone is in 8-bit integers. Another
        variant gets the same answer without a computation.

        Args:
            progress: Called with (done, total) after each layer.
        """
        if self._sensitive is not None:
            return self._sensitive
        images = self._calibration[:_SENSITIVITY_IMAGES]
        settings = self._source.training

        def loss(model: Run) -> float:
            with torch.inference_mode():
                rebuilt, mean, log_variance = model(images)
                terms = vae_loss(
                    rebuilt, images, mean, log_variance,
                    window=settings.ssim, l1_weight=settings.l1_weight,
                )  # fmt: skip
            return float(terms.reconstruction)

        with self._working():
            self._sensitive = tuple(sensitivities(self._eager, loss, progress))
        return self._sensitive

    def parts(self, built: Built) -> Quality:
        """Build encoder and decoder of a variant, and judge one after the other.

        Raises:
            ProfilingError: one cannot be converted or run.
            OSError: a file cannot be written.
        """
        variant, int8 = built.variant, built.variant.precision == INT8
        with self._working():
            runs = []
            for name, (converter, inputs) in self._part_converters.items():
                given = inputs if int8 else None
                made = converter.convert(variant.backend, variant.precision, given, built.keep)
                path = made.write(_part(built, name))
                runs.append(self._loaded(variant, path))
            encode, decode = self._parts = runs[0], runs[1]
            return self._held_out.judge(lambda images: decode(encode(images)[0]))

    def reconstruct(self, images: npt.NDArray[Any], noise: npt.NDArray[Any]) -> list[Any]:
        """Run the parts that `parts` built last, image by image.

        The caller holds the lane, so it is not taken here: each would wait for the other.

        Args:
            images: float32 `(n, channels, height, width)` in [0, 1].
            noise: float32 `(n, latent)` of the latents' samples; 0 decodes the means.

        Returns:
            Reconstructions, latent means and log-variances.
        """
        assert self._parts is not None
        encode, decode = self._parts
        found, given = [], (torch.split(torch.from_numpy(array), 1) for array in (images, noise))
        with threads(self._source.threads), torch.inference_mode():
            for image, eps in zip(*given, strict=True):
                mean, log_variance = encode(image)
                latent = mean + torch.exp(0.5 * log_variance) * eps
                found.append((decode(latent)[0], mean, log_variance))
        return [torch.cat(parts).numpy() for parts in zip(*found, strict=True)]

    def ship(self, built: Built, target: Path, metadata: Mapping[str, str]) -> Shipped:
        """Write the files of a variant, whose parts are built, with metadata into a folder.

        Args:
            built: The variant.
            target: The folder.
            metadata: Key -> value.

        Raises:
            ProfilingError: a file computes something else than before.
            OSError: a file cannot be written.
        """
        variant, files = built.variant, dict[str, str]()
        with self._working():
            for name in OUTPUTS:
                path = _part(built, name).with_suffix(built.path.suffix)
                files[name] = with_metadata(path, metadata).write(target / name).name
            run = self._loaded(variant, target / files[MODEL])
            self._checked(variant, run)
            if variant.precision == INT8:
                export_onnx(
                    self._eager, self._image[0], target / PORTABLE, OUTPUTS[MODEL], metadata
                )
            return Shipped(files, self._on_test(run))

    def measure(
        self,
        built: Sequence[Built],
        config: LatencyConfig,
        progress: Progress | None = None,
        note: Note | None = None,
    ) -> InterleavedLatencies:
        """Time variants in the same rounds as the model and `original` in eager PyTorch.

        Args:
            built: The variants; each is called by its name.
            config: Settings; `max_s` applies to each model.
            progress: Called with (done, total) after each round.
            note: Called with one line when a target cannot be reached, is busy, or is back.

        Raises:
            ProfilingError: a variant cannot be run.
        """
        images = self._timed_images
        with self._working():
            models: dict[str, Model] = {EAGER: self._eager, **self._reference(images)}
            models |= {one.variant.name: self._loaded(one.variant, one.path) for one in built}
        setup = SetUp(batch=config.batch, threads=config.threads)
        where = environment_of(setup, _CPU)
        return measure_interleaved(
            models,
            EAGER,
            images.tensor(),
            config.model_copy(update={"max_s": config.max_s * len(models)}),
            _CPU,
            quiet=quiet_speed(self._vae.architecture, setup, where, images.about, "latent mean"),
            alone=self._lane.measuring,
            progress=progress,
        )[0]

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lane.training(), threads(self._source.threads):
            yield

    @property
    def _timed_images(self) -> TimedImages:
        return TimedImages(self._source.calibration[:16], self._source.about)

    @cached_property
    def _converter(self) -> Converter:
        return Converter(self._eager, self._image, OUTPUTS[MODEL])

    @cached_property
    def _part_converters(self) -> dict[str, tuple[Converter, Tensor]]:
        """The converters of encoder and decoder, with the inputs that calibrate each."""
        with torch.no_grad():
            latents = self._vae.encode(self._calibration)[0]
        wholes: dict[str, tuple[nn.Module, Tensor]] = {
            ENCODER: (Encoding(self._vae), self._calibration),
            DECODER: (Decoding(self._vae), latents),
        }
        return {
            name: (Converter(whole, (inputs[:1],), OUTPUTS[name]), inputs)
            for name, (whole, inputs) in wholes.items()
        }

    @cached_property
    def _exact(self) -> Exact:
        return Exact.of(self._eager, self._image)

    @cached_property
    def _held_out(self) -> HeldOut:
        images = _floats(self._source.validation)
        return HeldOut(images, self._eager, self._source.training)

    def _on_test(self, run: Run) -> Quality | None:
        if not len(self._source.test):
            return None
        images = _floats(self._source.test)
        return HeldOut(images, self._eager, self._source.training).judge(run)

    def _loaded(self, variant: Variant, path: Path) -> Run:
        return loaded(path, variant.runtime, variant.precision, self._source.threads)

    def _checked(self, variant: Variant, run: Run) -> float:
        if variant.precision == INT8:  # judged by its loss
            return self._exact.finite_error(variant.name, run, self._image)
        lower = variant.precision != FLOAT32
        return self._exact.checked_error(variant.name, run, self._image, lower=lower)

    def _reference(self, images: TimedImages) -> dict[str, nn.Module]:
        """Return `original` for the same images, unless it is the model."""
        ours = self._vae.architecture
        original = ORIGINAL.resized(ours.image_size, ours.image_channels)
        if original.digest == ours.digest:
            return {}
        model: VAE = timed_model(original, images)[0]
        return {REFERENCE: Reconstruction(model).eval()}


def _part(built: Built, name: str) -> Path:
    """Return the path of a pass of a variant, without the suffix."""
    stem = built.path.with_suffix("")
    return stem if name == MODEL else stem.with_name(f"{stem.name}-{name}")


def _floats(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
