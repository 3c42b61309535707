"""Training curves for TensorBoard, or for a function of the user's own, while a study runs.

A function `(run, step, values)` is called after each epoch of each candidate: with the name of the
candidate, the number of the epoch, and its losses by name. That is all that MLflow, Weights &
Biases and others need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.findings import Findings
from nas.own.imports import imported, require_call, told
from search_spaces.errors import UserError
from search_spaces.import_strings import is_import_string
from studies.run.display import Display
from studies.terminal.console import Terminal

TENSORBOARD = "tensorboard"
"""The name of the curves that TensorBoard shows; they are in the study's folder `curves`."""

ARGUMENTS = ("run", "step", "values")

Log = Callable[[str, int, Mapping[str, float]], object]


def find_curves(name: str, folder: Path) -> Log:
    """Return the function that receives the curves of a study.

    Args:
        name: `tensorboard`, or an import string such as `mypkg.tracking:log`.
        folder: The study's folder.

    Raises:
        UserError: there is no such function, or TensorBoard is not installed.
    """
    if name == TENSORBOARD:
        return TensorBoard(folder / "curves")
    if not is_import_string(name):
        raise UserError(
            f"--curves {name}: use {TENSORBOARD}, or an import string such as mypkg.tracking:log"
        )
    return require_call(name, imported(name), ARGUMENTS)


class TensorBoard:
    """Writes curves for TensorBoard, one run per candidate.

    Args:
        folder: The folder for `tensorboard --logdir`; it is created with the first curve.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"--curves {TENSORBOARD}: {error.name} is missing") from None
        self._make, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def __call__(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""
        if run not in self._writers:
            self._writers[run] = self._make(str(self._folder / run))
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()


class DisplayWithCurves(Display):
    """A display that also passes the epochs of all candidates on.

    An exception of the user's function is printed once and ends no study.
    """

    def __init__(self, console: Terminal, trials: int, epochs: int, log: Log) -> None:
        super().__init__(console, trials, epochs)
        self._log: Log | None = log
        self._passed: dict[int, int] = {}

    def found(self, number: int, findings: Findings) -> None:
        """Pass the new epochs on, and show the step that follows from the findings."""
        super().found(number, findings)
        trial = self._running[number].trial
        for row in findings.history[self._passed.get(number, 0) :]:
            values = {name: value for name, value in row.items() if name != "epoch"}
            self._pass(trial.reference or f"trial-{number:04d}", int(row["epoch"]), values)
        self._passed[number] = len(findings.history)

    def _pass(self, run: str, step: int, values: Mapping[str, float]) -> None:
        if self._log is None:
            return
        try:
            self._log(run, step, values)
        except Exception as error:  # code of the user, or a full disk
            self._log = None
            self._console.say(f"no more curves are written: {told(error)}", style="yellow")
