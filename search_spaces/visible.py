"""Make control characters visible in a text before it is printed."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    r"""Return `text` as one line in which characters that cannot be printed are escaped.

    Texts from files may hold control sequences, line breaks, directional overrides or undecodable
    bytes, which would act on the terminal or falsify what it shows. They become `\x1b`, `\n`,
    `\u202e` and `\udc80`.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) == "Zs":  # spaces of any width
        return letter
    return letter.encode("unicode_escape").decode("ascii")
