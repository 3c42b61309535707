"""Run each (table, contender, seed) once; each has a result file, and several may run at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.artefacts import folder_or_refuse, write_or_refuse
from profiling.progress import Progress
from search_spaces.errors import UserError
from search_spaces.visible import visible
from studies.bench.contenders import Contender, contender
from studies.bench.curves import OVER
from studies.bench.shipped import load_table
from studies.bench.simulation import as_records, simulate
from studies.bench.tables import METRICS, Table


@dataclass(frozen=True)
class PlannedSearch:
    """One search.

    Attributes:
        table: Name of the table.
        sampler: Name of the contender.
        seed: Seed of the sampler, and of the noise.
        trials: Budget in full trainings.
        workers: Number of candidates that are trained at the same time.
        noise: Relative standard deviation by which the losses that the search observes differ from
            those of the table, by which it is judged.
    """

    table: str
    sampler: str
    seed: int
    trials: int
    workers: int
    noise: float = 0.0

    def file(self, folder: Path) -> Path:
        """Return the path of its result."""
        setting = setting_name(self.table, self.trials, self.workers, self.noise)
        return folder / "runs" / setting / f"{self.sampler}-{self.seed}.json"


def setting_name(table: str, trials: int, workers: int, noise: float) -> str:
    """Return the part of file names that all searches of one comparison share."""
    noisy = f"-noise{noise:g}" if noise else ""
    return f"{table}-{trials}x{workers}{noisy}"


_Curve = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)]


class _Result(BaseModel):
    """A result as its file has it: the search and the fields of `simulation.as_records`."""

    model_config = ConfigDict(extra="allow")

    table: str
    sampler: str
    seed: int
    trials: int
    workers: int
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    fingerprint: str
    duplicates: int
    distinct: int
    ask_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    regret_fitted: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    time_s: _Curve
    epochs: _Curve
    evaluations: _Curve
    regret: _Curve
    accurate: _Curve
    igd_plus: _Curve
    lowest: _Curve

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        if len({len(getattr(self, name)) for name in (*OVER, *METRICS)}) > 1:
            raise ValueError("the curves differ in length")
        return self


def run_all(
    searches: Sequence[PlannedSearch],
    folder: Path,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run the searches without a result; return all results in the order of `searches`.

    Args:
        searches: The searches, each with its own result file.
        folder: Folder of the results; an interrupted comparison continues there.
        processes: Number of searches that run at the same time.
        progress: Called with (done, total); existing results are included.

    Raises:
        UserError: A table or a contender does not exist, or a contender needs several epochs.
    """
    for planned in searches:
        if contender(planned.sampler).epochs_needed and _table(planned.table).epochs == 1:
            raise UserError(
                f"{planned.sampler}: stops early, but table {planned.table} has one epoch"
            )
    missing = missing_of(searches, folder)
    done = len(searches) - len(missing)
    for _ in _run(missing, folder, processes):
        done += 1
        if progress:
            progress(done, len(searches))
    return [_require(planned.file(folder)) for planned in searches]


def missing_of(searches: Sequence[PlannedSearch], folder: Path) -> list[PlannedSearch]:
    """Return the searches without a result, or with one of an earlier version of the table."""
    return [planned for planned in searches if not _valid(planned.file(folder), planned.table)]


def stored_results(planned: PlannedSearch, folder: Path) -> list[dict[str, Any]]:
    """Return every valid result with the setting of `planned`, of all samplers and seeds."""
    files = sorted(planned.file(folder).parent.glob("*.json"))
    return [_require(file) for file in files if _valid(file, planned.table)]


def _run(missing: Sequence[PlannedSearch], folder: Path, processes: int) -> Iterator[None]:
    if processes == 1 or len(missing) < 2:
        for planned in missing:
            run_one(planned, folder)
            yield
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(run_one, planned, folder) for planned in missing]):
            yield job.result()


def run_one(planned: PlannedSearch, folder: Path) -> None:
    """Run one search and write its result atomically."""
    run_contender(planned, contender(planned.sampler), folder)


def run_contender(planned: PlannedSearch, chosen: Contender, folder: Path) -> None:
    """Run one search of a contender, in `CONTENDERS` or not, and write its result."""
    truth = _table(planned.table)
    table = truth.observed(planned.noise, planned.seed)
    asker = chosen.asker(table, planned.seed)
    stopping = chosen.stopping(table, asker) if chosen.stopping else None
    search = simulate(table, asker, planned.trials, planned.workers, stopping, truth)
    file = planned.file(folder)
    if file.exists() and _read(file) is None:
        print(visible(f"{file}: damaged; the search was run again"), file=sys.stderr)
    folder_or_refuse(file.parent)
    result = {**asdict(planned), "fingerprint": truth.fingerprint, **as_records(search)}
    write_or_refuse(file, json.dumps(result).encode())


def _valid(file: Path, table: str) -> bool:
    """Whether there is a result of the current version of the table."""
    found = _read(file)
    return found is not None and found["fingerprint"] == _table(table).fingerprint


def _require(file: Path) -> dict[str, Any]:
    found = _read(file)
    if found is None:
        raise UserError(f"{file}: damaged or removed meanwhile; run the same command again")
    return found


def _read(file: Path) -> dict[str, Any] | None:
    """Return a stored result; None if it is missing or damaged, so that its search runs again."""
    try:
        content = file.read_bytes() if file.is_file() else b""
        _Result.model_validate_json(content)
    except (OSError, ValueError):
        return None
    read: dict[str, Any] = json.loads(content)
    return read


@cache
def _table(name: str) -> Table:
    return load_table(name)
