"""The two consoles: results go to standard output, progress to standard error."""

from rich.console import Console

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)
