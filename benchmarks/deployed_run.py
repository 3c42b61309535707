"""Whether a deployed folder runs alone: in a fresh virtual environment, as torch computes.

    python -m benchmarks.deployed_run MODEL FOLDER [--images N] [--tolerance 1e-4]

FOLDER is what `nas deploy` wrote, and MODEL the trained model that it was made from: STUDY#TRIAL, a
folder of `nas study best`, or a file of weights. The environment gets numpy and the runtime in the
versions of `deployment.json`, and nothing else, so that images come as `.npy` and `.ppm`. What
`run.py` returns there is compared with eager PyTorch: reconstructions, latent means, and encoder
and decoder one after the other. The exit code is 1 if anything differs by more than the tolerance.
It is meant for float32: lower precisions differ by what they cost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from nas.deploy.passes import Reconstruction
from nas.vae import VAE
from studies.store.trained import find_trained

Array = npt.NDArray[Any]

_PROGRAM = """\
import importlib.util, sys
import numpy as np
from run import Model
present = [name for name in ("torch", "PIL", "nas") if importlib.util.find_spec(name)]
assert not present, f"installed too: {present}"
model, images = Model(), np.load(sys.argv[1])
rebuilt, latents = model.reconstruct(images)
encoded = model.encode(images)
np.savez(sys.argv[2], rebuilt=rebuilt, latents=latents, encoded=encoded,
         decoded=model.decode(encoded))
"""
"""Runs in the fresh environment, in the deployed folder."""


def differences(folder: Path, vae: VAE, python: Path, count: int = 4) -> dict[str, float]:
    """Return the largest difference of each result of `run.py` from eager PyTorch.

    Args:
        folder: The deployed folder.
        vae: The model in evaluation mode.
        python: Interpreter in which numpy and the runtime are installed.
        count: Number of images.

    Returns:
        Name -> largest absolute difference. `picture` is that of the PNG, in levels of 255.
    """
    drawn = np.random.default_rng(0).integers(0, 256, (count, *vae.architecture.image_shape))
    pixels = drawn.astype(np.uint8)
    images = pixels.astype(np.float32) / 255
    with torch.inference_mode():
        rebuilt, mean, _ = (
            one.numpy() for one in Reconstruction(vae).eval()(torch.from_numpy(images))
        )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        np.save(work / "images.npy", images)
        _run(python, folder, "-c", _PROGRAM, str(work / "images.npy"), str(work / "found.npz"))
        found = np.load(work / "found.npz")
        picture = _picture(python, folder, work, pixels[0])
    expected = {"rebuilt": rebuilt, "latents": mean, "encoded": mean, "decoded": rebuilt}
    largest = {key: float(np.abs(found[key] - one).max()) for key, one in expected.items()}
    return {**largest, "picture": float(np.abs(picture - 255 * rebuilt[0]).max())}


def _picture(python: Path, folder: Path, work: Path, pixels: Array) -> Array:
    """Return the levels of the picture that `run.py` writes of an image, channels first."""
    image = pixels.transpose(1, 2, 0)
    path = work / ("image.ppm" if image.shape[2] == 3 else "image.pgm")
    Image.fromarray(image.squeeze()).save(path)
    _run(python, work, str(folder / "run.py"), str(path), "--out", str(work / "out"))
    with Image.open(work / "out" / "image-reconstruction.png") as picture:
        levels = np.asarray(picture, dtype=np.float32)
    return levels.reshape(image.shape).transpose(2, 0, 1)


def _run(python: Path, folder: Path, *arguments: str) -> None:
    """Run an interpreter in a folder, without packages of this process."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    clean = {key: value for key, value in os.environ.items() if key not in hidden}
    subprocess.run([str(python), *arguments], cwd=folder, env=clean, check=True)


def fresh_environment(folder: Path, packages: Mapping[str, str]) -> Path:
    """Make a virtual environment with these packages, and return its interpreter."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    _run(python, folder, "-m", "pip", "install", "--quiet", *wanted)
    return python


def main() -> int:
    """Compare, and print the differences."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deployed_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="the trained model: STUDY#TRIAL, a folder or weights")
    parser.add_argument("folder", type=Path, help="the deployed folder")
    parser.add_argument("--root", type=Path, default=Path("nas-studies"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()
    trained = find_trained(options.model, options.root)
    if trained is None:
        parser.error(f"{options.model}: is no trained model")
    folder = options.folder.resolve()
    about = json.loads((folder / "deployment.json").read_text())
    packages = about["packages"]
    with tempfile.TemporaryDirectory() as name:
        python = fresh_environment(Path(name), packages)
        found = differences(folder, trained.model.eval(), python, options.images)
    installed = ", ".join(f"{key} {value}" for key, value in packages.items())
    print(f"{about['backend']} {about['precision']}; {installed}; {options.images} images")
    for key, largest in found.items():
        print(f"{key:8} {largest:.2e}{' of 255 levels' if key == 'picture' else ''}")
    # A picture is rounded to whole levels, by up to a half.
    allowed = {"picture": 0.5 + 255 * options.tolerance}
    return int(any(one > allowed.get(key, options.tolerance) for key, one in found.items()))


if __name__ == "__main__":
    sys.exit(main())
