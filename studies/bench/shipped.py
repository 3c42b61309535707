"""The tables that are shipped, by name."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.errors import UserError, nearest
from studies.bench.tables import Table


def load_table(name: str) -> Table:
    """Return a shipped table by name.

    Raises:
        UserError: There is no table of this name.
    """
    if name not in TABLES:
        raise UserError(f"table {name!r}: none of {', '.join(TABLES)}{nearest(name, TABLES)}")
    return TABLES[name]()


def _vae() -> Table:
    from studies.bench.vae import load_vae_table

    return load_vae_table().table()


def _nb201() -> Table:
    from studies.bench.nb201 import load_nb201

    return load_nb201()


TABLES: dict[str, Callable[[], Table]] = {"vae": _vae, "nb201": _nb201}
"""Shipped tables by name; `studies/bench/data/README.md` gives their origins."""
