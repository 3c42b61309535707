"""The `nas` command, run in this process."""

from __future__ import annotations

from studies.cli.main import main


def nas(*arguments: str) -> int:
    """Run the command and return its exit code."""
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
