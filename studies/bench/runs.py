"""Every (table, contender, seed) once: one file each, made in any order, by several processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nas.artefacts import write_or_refuse
from search_spaces.errors import UserError
from studies.bench.contenders import Contender, contender
from studies.bench.shipped import load_table
from studies.bench.simulation import as_records, simulate
from studies.bench.tables import Table

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Bout:
    """One search: which contender, on which table, from which seed, with how much."""

    table: str
    sampler: str
    seed: int
    trials: int
    workers: int

    def file(self, folder: Path) -> Path:
        """Return where its result is kept."""
        setting = f"{self.table}-{self.trials}x{self.workers}"
        return folder / "runs" / setting / f"{self.sampler}-{self.seed}.json"


def run_all(
    bouts: Sequence[Bout], folder: Path, processes: int = 1, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Run what has no result yet; return all results in the order of `bouts`.

    Args:
        bouts: What to run.
        folder: Where the results are kept; an interrupted comparison goes on there.
        processes: How many run at the same time.
        progress: Called with (done, total), those found done included.

    Raises:
        UserError: a table or a contender that there is none of.
    """
    for bout in bouts:
        if contender(bout.sampler).epochs_needed and _table(bout.table).epochs == 1:
            raise UserError(f"{bout.sampler}: stops early, but table {bout.table} has one epoch")
    missing = missing_of(bouts, folder)
    done = len(bouts) - len(missing)
    for _ in _run(missing, folder, processes):
        done += 1
        if progress:
            progress(done, len(bouts))
    return [_read(bout.file(folder)) for bout in bouts]


def missing_of(bouts: Sequence[Bout], folder: Path) -> list[Bout]:
    """Return the bouts that have no result, or one of the table as it was before."""
    return [bout for bout in bouts if not _valid(bout.file(folder), bout.table)]


def stored_results(bout: Bout, folder: Path) -> list[dict[str, Any]]:
    """Return every valid result in the setting of `bout`: of all samplers and seeds."""
    files = sorted(bout.file(folder).parent.glob("*.json"))
    return [_read(file) for file in files if _valid(file, bout.table)]


def _run(missing: Sequence[Bout], folder: Path, processes: int) -> Iterator[None]:
    if processes == 1 or len(missing) < 2:
        for bout in missing:
            run_one(bout, folder)
            yield
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(run_one, bout, folder) for bout in missing]):
            yield job.result()


def run_one(bout: Bout, folder: Path) -> None:
    """Run one search and write its result as a whole."""
    run_contender(bout, contender(bout.sampler), folder)


def run_contender(bout: Bout, chosen: Contender, folder: Path) -> None:
    """Run one search of a contender that need not be among `CONTENDERS`, and write its result."""
    table = _table(bout.table)
    asker = chosen.asker(table, bout.seed)
    stopping = chosen.stopping(table, asker) if chosen.stopping else None
    search = simulate(table, asker, bout.trials, bout.workers, stopping)
    file = bout.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    result = {**asdict(bout), "fingerprint": table.fingerprint, **as_records(search)}
    write_or_refuse(file, json.dumps(result).encode())


def _valid(file: Path, table: str) -> bool:
    """Whether there is a result, of the table as it is now."""
    return file.exists() and _read(file)["fingerprint"] == _table(table).fingerprint


def _read(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text())
    return read


@cache
def _table(name: str) -> Table:
    return load_table(name)
