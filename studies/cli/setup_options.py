"""The options of `nas profile` that choose a set-up: runtime, precision, part, machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from nas.latency import Place
    from nas.setups import SetUp

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = {
    "--backend": "Runtime: eager, onnxruntime, openvino ... Default: eager.",
    "--precision": "Numbers of its products: float32, bfloat16 ... Default: float32.",
    "--part": "Part of the model that is timed: full, encoder or decoder. Default: full.",
    "--target": "Machine on which it is timed, one of `nas target list`. Default: this one.",
}


def setup_options(command: _Command) -> _Command:
    """Add the options of a set-up to a command."""
    for name, words in reversed(_OPTIONS.items()):
        command = click.option(name, help=words)(command)
    return command


def setup_of(named: dict[str, str | None], **settings: Any) -> SetUp:
    """Return the set-up of the options that were given.

    Args:
        named: Option without dashes -> its value, or None.
        settings: Further settings of the set-up.

    Raises:
        UserError: a value is not valid.
    """
    from pydantic import ValidationError

    from nas.setups import SetUp
    from search_spaces.errors import refusal

    given = {name: value for name, value in named.items() if value is not None}
    if given.get("precision") == "int8":
        raise UserError(
            "--precision int8: it takes the ranges of values from images, and there are none here; "
            "compare it with nas profile backends ARCH --images FOLDER"
        )
    try:
        return SetUp.model_validate({**settings, **given})
    except ValidationError as error:
        options = " ".join(f"--{name} {value}" for name, value in given.items())
        raise refusal(error, options, SetUp) from None


def place_of(setup: SetUp, device: str) -> Place:
    """Return where a set-up measures, after a check that it can.

    Raises:
        UserError, ProfilingError: it cannot; the message has the remedy.
    """
    from nas.latency import address_of
    from nas.setups import require_backend
    from profiling.environment import select_device
    from profiling.target.client import reach

    chosen = select_device(device)
    require_backend(setup, chosen)
    if setup.target is None:
        return chosen
    return reach(address_of(setup.target, "--target"))
