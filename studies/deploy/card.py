"""The model card of a deployment: `README.md` in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas.deploy.builder import PORTABLE
from nas.deploy.quality import Quality
from profiling.backends import INT8
from studies.deploy.deployment import Deployment
from studies.deploy.words import Row, facts, heads, method, notes, rows, verdict
from studies.record.deployed import format_cost

_USE = """\
```bash
pip install {packages}
python run.py IMAGE
```

writes the reconstruction and the latent mean of an image. From Python, in this folder:

```python
from run import Model

model = Model()
latents = model.encode(images)  # float32 (n, {channels}, {height}, {width}) in [0, 1]
rebuilt = model.decode(latents)
```

Pillow reads pictures where it is installed. Without it, give a `.npy` array or a `.ppm` or `.pgm`
file of the model's size."""


def card(found: Deployment) -> str:
    """Return the model card as Markdown."""
    parts = [
        f"# {found.subject.trained.name}, deployed",
        verdict(found),
        *notes(found),
        "## What it is",
        _listed(facts(found)),
        "## How to use it",
        _use(found),
        "## Files",
        _listed(_files(found)),
        "## Quality",
        _qualities(found),
        "## Variants",
        _table(("Variant", *heads(found), "Result"), map(_cells, rows(found))),
        "## How it was measured",
        method(found),
    ]
    return "\n\n".join(parts) + "\n"


def _use(found: Deployment) -> str:
    channels, height, width = found.subject.architecture.image_shape
    packages = " ".join(f"{name}=={version}" for name, version in found.packages.items())
    return _USE.format(packages=packages, channels=channels, height=height, width=width)


def _files(found: Deployment) -> list[tuple[str, str]]:
    whats = {"model": "image to reconstruction, latent mean and log-variance",
             "encoder": "image to latent mean and log-variance",
             "decoder": "latent to image"}  # fmt: skip
    files = [(_named(name), whats[part]) for part, name in found.shipped.files.items()]
    if found.chosen.variant.precision == INT8:
        files.append((f"`{PORTABLE}`", "the whole model in float32, for other runtimes"))
    files.append(("`deployment.json`", "everything on this page, for programs"))
    return [*files, ("`report.html`", "the variants and their trade-off"), ("`run.py`", "runs it")]


def _named(file: str) -> str:
    """Return the name of a model's file, with that of its weights if they have one of their own."""
    stem, _, suffix = file.rpartition(".")
    return f"`{file}`, `{stem}.bin`" if suffix == "xml" else f"`{file}`"


def _qualities(found: Deployment) -> str:
    known: dict[str, Quality | None] = {
        "validation images": found.chosen.quality,
        "test images": found.shipped.test,
        "validation images, encoder and decoder one after the other": found.examined.parts,
        "validation images, eager PyTorch": found.examined.base,
    }
    titles = ("On", "Images", "Loss", "Cost", "95 %", "Worst image", "SSIM")
    return _table(titles, [(on, *_of(one)) for on, one in known.items() if one is not None])


def _of(one: Quality) -> tuple[str, ...]:
    low, high = map(format_cost, one.interval)
    cost, worst = format_cost(one.cost), format_cost(one.worst)
    return f"{one.images}", f"{one.loss:.4f}", cost, f"{low} to {high}", worst, f"{one.ssim:.4f}"


def _cells(row: Row) -> tuple[str, ...]:
    texts = (f"{one.text} ({one.interval})" if one.interval else one.text for one in row.cells)
    return row.name, *texts, row.verdict


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {label}: {text}" for label, text in pairs)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return "\n".join([line(heads), line(["---"] * len(heads)), *map(line, lines)])
