"""`nas profile explain`: the causes of the latency gap between two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from studies.cli.console import stdout
from studies.cli.help import TableHelp
from studies.cli.options import Listed, OutPath, Positive, Whole, progress_bar, root_option
from studies.cli.subjects import Subject, file_name, hold_lane, writable
from studies.record.table_files import cannot_write, csv_text
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from nas.explain.explanation import Explanation
    from studies.profiles.explain_words import Words


def _all_batches(
    context: click.Context, parameter: click.Parameter, values: tuple[list[int], ...]
) -> tuple[int, ...]:
    """Return the batch sizes of an option that may be given several times, in order."""
    return tuple(dict.fromkeys(size for sizes in values for size in sizes))


@click.command(cls=TableHelp)
@click.argument("a")
@click.argument("b")
@click.option(
    "--batch",
    "batches",
    type=Listed(Whole(1), "batch size"),
    multiple=True,
    default=("1",),
    show_default=True,
    callback=_all_batches,
    metavar="N,...",
    help="Batch sizes, as in --batch 1,8.",
)
@click.option(
    "--threads", type=Whole(1, 1024), default=1, show_default=True,
    help="Number of CPU threads.",
)  # fmt: skip
@click.option(
    "--rounds", type=Whole(2), default=15, show_default=True,
    help="Number of rounds in which all variants are timed.",
)  # fmt: skip
@click.option(
    "--seconds",
    type=Positive(),
    default=90.0,
    show_default=True,
    help="Time limit for each batch size in seconds, without warm-up.",
)
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu or cuda.")
@click.option(
    "-o",
    "--out",
    type=OutPath(),
    help="Folder to write to. Default: a new one in nas-profiles.",
)
@root_option
def explain(
    a: str,
    b: str,
    batches: tuple[int, ...],
    threads: int,
    rounds: int,
    seconds: float,
    device: str,
    out: Path | None,
    root: Path,
) -> None:
    """Explain why B is slower than A by experiments whose results add up to the gap.

    A and B are references ({references}, original@64), files, or STUDY#TRIAL. Writes
    explain.html, explain.json and causes.csv. Takes one to two minutes for the two references at
    batch 1, more at larger batches.
    """
    from nas.explain.measure import ExplainConfig, explain_latency
    from profiling.environment import select_device
    from studies.profiles.explain_words import Words

    first, second = Subject.find(a, root), Subject.find(b, root)
    names = (first.name, second.name)
    config = ExplainConfig(
        batches=batches, threads=threads, rounds=rounds, max_s=seconds, device=device
    )
    pair = (first.architecture, second.architecture)
    hold_lane(select_device(device))
    folder = writable(out or Path("nas-profiles") / file_name("explain-" + "-".join(names)))
    with progress_bar("measuring") as progress:
        found = explain_latency(
            *pair,
            names,
            config,
            images=(first if first.artefacts else second).fed,
            weights=(first.weights, second.weights),
            progress=progress,
        )
    for comparison in found.comparisons:
        _print(Words(found, comparison))
    page = _write(found, folder)
    stdout.say(f"explanation: {page}")


def _print(words: Words) -> None:
    found, names = words.comparison, words.explanation
    stdout.print()
    stdout.say(words.verdict.replace("`", ""), wrap=True)
    stdout.print()
    heads = (names.a_name, names.b_name, "gap", "95 %", "share", "alone", "layers")
    table = Table(Column(f"batch {found.batch}, ms", text=True), *heads)
    columns = ("a", "b", "gap", "interval", "share", "alone", "layers")
    for row in words.causes:
        mark = " *" if row["busy"] else ""
        table.add(f"{row['title']}{mark}", *(str(row[column]) for column in columns))
    stdout.table(table)
    if any(row["busy"] for row in words.causes):
        stdout.say("* contended: the machine was busy during this measurement", style="dim")
    stdout.say(f"{100 * found.explained_share:.1f} % of the gap explained", style="dim")
    stdout.print()


def _write(found: Explanation, folder: Path) -> Path:
    from studies.profiles.explain_page import write_explanation

    try:
        numbers = found.model_dump_json(indent=1) + "\n"
        (folder / "explain.json").write_text(numbers, encoding="utf-8")
        _write_causes(found, folder / "causes.csv")
    except OSError as error:
        raise cannot_write("--out", folder, error) from None
    return write_explanation(found, folder / "explain.html")


def _write_causes(found: Explanation, path: Path) -> None:
    names = ("batch", "cause", "a_ms", "b_ms", "gap_ms", "low_ms", "high_ms", "share")
    rows: list[tuple[object, ...]] = []
    for comparison in found.comparisons:
        for cause in (*comparison.causes, comparison.remainder):
            gap = cause.gap_ms
            times = (cause.a_ms.value, cause.b_ms.value, gap.value, gap.low, gap.high)
            rows.append((comparison.batch, cause.title, *times, cause.share))
    path.write_text(csv_text(names, rows), encoding="utf-8")
