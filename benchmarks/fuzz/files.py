"""Every kind of file that `nas` reads, each malformed, with the commands that read it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.fuzz.cases import Case
from benchmarks.fuzz.damage import (
    ODD_FILES,
    TEXTS,
    Damage,
    content,
    foreign,
    raw_values,
    wrong_arrays,
    wrong_lines,
    wrong_tensors,
    wrong_values,
)

_STUDY = "work/nas-studies/good"


@dataclass(frozen=True)
class Read:
    """A kind of file.

    Attributes:
        kind: Its name.
        pattern: Its path below the scratch folder; the first match is damaged.
        form: How it is written: yaml, json, lines (of JSON), npy, tensors or other.
        commands: The commands that read it, as written on a command line.
        wrong: Number of files with a wrong value.
        optional: Whether a command may go on without what is damaged.
    """

    kind: str
    pattern: str
    form: str
    commands: tuple[str, ...]
    wrong: int = 30
    optional: bool = True


_WITHOUT_EFFECT = ("growth_rate", "stem_width", "head_width")
"""Fields that are dropped unread where the network does not have them."""
_OF_STUDY = (
    *("study show good", "study list", "study export good", "study best good", "study report good"),
    *("study effects good", "study run tiny.yaml --name good", "profile predict good#0"),
)
READS: tuple[Read, ...] = (
    Read("study.yaml", "work/tiny.yaml", "yaml", ("study run tiny.yaml",), 120, optional=False),
    Read(
        "space", "work/tiny-space.yaml", "yaml",
        ("space show tiny-space.yaml", "space sample tiny-space.yaml", "study run tiny.yaml",
         "profile calibrate --space tiny-space.yaml --minutes 0.01"),
        120, optional=False,
    ),
    Read(
        "architecture", "work/tiny.json", "json",
        ("profile predict tiny.json", "export tiny.json --untrained --onnx x.onnx"), 60,
        optional=False,
    ),
    Read("journal", f"{_STUDY}/journal.log", "lines", _OF_STUDY, 200),
    Read("SQLite", "work/indb.db", "other", ("study show indb", "study list"), 0),
    Read(
        "stored study.yaml", f"{_STUDY}/study.yaml", "yaml",
        ("study show good", "study run tiny.yaml --name good", "study run good --dry-run",
         "study list"), 40,
    ),
    Read("weights", f"{_STUDY}/artefacts/*/*.safetensors", "tensors",
         ("export good#original --onnx x.onnx", "study best good",
          "export tiny.json --onnx x.onnx --weights nas-studies/good/artefacts/w.safetensors")),
    Read("samples", f"{_STUDY}/artefacts/samples.npy", "npy", ("study report good",)),
    Read("reconstructions", f"{_STUDY}/artefacts/*/reconstructions.npy", "npy",
         ("study report good",)),
    Read("samples from the prior", f"{_STUDY}/artefacts/*/prior_samples.npy", "npy",
         ("study report good",)),
    Read("compression", f"{_STUDY}/compressed/*/record.json", "json",
         ("study report good", "compress good#2 --prune 0.5 --epochs 1 --seeds 1"), 60),
    Read("latency samples", f"{_STUDY}/artefacts/*/latency.json", "json", ("study report good",)),
    Read("lock", f"{_STUDY}/journal.log.driver", "other",
         ("study run tiny.yaml --name good", "study show good")),
    Read("artefacts", f"{_STUDY}/artefacts", "folder",
         ("study report good", "study best good", "study run tiny.yaml --name good")),
    Read("studies folder", "work/nas-studies", "folder", ("study list", "study show good")),
    Read("image cache", "cache/datasets/*images*.npy", "npy",
         ("data preview faces --size 16 --rows 1", "study run tiny.yaml --name other")),
    Read("label cache", "cache/datasets/*labels*.npy", "npy",
         ("data preview faces --size 16 --rows 1",)),
    Read("cache folder", "cache", "folder", ("data preview faces --size 16 --rows 1",)),
    Read("predictor", "cache/predictors/*.jsonl", "lines", ("profile predict tiny.json",), 60),
    Read("speeds", "cache/speeds/*.json", "json", ("study run tiny.yaml --name other",), 20),
    Read("bench result", "work/nas-bench/runs/*/*.json", "json",
         ("bench search --samplers random --seeds 1 --trials 5 --no-figures --table vae",), 60),
    Read("image", "work/celeba/img_align_celeba/*.jpg", "other",
         ("data preview folder --path celeba/img_align_celeba --size 16 --rows 1",
          "data preview celeba --path celeba --size 16 --rows 1")),
    Read("image folder", "work/celeba/img_align_celeba", "folder",
         ("data preview folder --path celeba/img_align_celeba --size 16 --rows 1",
          "data preview celeba --path celeba --size 16 --rows 1")),
    Read("CelebA list", "work/celeba/list_attr_celeba.csv", "table",
         ("data preview celeba --path celeba --size 16 --rows 1",)),
    Read("ONNX target", "work/x.onnx", "other", ("export good#2 --onnx x.onnx",)),
)  # fmt: skip


def file_cases(pristine: Path, rng: random.Random) -> Iterator[Case]:
    """Yield the cases of malformed files; `pristine` holds the valid ones."""
    for read in READS:
        path = next(iter(sorted(pristine.glob(read.pattern))), None)
        if path is None:
            if "x.onnx" not in read.pattern:
                raise FileNotFoundError(f"no {read.kind} at {read.pattern}: the examples lack it")
            path = pristine / read.pattern
        for damage in _damages(read, path, str(path.relative_to(pristine)), rng):
            line = rng.choice(read.commands)
            yield Case(
                f"file: {read.kind}",
                tuple(line.split()),
                (damage,),
                may_pass=read.optional
                or damage.how.startswith(("byte-order", "flipped", "cut at 99%"))
                or any(name in damage.how for name in _WITHOUT_EFFECT)
                or "1_000" in damage.how
                or damage.how == "search.trials = 0",  # the references alone
            )


def _damages(read: Read, path: Path, place: str, rng: random.Random) -> Iterator[Damage]:
    for how, write in ODD_FILES.items():
        yield Damage(place, how, write)
    if read.form == "folder":
        yield Damage(place, "a file", content(b"x"))
        yield Damage(place, "an empty file", content(b""))
        return
    valid = path.read_bytes() if path.is_file() else b""
    found = [*foreign(valid, rng), *_of_form(read, valid, rng)]
    for how, data in found:
        yield Damage(place, how, content(data))


def _of_form(read: Read, valid: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    if read.form in ("yaml", "json"):
        data = yaml.safe_load(valid) if read.form == "yaml" else json.loads(valid)
        texts = [*TEXTS.items(), *wrong_values(data, rng, read.wrong)]
        if read.form == "yaml":
            texts += raw_values(data, rng, read.wrong)
        yield from ((how, text.encode("utf-8", "surrogatepass")) for how, text in texts)
        yield "byte-order mark", b"\xef\xbb\xbf" + valid
    elif read.form == "lines":
        yield from wrong_lines(valid.decode(), rng, read.wrong)
    elif read.form == "npy":
        yield from wrong_arrays(valid)
    elif read.form == "tensors":
        yield from wrong_tensors(valid)
    elif read.form == "table":
        text = valid.decode()
        yield "huge fields", text.encode() + b"x" * 300_000 + b"\n"
        yield "an open quote", b'"' + text.encode()
        yield "no numbers", text.replace("-1", "maybe").encode()
        yield "fewer columns", "".join(f"{line[:20]}\n" for line in text.splitlines()).encode()
        yield "byte-order mark", b"\xef\xbb\xbf" + valid
        yield "carriage returns", text.replace("\n", "\r").encode()
