"""`nas profile explain`: the causes of the latency gap between two models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search_spaces.errors import UserError
from studies.cli.console import stdout
from studies.cli.help import TableHelp
from studies.cli.options import Listed, OutPath, Positive, Whole, progress_bar, root_option
from studies.cli.setup_options import place_of, setup_of, setup_options
from studies.cli.subjects import Subject, file_name, hold_lane, writable
from studies.record.table_files import cannot_write, csv_text
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from nas.explain.explanation import Explanation
    from nas.explain.in_setups import Comparison
    from nas.setups import SetUp
    from studies.profiles.explain_words import Words


def _all_batches(
    context: click.Context, parameter: click.Parameter, values: tuple[list[int], ...]
) -> tuple[int, ...]:
    """Return the batch sizes of an option that may be given several times, in order."""
    return tuple(dict.fromkeys(size for sizes in values for size in sizes))


@click.command(cls=TableHelp)
@click.argument("a")
@click.argument("b", required=False)
@click.option(
    "--against", metavar="BACKEND", help="Compare A in --backend with A in this backend; no B."
)
@setup_options
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
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda or mps.")
@click.option(
    "-o",
    "--out",
    type=OutPath(),
    help="Folder to write to. Default: a new one in nas-profiles.",
)
@root_option
def explain(
    a: str,
    b: str | None,
    against: str | None,
    batches: tuple[int, ...],
    threads: int,
    rounds: int,
    seconds: float,
    device: str,
    out: Path | None,
    root: Path,
    **named: str | None,
) -> None:
    """Explain why B is slower than A by experiments whose results add up to the gap.

    A and B are references ({references}, original@64), files, or STUDY#TRIAL. Writes
    explain.html, explain.json and causes.csv. Takes one to two minutes for the two references at
    batch 1, more at larger batches. With --backend, --part ... A and B are compared in that set-up,
    with --against A in two backends: latencies, and the operations that run.
    """
    from nas.explain.measure import ExplainConfig, explain_latency
    from profiling.environment import select_device
    from studies.profiles.explain_words import Words

    if (b is None) == (against is None):
        raise UserError(
            "explain: name a second model, or compare one in two backends with --against BACKEND"
        )
    first, second = Subject.find(a, root), Subject.find(a if b is None else b, root)
    protocol = {"threads": threads, "max_s": seconds, "min_rounds": rounds, "attempts": 2}
    setup = setup_of(named, **protocol, max_rounds=max(200, rounds))
    if against or setup.differing:
        setups = setup, _other(setup, against) if against else setup
        _in_setups((first, second), setups, batches, device, out)
        return
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


def _in_setups(
    pair: tuple[Subject, Subject],
    setups: tuple[SetUp, SetUp],
    batches: tuple[int, ...],
    device: str,
    out: Path | None,
) -> None:
    """Compare two models in one set-up, or one model in two."""
    from nas.explain.in_setups import ToCompare, compare_in_setups
    from profiling.environment import select_device
    from studies.profiles.setups_page import write_comparison

    place = place_of(setups[0], device)
    if setups[1] != setups[0]:
        place_of(setups[1], device)
    for one in pair:
        one.require_memory(max(batches), select_device(device))
    words = (*(one.name for one in pair), *(one.backend for one in setups))
    title = file_name("-".join(("explain", *dict.fromkeys(words))))
    folder, found = writable(out or Path("nas-profiles") / title), []
    images = (pair[0] if pair[0].artefacts else pair[1]).fed
    for batch in batches:
        first, second = (
            ToCompare(
                one.name, one.architecture, setup.model_copy(update={"batch": batch}), one.weights
            )
            for one, setup in zip(pair, setups, strict=True)
        )
        with progress_bar("measuring") as progress:
            found.append(compare_in_setups(first, second, place, images, progress))
        _print_comparison(found[-1])
    try:
        text = json.dumps([one.model_dump(mode="json") for one in found], indent=1) + "\n"
        (folder / "explain.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write("--out", folder, error) from None
    stdout.say(f"explanation: {write_comparison(found, folder / 'explain.html')}")


def _other(setup: SetUp, against: str) -> SetUp:
    """Return the set-up of --against."""
    if setup.target:
        raise UserError("--against: compares two backends of this machine; leave --target out")
    return setup_of({"backend": against}, **setup.model_dump(exclude={"backend"}))


def _print_comparison(found: Comparison) -> None:
    from studies.profiles import setups_page as page

    stdout.print()
    stdout.say(page.verdict(found).replace("`", ""), wrap=True)
    stdout.print()
    texts = [Column("model", text=True), Column("set-up", text=True)]
    times = Table(*texts, "latency", "95 %", "over the first (95 %)")
    for row in page.time_rows(found):
        times.add(*row)
    stdout.table(times)
    if rows := page.operation_rows(found):
        table = Table(Column("operations in one pass", text=True), *page.names(found))
        for kind, *numbers in rows:
            table.add(kind, *numbers)
        stdout.table(table)
    for note in page.notes(found):
        stdout.say(note, style="dim", wrap=True)
    stdout.print()


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
