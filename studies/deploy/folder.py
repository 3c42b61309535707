"""Write the folder of a deployment, as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.artefacts import folder_or_refuse, write_or_refuse
from nas.deploy.passes import Reconstruction
from nas.deploy.variants import variants_of
from nas.setups import ON_TARGETS
from profiling.files import new_folder, require_writable
from profiling.fresh_process import FreshProcess
from search_spaces.errors import UserError
from studies.deploy import run
from studies.deploy.card import card
from studies.deploy.deployment import Deployment, Wish
from studies.deploy.examination import Builders, Start, examine
from studies.deploy.page import page
from studies.deploy.subject import Subject
from studies.record.deployed import FOLDER
from studies.record.table_files import cannot_write
from studies.run.evaluators import ProgressBar

_VARIANTS = "variants"
"""Folder of the variants while they are examined."""


def require_new(out: Path) -> None:
    """Check, before the work, that a folder can be written and does not exist.

    Raises:
        UserError: it exists, or the folder that is to hold it does not.
        ProfilingError: it cannot be written.
    """
    if os.path.lexists(out):
        raise UserError(f"--out {out}: exists; remove it, or give another folder")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; create it")
    require_writable(out.parent)


def deploy(
    subject: Subject,
    wish: Wish,
    out: Path,
    progress_bar: ProgressBar,
    start: Start = FreshProcess,
) -> Deployment:
    """Examine the variants of a model, and write the folder of the one that is chosen.

    Args:
        subject: The model and its images.
        wish: What is asked for.
        out: The folder, which must not exist.
        progress_bar: Makes a progress bar from a label.
        start: Starts the process in which variants are built and timed.

    Raises:
        UserError: nothing can be deployed, or the folder cannot be written; then there is none.
        ProfilingError: a variant that was built cannot be run.
    """
    require_new(out)
    source = subject.source(wish.config.threads)
    model = Reconstruction(subject.trained.model).eval()
    variants = [
        one
        for one in variants_of(model, wish.backends, wish.precisions)
        if wish.target is None or one.runtime == ON_TARGETS
    ]
    if not variants:
        names = ", ".join(wish.backends or ["the backends"])
        where = f" on {wish.target.address.name}" if wish.target else ""
        raise UserError(
            f"--precision {','.join(wish.precisions)}: none of {names}{where} computes in it; name "
            "another backend, or leave the option out"
        )
    with (
        _whole(out) as partial,
        Builders(source, partial / _VARIANTS, start, wish.target) as builders,
    ):
        (partial / _VARIANTS).mkdir()
        with progress_bar("building and measuring variants") as progress:
            examined = examine(builders, variants, wish.bounds, wish.config, progress)
        there = {"target": wish.target.address.name} if wish.target else {}
        metadata = {**subject.metadata, "variant": examined.chosen.variant.name, **there}
        shipped = builders.call("ship", examined.chosen, partial, metadata)
        shutil.rmtree(partial / _VARIANTS)
        found = Deployment(subject, wish, examined, shipped)
        for name, content in _contents(found).items():
            (partial / name).write_bytes(content)
        _record(found)
    return found


def _record(found: Deployment) -> None:
    """Write the record of the deployment into the folder of the model's study, if it has one."""
    study, trial = found.subject.trained.study, found.subject.trained.trial
    if study is not None and trial is not None:
        folder = folder_or_refuse(study.folder / FOLDER)
        record = found.record(trial.number)
        text = record.model_dump_json(indent=1) + "\n"
        write_or_refuse(folder / f"{trial.digest}{record.file}", text.encode())


def _contents(found: Deployment) -> dict[str, bytes]:
    return {
        "deployment.json": found.to_json(),
        "README.md": card(found).encode(),
        "report.html": page(found).encode(),
        "run.py": Path(run.__file__).read_bytes(),
    }


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Yield a partial folder that becomes `out`; a disk that is full is refused in one line."""
    try:
        with new_folder(out) as partial:
            yield partial
    except OSError as error:
        raise cannot_write("--out", out, error) from None
