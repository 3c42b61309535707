"""The `nas` command. Each group of commands is imported only when it is used."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from search_spaces.errors import UserError, condensed, nearest, quoted
from search_spaces.visible import visible
from studies.cli.help import TableHelp

GROUPS: dict[str, tuple[str, str]] = {
    "study": ("studies.cli.study:study", "Run Pareto studies; show, compare and export them."),
    "paper": ("studies.cli.paper:paper", "Reproduce the paper: its table, figures and claims."),
    "storage": ("studies.cli.storage:storage", "Serve a database of studies to other hosts."),
    "profile": ("studies.cli.profile:profile", "Measure what a model costs, layer by layer."),
    "target": ("studies.cli.target:target", "List and check other machines to measure on."),
    "space": ("studies.cli.space:space", "List, inspect and sample search spaces."),
    "data": ("studies.cli.data:data", "Preview and export the images."),
    "bench": ("studies.cli.bench:bench", "Compare samplers on tables of trained models."),
    "reconstruct": ("studies.cli.reconstruct:reconstruct", "Show images through a trained model."),
    "compress": ("studies.cli.compress:compress", "Prune or distil a trained model of a study."),
    "deploy": ("studies.cli.deploy:deploy", "Choose how a model runs fastest, and write that."),
    "export": ("studies.cli.export:export", "Write a model as ONNX and verify it."),
}
"""Each group of commands: the object that defines it, and its one-line help."""


class HelpfulGroup(TableHelp, click.Group):
    """A group of commands that suggests the nearest name for a misspelt command."""

    command_class = TableHelp

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; a usage error names the nearest one when there is none."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"no command {quoted(name)}{nearest(name, known)}; commands: {', '.join(known)}",
                ctx,
            )
        return super().resolve_command(ctx, args)


class LazyGroup(HelpfulGroup):
    """The root group: its help comes from `GROUPS`; a command is imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the groups in the order of `GROUPS`."""
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one group of commands; None for an unknown name."""
        if cmd_name not in GROUPS:
            return None
        module, attribute = GROUPS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the groups without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in GROUPS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vae-nas", prog_name="nas")
def nas() -> None:
    """Search and profile architectures of image VAEs.

    \b
    Start with:   nas study run quickstart
    Then look at: nas study list, nas space list, nas profile model original
    """  # noqa: D301 - click wants the escape itself


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. User errors print one line per fault and exit with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that it cannot encode are escaped
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for word in words:
            _require_text(word)
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            nas.main(args=words, prog_name="nas", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        _brief(error).show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("nas: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        _refuse(_of_system(error))
    except (ValueError, RuntimeError) as error:
        if not _is_user_error(error):
            raise
        _refuse(str(error))


def _require_text(word: str) -> None:
    """Refuse what no command can use: empty words, control characters, bytes that are no text.

    Names and paths are stored as UTF-8 text and printed on terminals.
    """
    if not word.strip():
        raise UserError("one of the arguments is empty: give a value, or leave the option out")
    if visible(word) != word:
        raise UserError(f"{quoted(word)}: an argument has characters that cannot be printed")


def _brief(error: click.ClickException) -> click.ClickException:
    """Return a usage error with its message in one line that is not too long."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
        return error
    message = condensed(" ".join(error.format_message().split()))
    return click.UsageError(message, getattr(error, "ctx", None))


def _refuse(message: str) -> NoReturn:
    for line in condensed(message).splitlines():
        click.echo(visible(f"nas: {line}"), err=True)
    sys.exit(2)


def _of_system(error: OSError) -> str:
    """Return what the system refuses: a missing file, a name that is too long, a full disk.

    Commands check the files that they are given. This is the answer where the system refuses later.
    """
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _print_warning(message: Warning | str, *_where: Any, **__: Any) -> None:
    """Print a warning as one line, without the source line that raised it."""
    click.echo(visible(str(message)), err=True)


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, UserError):
        return True
    from nas.findings import CandidateFailed
    from profiling.errors import ProfilingError

    return isinstance(error, ProfilingError | CandidateFailed)


if __name__ == "__main__":
    main()
