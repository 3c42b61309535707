"""Draw figures in a browser: the program that `pngs` runs in a process of its own.

    python -c "from studies.pages.drawing import main; main()" FOLDER

FOLDER has `figures.json`, a list of Kaleido's jobs. The figures are written where the jobs say, and
if that fails, the reason is written to `reason.txt`. Standard input is a pipe from the process that
waits for the figures; when it closes, that process is gone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

NO_BROWSER = 3
"""Exit code: no browser was found."""


def main() -> None:
    """Draw the figures of the folder that the command line names; exit 0 if all are drawn."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    # Kaleido's threads may wait for a browser that is gone.
    os._exit(_draw(folder))


def _end_with_parent(folder: Path) -> None:
    sys.stdin.buffer.read()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _draw(folder: Path) -> int:
    import kaleido
    from choreographer.browsers import ChromeNotFoundError

    jobs = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    _keep_messages(folder / "browser.log")
    try:
        # Kaleido would fetch MathJax from the internet; no label needs it.
        kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"mathjax": False})
    except ChromeNotFoundError:
        return NO_BROWSER
    except Exception as error:  # a browser that fails makes Kaleido raise almost anything
        words = str(error.args[0] if error.args else "").strip() or type(error).__name__
        (folder / "reason.txt").write_text(words.splitlines()[0], encoding="utf-8")
        return 1
    return 0


def _keep_messages(path: Path) -> None:
    """Write what the browser prints to a file; its last line often says why it has failed."""
    logger = logging.getLogger("browser_proc")  # of choreographer, which starts the browser
    logger.setLevel(logging.DEBUG)
    logger.addHandler(logging.FileHandler(path, encoding="utf-8"))
