"""Import strings such as `mypkg.metrics:fid`: what they name, and the digest of its source.

An import string is stored in place of the object. So the same part is found in a configuration, in
worker processes, on the nodes of a cluster, and by a later run.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from nas.findings import CandidateFailed
from search_spaces.errors import UserError, nearest
from search_spaces.import_strings import is_import_string


class PartFailed(CandidateFailed):
    """A part of the user's own raised an exception, or returned something else than it must."""


@cache
def imported(name: str) -> Any:
    """Return the object that an import string names.

    The current folder is searched last, as if it were at the end of `PYTHONPATH`.

    Raises:
        UserError: there is no such module or name, or the module raises an exception.
    """
    if not is_import_string(name):
        raise UserError(f"{name!r:.80} is not an import string such as mypkg.metrics:fid")
    module_name, _, path = name.partition(":")
    found: Any = _module(module_name, name)
    for part in path.split("."):
        if not hasattr(found, part):
            known = [one for one in vars(found) if not one.startswith("_")]
            raise UserError(f"{name}: {module_name} has no {part!r}{nearest(part, known)}")
        found = getattr(found, part)
    return found


def _module(module: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    try:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if here in sys.path or error.name != module.partition(".")[0]:
                raise
        sys.path.append(here)
        importlib.invalidate_caches()
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            where = "install it, or add its folder to PYTHONPATH"
            raise UserError(f"{name}: there is no module {error.name!r}; {where}") from None
        raise UserError(f"{name}: importing {module} raised {told(error)}") from None
    except (Exception, SystemExit) as error:  # code of the user
        raise UserError(f"{name}: importing {module} raised {told(error)}") from None


@cache
def source_digest(name: str) -> str:
    """Return 12 hexadecimal digits of the source of what an import string names.

    They are those of the file of its module, and of the file that defines it where that is another
    one. A process reads them once, as it imports the module once. "" if there are no files.

    Raises:
        UserError: as `imported`.
    """
    found = imported(name)
    modules = {name.partition(":")[0], getattr(found, "__module__", None) or ""}
    files = [getattr(sys.modules.get(module), "__file__", None) for module in sorted(modules)]
    contents = [path.read_bytes() for path in map(Path, filter(None, files)) if path.is_file()]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12] if contents else ""


def require_call(name: str, function: object, arguments: Sequence[str]) -> Callable[..., Any]:
    """Return a function that can be called with these positional arguments.

    Raises:
        UserError: it cannot.
    """
    wanted = ", ".join(arguments) or "no arguments"
    if not callable(function):
        raise UserError(f"{name}: is a {type(function).__name__}, not a function of {wanted}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in without a signature
        return function
    try:
        signature.bind(*arguments)
    except TypeError:
        listed = ", ".join(signature.parameters)
        raise UserError(f"{name}({listed}): cannot be called with {wanted}") from None
    return function


def told(error: BaseException) -> str:
    """Return type and message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
