"""`nas study run --dry-run`: print what would be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studies.cli.console import stdout
from studies.record.formats import counted, format_bytes, format_duration
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from studies.config.study import StudyConfig
    from studies.run.forecast import Forecast


def print_forecast(config: StudyConfig, root: Path, storage: str | None) -> None:
    """Print trials, epochs, and estimates of time, memory and disk; write nothing."""
    from studies.run.forecast import forecast

    found = forecast(config, root, storage)
    table = Table(Column("", text=True), Column("", text=True))
    for label, text in _rows(config, root, found):
        table.add(label, text)
    stdout.table(table)
    stdout.say("nothing was run and nothing was written", style="dim")


def _rows(config: StudyConfig, root: Path, found: Forecast) -> Iterator[tuple[str, str]]:
    new = found.record is None
    yield "study", f"{config.name} in {root}, {'new' if new else 'goes on'}"
    more = "" if new else f" of {config.search.trials}, the others are done"
    references = f", and {counted(found.references, 'reference model')}"
    yield "trials", f"{found.trials}{more}{references * bool(found.references)}"
    if found.confirmations:
        yield "confirmation", f"at most {counted(found.confirmations, 'training')} at the end"
    if found.epochs:
        most = ", fewer where a training is stopped early" if config.search.early_stopping else ""
        yield "epochs", f"{found.epochs} of each training{most}"
        yield (
            "images",
            "not known before they are read"
            if found.images is None
            else f"{'at most ' * found.at_most}{found.images:,} for training",
        )
    yield "workers", f"{found.workers}" + (" (assumed)" if config.runner == "ray" else "")
    yield "time", _time(found)
    yield "memory", f"at most about {format_bytes(found.memory_bytes)}"
    cached = f", {format_bytes(found.cached_bytes)} of cached images" if found.cached_bytes else ""
    yield "disk", f"about {format_bytes(found.disk_bytes)} of weights and pictures{cached}"


def _time(found: Forecast) -> str:
    if found.speeds is None:
        return "not known: no study of this space was measured on this machine"
    if found.trial_s is None or found.search_s is None or found.confirmation_s is None:
        return "not known: it depends on the number of images"
    end = f", and at most {format_duration(found.confirmation_s)} to confirm"
    return (
        f"about {format_duration(found.search_s)}{end if found.confirmation_s else ''}; a trial "
        f"takes {format_duration(found.trial_s)}, as measured in study {found.speeds.study}"
    )
