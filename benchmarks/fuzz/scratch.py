"""A folder with one valid example of every kind of file, which is restored after each input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Run = Callable[[Sequence[str]], None]
"""Runs `nas` with these arguments inside the scratch folder."""

Snapshot = dict[str, tuple[str, bytes]]
"""Relative path -> kind of file and the digest of its content (or the target of a link)."""

SPACE = """\
name: tiny
fixed:
  image_size: 16
  latent_size: 4
  encoder.depth: 1
  decoder.depth: 1
  decoder.upsampling: nearest
  encoder.head: flatten
axes:
  encoder.base_width: [2, 3, 4]
  decoder.base_width: [2, 3, 4]
  decoder.seed_width: [2, 4]
"""
STUDY = """\
space: tiny-space.yaml
data: {kind: faces, count: 20}
objectives: [reconstruction_loss, params, latency_ms]
training: {epochs: 1, batch_size: 8}
latency: {max_s: 0.2, min_rounds: 2, max_warmup_s: 0.2, attempts: 1,
  priming_ms: 0, min_sample_ms: 0}
search: {sampler: random, trials: 2}
device: cpu
workers: 1
"""
FIFO = "fifo"
VALID_LINES = (
    "study run tiny.yaml --name good",
    "compress good#2 --prune 0.5 --epochs 1 --seeds 1",
    "study run tiny.yaml --name indb --storage sqlite:///indb.db --objectives params,macs",
    "data export faces celeba --size 16 --count 12",
    "bench search --samplers random --seeds 1 --trials 5 --no-figures --table vae",
    "target add here --host 127.0.0.1 --port 1",
)
"""The commands that write the examples."""


class Scratch:
    """The folder that inputs may damage: the working folder, the home and the cache of `nas`.

    Args:
        folder: An existing folder for the files; `scratch` is used and `pristine` kept in it.
    """

    def __init__(self, folder: Path) -> None:
        self.root, self.pristine = folder / "scratch", folder / "pristine"
        self.work = self.root / "work"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that keep every file inside the folder."""
        names = {"HOME": "home", "NAS_CACHE_DIR": "cache", "TMPDIR": "tmp"}
        names["NAS_CONFIG_DIR"] = "home/nas"
        names["NAS_LANE_DIR"] = "cache/lanes"  # measurements elsewhere are not waited for
        places = {name: str(self.root / place) for name, place in names.items()}
        return {**places, "TERM": "dumb", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}

    def prepare(self, run: Run, predictor: Callable[[], None]) -> None:
        """Write the examples, with `nas` itself where it writes the kind of file.

        Args:
            run: Runs `nas` in the scratch folder.
            predictor: Calls `write_predictor` in the scratch folder.
        """
        for name in ("work", "home", "cache", "tmp"):
            (self.root / name).mkdir(parents=True)
        (self.work / "tiny-space.yaml").write_text(SPACE)
        (self.work / "tiny.yaml").write_text(STUDY)
        (self.work / "foreign.json").write_text('{"not": "ours"}')
        os.mkfifo(self.work / FIFO)
        (self.work / "dangling").symlink_to("nowhere")
        (self.work / "loop").symlink_to("loop")
        for line in VALID_LINES:
            run(line.split())
        self._write_architecture()
        predictor()
        _copy(self.root, self.pristine)

    def _write_architecture(self) -> None:
        from search_spaces.space import SearchSpace

        space = SearchSpace.load(str(self.work / "tiny-space.yaml"))
        architecture = space.architecture(space.sample(np.random.default_rng(0)))
        (self.work / "tiny.json").write_text(json.dumps(architecture.to_dict()))

    def restore(self) -> None:
        """Bring every file back to its first state."""
        for path in [self.root, *self.root.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(self.root)
        _copy(self.pristine, self.root)

    def snapshot(self) -> Snapshot:
        """Return what every path below the folder holds now."""
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*")}
        return {name: _state(path) for name, path in found.items() if not _FOREIGN.search(name)}


def write_predictor() -> None:
    """Write a calibration of made-up measurements at the place where `nas` looks for it."""
    from nas.predict.calibration import Calibration, Measurement, Role, Setting, drawn
    from nas.predict.operations import operations
    from profiling.allocator import tune_allocator
    from search_spaces.space import SearchSpace

    tune_allocator()
    calibration = Calibration.here(Setting(image_size=16))
    roles: tuple[Role, Role] = ("fitted", "held_out")
    for number, architecture in enumerate(drawn(SearchSpace.load("tiny-space.yaml"))):
        count, role = len(operations(architecture)), roles[number % 2]
        ratio = 0.02 * count
        times = (0.01,) * count if role == "fitted" else ()
        samples = ((ratio, 1.0), (1.1 * ratio, 1.1))
        calibration.append(Measurement(architecture, role, samples, (), False, times))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(FIFO))
    os.mkfifo(target / "work" / FIFO)


_FOREIGN = re.compile(r"(^|/)(\.ses|\.cache(/Microsoft(/.*)?)?)$")
"""What ONNX Runtime writes into TMPDIR and the home folder when it is imported: its telemetry."""


def _state(path: Path) -> tuple[str, bytes]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "link", str(path.readlink()).encode(errors="surrogateescape")
    if stat.S_ISREG(mode):
        return "file", hashlib.sha256(path.read_bytes()).digest()
    return "folder" if stat.S_ISDIR(mode) else "special", b""
