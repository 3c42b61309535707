"""`nas profile`: the costs of a model, layer by layer, and the peaks of this machine."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import click

from profiling.openmp import wait_passively
from studies.cli.completion import ARCHITECTURES, BACKENDS
from studies.cli.console import stderr, stdout
from studies.cli.formats import format_option, in_place_of_table, show
from studies.cli.main import HelpfulGroup
from studies.cli.options import Listed, OutPath, Positive, Whole, progress_bar, root_option
from studies.cli.subjects import (
    Subject,
    choose_backends,
    file_name,
    find_layer,
    images_of,
    latency_config,
    parse_sweeps,
    prepare,
    save_rows,
    training_loss,
    writable,
)

FOLDER = Path("nas-profiles")

ELSEWHERE: dict[str, tuple[str, str]] = {
    "explain": ("studies.cli.explain:explain", "Explain why one model is slower than another."),
    "calibrate": ("studies.cli.predict:calibrate", "Fit a latency predictor to this machine."),
    "predict": ("studies.cli.predict:predict", "Predict a model's latency without building it."),
}
"""Commands of this group that other modules define, and their one-line help."""


class ProfileGroup(HelpfulGroup):
    """A group that imports the commands of `ELSEWHERE` on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of this module's commands, then those of `ELSEWHERE`."""
        return [*self.commands, *ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; import it if another module defines it."""
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = ELSEWHERE[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        here = [(name, command.get_short_help_str(70)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*here, *((name, text) for name, (_, text) in ELSEWHERE.items())])


@click.group(cls=ProfileGroup)
def profile() -> None:
    """Measure the costs of a model, layer by layer.

    ARCH is a reference ({references}, original@64), a JSON or YAML file, or STUDY#TRIAL.
    """
    wait_passively()


_batch = click.option("--batch", type=Whole(1), default=1, show_default=True, help="Batch size.")
_threads = click.option(
    "--threads",
    type=Whole(1, 1024),
    default=1,
    show_default=True,
    help="Number of CPU threads. Waiting threads sleep, unless OMP_WAIT_POLICY=ACTIVE is set.",
)
_device = click.option(
    "--device", default="auto", show_default=True, help="Device: auto, cpu, cuda or mps."
)
_seconds = click.option(
    "--seconds",
    type=Positive(),
    default=20.0,
    show_default=True,
    help="Time limit of the measurement in seconds, without warm-up.",
)
_out = click.option(
    "-o",
    "--out",
    type=OutPath(),
    help=f"Folder to write to. Default: a new one in {FOLDER}.",
)


@profile.command(short_help="Profile every layer of a model: time, arithmetic, memory traffic.")
@click.argument("arch", shell_complete=ARCHITECTURES)
@_batch
@_threads
@_device
@_seconds
@click.option(
    "--all", "everything", is_flag=True, help="Print all layers in the order of the model."
)
@click.option(
    "--top", type=Whole(1), default=15, show_default=True,
    help="Number of slowest layers to print.",
)  # fmt: skip
@format_option
@_out
@root_option
def model(
    arch: str,
    batch: int,
    threads: int,
    device: str,
    seconds: float,
    everything: bool,
    top: int,
    kind: str,
    out: Path | None,
    root: Path,
) -> None:
    """Time every layer of ARCH, and count its arithmetic, memory traffic and launches.

    Writes profile.html, profile.csv and profile.json. For STUDY#TRIAL they are written into the
    study's folder, and the study's report then links to them.
    """
    from profiling.layers import profile_layers
    from studies.cli.profile_print import print_profile
    from studies.profiles.layers_page import write_profile

    subject = Subject.find(arch, root)
    vae, place, weights = subject.build(device)
    subject.require_memory(batch, place)
    folder = writable(out or subject.artefacts or FOLDER / f"{subject.name}-batch{batch}")
    with progress_bar("measuring") as progress:
        table = profile_layers(
            vae,
            subject.fed.tensor(batch=batch),
            latency_config(batch, threads, seconds),
            place,
            progress=progress,
        )
    table = replace(table, fed=subject.fed.about, weights=weights)
    for name in ("profile.csv", "profile.json"):
        table.save(folder / name)
    page = write_profile(table, subject.name, folder / "profile.html", vae.architecture.summary)
    if kind == "table":
        print_profile(table, subject.name, None if everything else top)
        stdout.print()
        stdout.say(f"profile: {page}")
    else:
        click.echo((folder / f"profile.{kind}").read_text(encoding="utf-8"), nl=False)
    if report := subject.report(root):
        (stdout if kind == "table" else stderr).say(f"linked from: {report}")


@profile.command(short_help="Time one layer alone, over batch sizes, widths, threads.")
@click.argument("words", nargs=-1, required=True, metavar="LAYER...")
@click.option("--batch", type=Whole(1), help="Batch size. Default: 1.")
@_threads
@_device
@_seconds
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="AXIS=N,N,...",
    help="Values of an axis (repeatable): batch or threads; width or size for a layer given by its "
    "kind. The first axis is the figure's horizontal axis.",
)
@format_option
@_out
@root_option
def layer(
    words: tuple[str, ...],
    batch: int | None,
    threads: int,
    device: str,
    seconds: float,
    sweeps: tuple[str, ...],
    kind: str,
    out: Path | None,
    root: Path,
) -> None:
    """Time one layer alone, over batch sizes, widths, sizes and threads.

    \b
    LAYER is a model and a path inside it, measured with its input in the model:
        nas profile layer original decoder.stages.2 --sweep batch=1,2,4,8
    or a kind of layer with its sizes:
        nas profile layer dsconv in=64 out=128 size=36 --sweep width=32,64,128
    """  # noqa: D301 - click wants the escape itself
    from profiling.environment import select_device
    from profiling.roofline import measure_peaks
    from profiling.sweep import layer_sweep
    from studies.cli.profile_print import print_sweep
    from studies.profiles.layers_page import write_sweep
    from studies.record.table_files import write_table

    over = parse_sweeps(sweeps)
    place = select_device(device)
    found, title = find_layer(words, root, device)
    if batch is not None and "batch" not in over:
        over = {**over, "batch": [batch]}
    folder = writable(out or FOLDER / file_name(title))
    config = latency_config(1, threads, seconds)
    with progress_bar("measuring") as progress:
        sweep = layer_sweep(found, over, config, place, progress=progress)
    peaks = {int(n): measure_peaks(int(n), place) for n in sweep["threads"].unique()}
    axes = [axis for axis, values in over.items() if len(values) > 1]
    for suffix in ("csv", "json"):
        write_table(sweep, folder / f"sweep.{suffix}", suffix)
    page = write_sweep(sweep, title, axes, peaks, folder / "sweep.html")
    show(kind, sweep, lambda: print_sweep(sweep, title, axes))
    said = stdout if kind == "table" else stderr
    said.print()
    said.say(f"page: {page}")


@profile.command(short_help="Measure the peak rates of this machine.")
@_threads
@_device
@click.option("--json", "as_json", is_flag=True, help="Print all that was measured as JSON.")
@format_option
def peaks(threads: int, device: str, as_json: bool, kind: str) -> None:
    """Measure the peak rates of this machine: arithmetic, copying, launching."""
    from profiling.environment import select_device
    from profiling.roofline import measure_peaks
    from studies.cli.profile_print import print_peaks
    from studies.profiles.layers_words import peak_rows

    place = select_device(device)
    prepare(place)
    with progress_bar("measuring") as progress:
        found = measure_peaks(threads, place, progress=progress)
    if as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        show(kind, peak_rows(found), lambda: print_peaks(found))


@profile.command(short_help="Record every operation of a step, for TensorBoard and as a page.")
@click.argument("arch", shell_complete=ARCHITECTURES)
@click.option(
    "--training", is_flag=True, help="Record training steps: forward, backward and update."
)
@click.option("--batch", type=Whole(1), default=8, show_default=True, help="Batch size.")
@_threads
@_device
@click.option(
    "--steps", type=Whole(1, 100), default=3, show_default=True,
    help="Number of steps to record.",
)  # fmt: skip
@_out
@root_option
def trace(
    arch: str,
    training: bool,
    batch: int,
    threads: int,
    device: str,
    steps: int,
    out: Path | None,
    root: Path,
) -> None:
    """Record every operation of some steps of ARCH, for TensorBoard and as a page.

    Writes a trace, and trace.html with the timeline of one step, its memory use over time and a
    table of operators.
    """
    from profiling.environment import threads as torch_threads
    from profiling.trace import record_trace
    from profiling.trace_page import write_trace_html
    from studies.record.formats import format_ms

    subject = Subject.find(arch, root)
    step = "training" if training else "inference"
    vae, place, _ = subject.build(device)
    subject.require_memory(batch, place, training=training)
    folder = writable(out or FOLDER / f"{subject.name}-{step}-batch{batch}")
    images = subject.images(batch, place)
    loss = training_loss(images) if training else None
    with torch_threads(threads), progress_bar("recording") as progress:
        found = record_trace(
            vae, images, folder, training=training, steps=steps, loss=loss,
            device=place, progress=progress,
        )  # fmt: skip
    page = folder / "trace.html"
    write_trace_html(found, page)
    stdout.say(
        f"one {step} step takes {format_ms(found.setup.plain_ms)}, and {found.inflation:.2f}x as "
        f"long while it is recorded; memory peaks at {found.peak_bytes / 1e9:.2f} GB",
        wrap=True,
    )
    stdout.say(f"page:  {page}")
    stdout.say(f"trace: {found.path}")
    stdout.say(f"view it in TensorBoard: tensorboard --logdir {folder}")


@profile.command(short_help="Compare ways to run a model, and check their outputs.")
@click.argument("arch", shell_complete=ARCHITECTURES)
@click.option(
    "--backends", "names", type=Listed(click.STRING, "backend"), metavar="NAME,...",
    shell_complete=BACKENDS,
    help="Backends to compare. Default: all.",
)  # fmt: skip
@click.option(
    "--images", "folder", type=click.Path(path_type=Path),
    help="Folder of images for int8 and the loss that it costs. Default: those of the trial's "
    "study.",
)  # fmt: skip
@_batch
@_threads
@_device
@_seconds
@format_option
@click.option(
    "-o", "--out", type=OutPath(dash=True),
    help="Also write a .csv or .json file; - prints CSV in place of the table.",
)  # fmt: skip
@root_option
def backends(
    arch: str,
    names: list[str] | None,
    folder: Path | None,
    batch: int,
    threads: int,
    device: str,
    seconds: float,
    kind: str,
    out: Path | None,
    root: Path,
) -> None:
    """Compare ways to run ARCH: eager, compiled and other engines.

    Each is timed in every precision that this device has instructions for, and its outputs are
    judged against float64. int8 needs images; it is judged by the loss that it costs a trained
    model. Backends called *_rewritten run the model after exact rewrites.
    """
    from nas.lower_precision import calibration_of, loss_cost
    from nas.timed_models import TRAINED
    from profiling.backends import BACKENDS
    from profiling.comparison import compare_backends
    from profiling.files import require_writable
    from studies.cli.profile_print import print_backends

    kind, out = in_place_of_table(kind, out)
    if out:
        require_writable(out.parent)
    chosen = choose_backends(names, device)
    subject = Subject.find(arch, root)
    dataset = images_of(subject, folder, root)
    vae, place, weights = subject.build(device)
    subject.require_memory(batch, place)
    images = subject.fed.tensor(batch=batch)
    example = images, subject.noise(len(images))
    cost = None
    if dataset and weights == TRAINED:
        cost = loss_cost(vae, dataset, subject.training(root), batch, place)
    with progress_bar("preparing and measuring") as progress:
        rows = compare_backends(
            vae,
            example,
            chosen,
            latency_config(batch, threads, seconds),
            place,
            calibration=calibration_of(vae, dataset) if dataset else None,
            loss_cost=cost,
            progress=progress,
        )
    lacks_images = dataset is None and any(BACKENDS[row.name].int8 for row in rows)
    show(
        kind,
        [row.record() for row in rows],
        lambda: print_backends(rows, subject.name, batch, threads, lacks_images),
    )
    if out:
        save_rows(rows, out)
        said = stdout if kind == "table" else stderr
        said.print()
        said.say(f"{out}: {len(rows)} backends")
