"""The two consoles: results go to standard output, progress to standard error."""

from studies.terminal.console import Terminal

stdout = Terminal()
stderr = Terminal(stderr=True)
