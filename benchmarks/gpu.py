"""Exercise every CUDA path on a GPU, in at most eight minutes: `python -m benchmarks.gpu`.

Trains, times both reference models beside the paper's figures, runs every backend, records traces,
holds the measurement lane against a training, and runs a small study. Each section is a process of
its own with a time limit; one that fails, hangs or crashes costs one line, and the others go on.
Writes FOLDER/gpu.json and FOLDER/gpu.md after every section, so that an interruption loses none.

`--device cpu --small` runs the same sections on small models without a GPU, in a minute or two.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nas.artefacts import folder_or_refuse, write_or_refuse
from profiling.openmp import wait_passively
from search_spaces.errors import UserError

Row = dict[str, Any]

TITLES: dict[str, str] = {
    "environment": "Device and environment",
    "references": "Reference models: wall clock, CUDA events, CUDA graph, the paper's Tesla T4",
    "training": "Training",
    "backends": "Backends, against eager in float32 in the same rounds",
    "traces": "Traces",
    "lane": "Measurement lane: a ratio measured beside a training",
    "study": "A small study",
}
"""Section -> title; the sections run in this order, the most useful ones first."""

SHARES: dict[str, float] = {
    "environment": 0.06, "references": 0.20, "training": 0.22, "backends": 0.38, "traces": 0.1,
    "lane": 0.14, "study": 0.25,
}  # fmt: skip
"""Largest share of the whole time that a section may take. They add up to more than 1, because
most sections end earlier; the last ones get what is left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections and write the JSON file and the page; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("nas-gpu"), help="folder (%(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit (%(default)s)")
    parser.add_argument("--small", action="store_true", help="small models, a few passes")
    parser.add_argument("--only", choices=list(TITLES), action="append", help="repeatable")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    wait_passively()
    if asked.section:
        from benchmarks.gpu_sections import serve

        return serve(asked.section, asked.device, asked.out, asked.small)
    try:
        _require_device(asked.device)
        folder_or_refuse(asked.out)
        run(asked.out, asked.only or list(TITLES), asked.device, asked.small, 60 * asked.minutes)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _require_device(name: str) -> None:
    from profiling.environment import select_device
    from profiling.errors import ProfilingError

    try:
        select_device(name)
    except ProfilingError as error:
        raise UserError(str(error)) from None


def run(folder: Path, names: Iterable[str], device: str, small: bool, limit_s: float) -> None:
    """Run sections one after the other and write the results after each of them."""
    start, sections = time.monotonic(), dict[str, Row]()
    for name in names:
        left_s = limit_s - (time.monotonic() - start)
        sections[name] = section(name, device, folder, small, min(left_s, limit_s * SHARES[name]))
        failure = sections[name]["failure"]
        print(f"{name}: {sections[name]['seconds']:.0f} s, {failure or 'done'}", flush=True)
        write(folder, sections, time.monotonic() - start)
    print(f"{folder / 'gpu.json'}, {folder / 'gpu.md'}")


def section(name: str, device: str, folder: Path, small: bool, limit_s: float) -> Row:
    """Run one section in a process of its own; return its rows, seconds and failure (or None)."""
    rows = folder / f"{name}.jsonl"
    rows.unlink(missing_ok=True)
    if limit_s < 1:
        return {"seconds": 0.0, "failure": "not begun: the time was used up", "rows": []}
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--device", device]
    command += ["--out", str(folder), *(["--small"] if small else [])]
    start = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        failure = _ended(command, log, limit_s)
    found = [json.loads(line) for line in _whole_lines(rows)]
    told = [one["failure"] for one in found if set(one) == {"failure"}]
    return {
        "seconds": time.monotonic() - start,
        "failure": told[0] if told else failure,
        "rows": [one for one in found if set(one) != {"failure"}],
    }


def _ended(command: Sequence[str], log: Any, limit_s: float) -> str | None:
    """Run a command and everything that it starts; return why it failed, or None."""
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s; the rows so far are kept"
    finally:
        _kill_group(process)
    return None if code == 0 else f"ended with exit code {code}: see {Path(log.name).name}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, whose session it leads."""
    kill: Callable[[], None] = (
        process.kill if os.name != "posix" else lambda: os.killpg(process.pid, signal.SIGKILL)
    )
    try:
        kill()
    except ProcessLookupError:
        return  # all of them have ended
    finally:
        process.wait()


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file; a last one without its end is left out."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def write(folder: Path, sections: dict[str, Row], seconds: float) -> None:
    """Write the JSON file and the page."""
    where: Row = next(iter(sections.get("environment", {}).get("rows", [])), {})
    device = where.get("device_name", "unknown device")
    known = {"device": device, "environment": where, "seconds": seconds, "sections": sections}
    write_or_refuse(folder / "gpu.json", (json.dumps(known, indent=1) + "\n").encode())
    write_or_refuse(folder / "gpu.md", page(device, sections, seconds).encode())


def page(device: str, sections: dict[str, Row], seconds: float) -> str:
    """Return the results as Markdown: one table for each section."""
    parts = [f"# {device}\n\n`python -m benchmarks.gpu`, {seconds / 60:.1f} minutes.\n"]
    for name, found in sections.items():
        parts.append(f"## {TITLES[name]}\n\n{found['seconds']:.0f} s.\n")
        if found["failure"]:
            parts.append(f"Failed: {_cell(found['failure'])}\n")
        if found["rows"]:
            rows = found["rows"]
            parts.append(_facts(rows[0]) if name == "environment" else _table(rows))
    return "\n".join(parts)


def _facts(row: Row) -> str:
    return _table([{"property": key, "value": value} for key, value in row.items()])


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
