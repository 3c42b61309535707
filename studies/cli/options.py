"""Options, progress output and look-ups that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from profiling.files import behind_links
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, nearest, quoted
from search_spaces.numbers import MOST
from search_spaces.sizes import Size, parse_size, sides, size_in_words

ROOT = Path("nas-studies")

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT,
    envvar="NAS_STUDIES",
    show_default=True,
    help="Folder that holds the studies (or set NAS_STUDIES).",
)


class Whole(click.IntRange):
    """A whole number within a range, in the digits 0 to 9."""

    def __init__(self, least: int | None = None, most: int = MOST) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; a usage error says what is not one."""
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
            self.fail(f"{quoted(value)} is not a whole number.", param, ctx)
        found: int = super().convert(value, param, ctx)
        return found


SEED = Whole(0, 2**32 - 1)
"""The seed of a random generator."""


class Finite(click.FloatRange):
    """A finite number within a range, in the digits 0 to 9."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; a usage error says what is not one."""
        form = r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,6})?"
        if isinstance(value, str) and not re.fullmatch(form, value):
            self.fail(f"{quoted(value)} is not a finite number.", param, ctx)
        found: float = super().convert(value, param, ctx)
        return found


class Positive(Finite):
    """A finite number above zero, in the digits 0 to 9."""

    def __init__(self, most: float = 1e9) -> None:
        super().__init__(0, most, min_open=True)


class Pixels(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A size of images within a range: a side, or height and width as in 144x96.

    Args:
        least: The smallest side.
        most: The largest side.
    """

    name = "size"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return the size; a usage error says what is not one."""
        size = parse_size(value) if isinstance(value, str) else value
        if size is None:
            self.fail(f"{quoted(value)} is no size; give one such as 144 or 144x96.", param, ctx)
        if not all(self._least <= side <= self._most for side in sides(size)):
            within = f"{self._least} to {self._most} pixels"
            self.fail(f"{size_in_words(size)}: a side has {within}.", param, ctx)
        return size


class Listed(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """Values separated by commas: at least one, none empty and none twice.

    Args:
        of: The type of each value.
        what: What a value is called in messages.
    """

    name = "list"

    def __init__(self, of: click.ParamType[Any], what: str) -> None:
        self._of, self._what = of, what

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """Return the values; a usage error names the one that is not valid."""
        if not isinstance(value, str):
            return list(value)
        texts = [text.strip() for text in value.split(",")]
        if not all(texts):
            self.fail(f"{quoted(value)}: give one {self._what} or several, as in A,B.", param, ctx)
        found = [self._of.convert(text, param, ctx) for text in texts]
        for one in found:
            if found.count(one) > 1:
                self.fail(f"{quoted(one)} is given twice.", param, ctx)
        return found


class OutPath(click.Path):
    """The path of a file or folder to write, which must not be in the folder of a study.

    There it could replace the study's journal or weights.

    Args:
        file_okay: Whether it may be a file.
        dir_okay: Whether it may be a folder.
        dash: Whether `-` stands for standard output.
    """

    def __init__(
        self, *, file_okay: bool = True, dir_okay: bool = True, dash: bool = False
    ) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, allow_dash=dash, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a usage error names the study."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if str(path) == "-":
            if not self.allow_dash:
                self.fail("- (standard output) is not possible here; give a path", param, ctx)
            return path
        with suppress(OSError):  # the writer of the file refuses it
            place = behind_links(path)
            for folder in (place, *place.parents):
                if (folder / "study.yaml").is_file() and (folder / "artefacts").is_dir():
                    self.fail(
                        f"{path} is in the folder of study {folder.name}, whose files it could "
                        "replace; give another path",
                        param,
                        ctx,
                    )
        return path


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; elsewhere print a line every ten seconds.

    Yields a function that takes the number of steps done and the total number of steps.
    """
    from studies.cli.console import stderr
    from studies.terminal.progress import animated, spoken

    with (animated if stderr.live else spoken)(stderr, label) as progress:
        yield progress


def data_overrides(celeba: Path | None, folder: Path | None) -> dict[str, Any]:
    """Return the settings of `--celeba` or `--folder`; raise `UserError` if both are given."""
    if celeba and folder:
        raise UserError("--celeba and --folder: give only one of them")
    if celeba:
        return {"data.kind": "celeba", "data.path": str(celeba)}
    return {"data.kind": "folder", "data.path": str(folder)} if folder else {}


def print_how_to_resume() -> None:
    """Print, after an interruption, the command that resumes the work."""
    import shlex
    import sys

    from studies.cli.console import stderr
    from studies.storage.addresses import masked

    again = shlex.join(["nas", *map(masked, sys.argv[1:])])
    stderr.say(f"interrupted; finished work is saved. The same command resumes: {again}")


def find_architecture(text: str, root: Path) -> Architecture:
    """Return the architecture that the user names.

    `text` is a reference (`original`, `modified`, also `original@64` or `original@96x64` for
    another image size), a JSON or YAML file, or a study's trial as `STUDY#TRIAL`.

    Raises:
        UserError: `text` names no architecture; the message suggests the nearest reference.
    """
    from search_spaces.references import REFERENCES

    name, _, at = text.partition("@")
    if text in REFERENCES:
        return REFERENCES[text]
    if name in REFERENCES and (size := parse_size(at)) is not None:
        return REFERENCES[name].resized(size)
    if Path(text).suffix in {".json", ".yaml", ".yml"}:
        return Architecture.load(Path(text))
    if "#" in text:
        from studies.store.finding import find_trial

        return find_trial(text, root)[1].architecture
    known = ", ".join(REFERENCES)
    raise UserError(
        f"{quoted(text)} is not an architecture: give a reference ({known}; original@64 for 64 "
        f"pixels), a JSON or YAML file, or STUDY#TRIAL{nearest(name, REFERENCES)}"
    )


def find_artefacts(text: str, root: Path) -> Path | None:
    """Return the folder of artefacts of `STUDY#TRIAL`; None if `text` names no trial.

    Artefacts that stand in the study's artefact store only are copied to the folder first.
    """
    if "#" not in text or Path(text).suffix in {".json", ".yaml", ".yml"}:
        return None
    from studies.store.finding import artefacts_of

    return artefacts_of(text, root)
