"""Import strings such as `mypkg.blocks:Residual`, which name parts of the user's own."""

from __future__ import annotations

import re

from search_spaces.errors import UserError

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def is_import_string(text: str) -> bool:
    """Whether a text has the form `package.module:name`."""
    return _FORM.fullmatch(text) is not None


def import_string_of(part: object) -> str:
    """Return the import string of a function or class; texts are returned unchanged.

    Raises:
        UserError: worker processes could not import it.
    """
    if isinstance(part, str):
        return part
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not module or not name:
        raise UserError(f"{part!r:.80}: is neither an import string nor a function")
    text = f"{module}:{name}"
    if module == "__main__" or not is_import_string(text):
        raise UserError(
            f"{text}: worker processes cannot import it; define it in a module, at its top level"
        )
    return text
