"""Reconstruct and encode an image with the model beside this file.

    python run.py IMAGE [--out FOLDER]

writes the reconstruction (NAME-reconstruction.png) and the latent mean (NAME-latent.npy). From
Python, `Model()` encodes, decodes and reconstructs arrays.

It needs numpy and the runtime that `deployment.json` names. Pictures are read by Pillow where it is
installed, and get the size of the model as the training images did. Without Pillow, an image is a
.npy array or a .ppm or .pgm file, and has the size of the model.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


class UnusableError(ValueError):
    """An image that cannot be used; the message is one line."""


class Model:
    """The deployed model. Images are float32 `(n, channels, height, width)` in [0, 1].

    Args:
        folder: The folder of `deployment.json`.

    Attributes:
        about: The content of `deployment.json`.
    """

    def __init__(self, folder: Path = HERE) -> None:
        self._folder = folder
        text = (folder / "deployment.json").read_text(encoding="utf-8")
        self.about: dict[str, Any] = json.loads(text)
        self._runs: dict[str, Callable[[Any], list[Any]]] = {}

    def reconstruct(self, images: Any) -> tuple[Any, Any]:
        """Return the reconstructions of images from their latent means, and these means."""
        rebuilt, latents, _ = self._each("model", images)
        return rebuilt, latents

    def encode(self, images: Any) -> Any:
        """Return the latent means of images, `(n, latent)`."""
        return self._each("encoder", images)[0]

    def decode(self, latents: Any) -> Any:
        """Return the images of latents `(n, latent)`."""
        return self._each("decoder", latents)[0]

    def _each(self, part: str, values: Any) -> list[Any]:
        """Run a part on one item after the other, because its files are for one."""
        if part not in self._runs:
            path = self._folder / self.about["files"][part]
            self._runs[part] = RUNTIMES[self.about["runtime"]](path, self.about)
        items = np.ascontiguousarray(values, dtype=np.float32)
        passes = [self._runs[part](items[i : i + 1]) for i in range(len(items))]
        return [np.concatenate(outputs) for outputs in zip(*passes, strict=True)]


def in_onnxruntime(path: Path, about: dict[str, Any]) -> Callable[[Any], list[Any]]:
    """Return what runs an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = about["threads"], 1
    options.log_severity_level = 3  # errors
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    name = session.get_inputs()[0].name
    return lambda values: list(session.run(None, {name: values}))


def in_openvino(path: Path, about: dict[str, Any]) -> Callable[[Any], list[Any]]:
    """Return what runs a model in OpenVINO."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": about["threads"],
        "INFERENCE_PRECISION_HINT": about["inference_precision"],
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    return lambda values: list(request.infer([values]).values())


RUNTIMES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


def read_image(path: Path, about: dict[str, Any]) -> Any:
    """Return an image as the model takes it, `(1, channels, height, width)`.

    Raises:
        UnusableError: it cannot be read, or it does not have the size of the model.
    """
    if not path.is_file():
        raise UnusableError(f"{path}: is no file")
    try:
        return _as_input(path, _pixels(path, about["image"]), about["image"])
    except UnusableError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises each for a damaged file
        raise UnusableError(f"{path}: cannot be read as an image ({error})") from None


def _pixels(path: Path, image: dict[str, Any]) -> Any:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    found = _by_pillow(path, image)
    return _of_netpbm(path) if found is None else found


def _as_input(path: Path, pixels: Any, image: dict[str, Any]) -> Any:
    shape = image["channels"], image["height"], image["width"]
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape != shape:
        pixels = pixels.transpose(2, 0, 1)
    if pixels.shape != shape:
        found = " x ".join(map(str, pixels.shape))
        wanted = " x ".join(map(str, shape))
        raise UnusableError(f"{path}: is {found}; the model takes {wanted} (height, width last)")
    values = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    if not 0 <= values.min() <= values.max() <= 1:
        raise UnusableError(f"{path}: has values outside of 0 to 1; give these, or uint8")
    return values[None]


def _by_pillow(path: Path, image: dict[str, Any]) -> Any:
    """Return a picture in the size of the model, `(height, width, channels)`.

    The steps are those of the training images. None where Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    size, largest = (image["width"], image["height"]), max(image["width"], image["height"])
    with Image.open(path) as opened:
        opened.draft(None, (2 * largest, 2 * largest))
        picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith(("I", "F")):
        raise UnusableError(f"{path}: has levels of more than 8 bits; give a .npy array")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = _fitted(picture.convert("RGB"), size, image["fit"])
    return np.asarray(picture if image["channels"] == 3 else picture.convert("L"))


def _fitted(picture: Any, size: tuple[int, int], fit: str) -> Any:
    """Return a picture of this width and height: squashed, its centre, or with white borders."""
    from PIL import Image, ImageOps

    method, (width, height) = Image.Resampling.BILINEAR, size
    if fit == "pad":
        return ImageOps.pad(picture, size, method, color="white")
    if fit == "squash":
        return picture.resize(size, method)
    part_width = min(picture.width, picture.height * width / height)
    part_height = min(picture.height, picture.width * height / width)
    left, top = (picture.width - part_width) / 2, (picture.height - part_height) / 2
    return picture.resize(size, method, box=(left, top, left + part_width, top + part_height))


def _of_netpbm(path: Path) -> Any:
    """Return the pixels of a .ppm or .pgm file of 8 bits, `(height, width, channels)`."""
    content = path.read_bytes()
    channels = {b"P6": 3, b"P5": 1}.get(content[:2])
    if channels is None:
        raise UnusableError(f"{path}: install Pillow, or give a .npy, .ppm or .pgm file")
    numbers: list[int] = []
    at = 2
    while len(numbers) < 3:
        while content[at : at + 1].isspace():
            at += 1
        end = content.index(b"\n", at) if content[at : at + 1] == b"#" else at
        if end == at:
            while content[end : end + 1].isdigit():
                end += 1
            numbers.append(int(content[at:end]))
        at = end
    width, height, most = numbers
    if most != 255:
        raise UnusableError(f"{path}: has levels up to {most}; 255 is needed")
    pixels = np.frombuffer(content, np.uint8, width * height * channels, at + 1)
    return pixels.reshape(height, width, channels)


def png(pixels: Any) -> bytes:
    """Return uint8 pixels `(height, width, 1 or 3)` as a PNG file."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _write(folder: Path, name: str, rebuilt: Any, latent: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    latent_path = folder / f"{name}-latent.npy"
    np.save(latent_path, latent)
    if len(rebuilt) not in (1, 3):
        np.save(folder / f"{name}-reconstruction.npy", rebuilt)
        return [folder / f"{name}-reconstruction.npy", latent_path]
    levels = np.rint(rebuilt * 255).clip(0, 255).astype(np.uint8)
    picture = folder / f"{name}-reconstruction.png"
    picture.write_bytes(png(levels.transpose(1, 2, 0)))
    return [picture, latent_path]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reconstruct and encode the image of a command line."""
    parser = argparse.ArgumentParser(description="Reconstruct and encode an image.")
    parser.add_argument("image", type=Path, help="picture, or .npy array")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    given = parser.parse_args(arguments)
    try:
        model = Model(HERE)
        rebuilt, latents = model.reconstruct(read_image(given.image, model.about))
        for path in _write(given.out, given.image.stem, rebuilt[0], latents[0]):
            print(path)
    except (OSError, UnusableError) as error:
        sys.exit(f"run.py: {error}")


if __name__ == "__main__":
    main()
