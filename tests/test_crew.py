"""Several evaluations at once: the loop with made-up crews, the crew with real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from benchmarks.faults.moments import gone
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.config.trial_limits import TrialLimits
from studies.record.records import StudyRecord
from studies.run import deaths, evaluators, worker
from studies.run.crew import Crew, Workers
from studies.run.runner import Runner
from studies.run.watcher import Watcher
from studies.store.store import StudyStore
from tests.fakes.crew import Mischief, TurnTaking
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config


def run(root: Path, asked: StudyConfig, crew: Crew) -> StudyRecord:
    store, space = StudyStore(root / asked.name), asked.load_space()
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        return Runner(asked, space, store, crew).run()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "enumerate"])
def test_parallel_trials_are_as_many_as_asked_and_all_different(
    tmp_path: Path, sampler: str
) -> None:
    evaluator = FakeEvaluator()
    crew = TurnTaking(4, evaluator)
    record = run(tmp_path, config(search={"sampler": sampler, "trials": 17}), crew)
    assert crew.most == 4
    assert [t.reference for t in record.trials[:2]] == ["original", "modified"]
    assert len(record.trials) == len({trial.digest for trial in record.trials}) == 19
    assert max(Counter(evaluator.trained).values()) == 1


def test_parallel_rejections_are_made_up_for(tmp_path: Path) -> None:
    evaluator = FakeEvaluator()
    record = run(tmp_path, config(limits={"params": 6000}), TurnTaking(3, evaluator))
    rejected = {trial.digest for trial in record.trials if trial.state == "rejected"}
    assert rejected
    assert not rejected & set(evaluator.trained)
    assert sum(t.state == "complete" and not t.reference for t in record.trials) == 6
    assert len(record.references) == len(REFERENCES)


@pytest.mark.slow
def test_more_workers_than_a_small_space_has_architectures(tmp_path: Path) -> None:
    asked = config(space="tiny", search={"sampler": "random", "trials": 1000})
    record = run(tmp_path, asked, TurnTaking(7, FakeEvaluator()))
    assert len(record.complete) == (SearchSpace.load("tiny").distinct() or 0) + 2


def processes(folder: Path) -> set[str]:
    return {path.suffix for path in folder.glob("*.*")}


@pytest.mark.slow
def test_workers_evaluate_side_by_side_and_survive_the_end_of_one(tmp_path: Path) -> None:
    (tmp_path / "killed").write_text("2")
    (tmp_path / "failed").write_text("1")
    with Workers(2, Mischief(tmp_path)) as crew:
        record = run(tmp_path, config(search={"sampler": "tpe", "trials": 8}), crew)
    assert Counter(trial.state for trial in record.trials) == {"complete": 9, "failed": 1}
    assert len({trial.digest for trial in record.trials}) == 10
    assert len(processes(tmp_path)) >= 3  # two workers, and those that took the place of the killed
    assert (tmp_path / "killed").read_text() == "0"


@pytest.mark.slow
def test_a_candidate_that_kills_every_worker_fails(tmp_path: Path) -> None:
    (tmp_path / "killed").write_text("3")
    asked = config(search={"sampler": "random", "trials": 1})
    with Workers(1, Mischief(tmp_path)) as crew:
        record = run(tmp_path, asked, crew)
    assert record.trials[0].state == "failed"
    assert f"{deaths.MAX_STARTS} times" in (record.trials[0].reason or "")
    assert [trial.state for trial in record.trials[1:]] == ["complete"] * 2


@pytest.mark.parametrize(
    ("times", "state"),
    [(deaths.MAX_STARTS_APART - 1, "complete"), (deaths.MAX_STARTS_APART, "failed")],
)
def test_a_driver_that_dies_is_hardly_the_fault_of_a_candidate_evaluated_elsewhere(
    tmp_path: Path, times: int, state: str
) -> None:
    class Apart(TurnTaking):
        apart = True

    asked = config(search={"sampler": "random", "trials": 1})
    for _ in range(times):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, asked, Apart(1, FakeEvaluator(interrupt_on=1)))
    record = run(tmp_path, asked, Apart(1, FakeEvaluator()))
    assert [trial.state for trial in record.trials] == [state, "complete", "complete"]


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ("refused", UserError, "disk: full; make room"),
        ("broken", RuntimeError, "ZeroDivisionError: a fault of ours"),
    ],
)
@pytest.mark.slow
def test_what_is_nobody_s_fault_but_ours_or_the_user_s_ends_the_study(
    tmp_path: Path, trouble: str, error: type[Exception], message: str
) -> None:
    (tmp_path / trouble).write_text("1")
    with Workers(1, Mischief(tmp_path)) as crew, pytest.raises(error, match=message):
        run(tmp_path, config(), crew)
    left = StudyStore.open(tmp_path, "s").record()
    assert [trial.state for trial in left.trials] == ["running"]


@pytest.mark.parametrize(
    ("trouble", "limits", "reason"),
    [
        (
            "hung",
            TrialLimits(timeout_s=1.0),
            r"^stopped: still running after its time limit of 1.00 s \(trial_timeout_s\)$",
        ),
        (
            "greedy",
            TrialLimits(memory_bytes=700_000_000),
            r"^stopped: used .* of memory, above its memory limit of 700.0 MB "
            r"\(trial_memory_bytes\)$",
        ),
    ],
)
@pytest.mark.slow
def test_a_trial_that_takes_too_much_fails_and_the_study_goes_on(
    tmp_path: Path, trouble: str, limits: TrialLimits, reason: str
) -> None:
    (tmp_path / trouble).write_text("1")
    asked = config(search={"sampler": "random", "trials": 2})
    with Workers(1, Mischief(tmp_path), limits) as crew:
        record = run(tmp_path, asked, crew)
    assert record.trials[0].state == "failed"
    assert re.search(reason, record.trials[0].reason or "")
    assert [trial.state for trial in record.trials[1:]] == ["complete"] * 3
    assert len(processes(tmp_path)) == 2  # the killed one, and another for all that came after


@pytest.mark.slow
def test_a_process_that_a_trial_left_with_much_memory_is_replaced(tmp_path: Path) -> None:
    asked = config(search={"sampler": "random", "trials": 1})
    with Workers(1, Mischief(tmp_path), TrialLimits(memory_bytes=2)) as crew:
        crew._look = lambda: None  # type: ignore[method-assign]
        run(tmp_path, asked, crew)
    assert len(processes(tmp_path)) == 3


@pytest.mark.slow
def test_what_a_worker_warns_of_reaches_the_watcher(tmp_path: Path) -> None:
    (tmp_path / "warned").write_text("1")
    told: list[str] = []

    class Listening(Watcher):
        def warned(self, number: int, text: str) -> None:
            told.append(f"{number}: {text}")

    asked = config(search={"sampler": "random", "trials": 0})
    store, space = StudyStore(tmp_path / asked.name), asked.load_space()
    with store.writing(), Workers(1, Mischief(tmp_path)) as crew:
        store.create(asked, space, ENVIRONMENT)
        Runner(asked, space, store, crew, Listening()).run()
    assert told == ["0: a checkpoint is damaged"]


@pytest.mark.parametrize(("table", "struck"), [("oom_kill 3\n", True), ("oom_kill 2\n", False)])
def test_the_reason_of_a_death_says_whether_memory_may_have_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, struck: bool
) -> None:
    counts = iter([2, 2, int(table.split()[1])])
    monkeypatch.setattr(worker, "_oom_kills", lambda: next(counts))
    one = worker.Worker(Mischief(tmp_path))
    one.give(REFERENCES["original"], None)
    one.process.kill()
    reason = one.end()
    assert "killed by SIGKILL" in reason
    assert ("lack of memory" in reason) is struck


@pytest.mark.slow
def test_a_worker_does_not_outlive_a_driver_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "hung").write_text("1")
    code = (
        "import sys; from pathlib import Path\n"
        "from studies.run.worker import Worker\n"
        "from search_spaces.references import ORIGINAL\n"
        "from tests.fakes.crew import Mischief\n"
        "if __name__ == '__main__':\n"
        "    one = Worker(Mischief(Path(sys.argv[1]))); one.give(ORIGINAL, None)\n"
        "    one.pipe.recv(); print(one.process.pid, flush=True); one.process.join()\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout is not None
    orphan = psutil.Process(int(driver.stdout.readline()))
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert gone([orphan], patience_s=30.0) is not None


@pytest.mark.parametrize(("memory_gb", "expected"), [(100, 4), (8, 2), (3, 1), (0.5, 1)])
@pytest.mark.slow
def test_as_many_workers_as_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch, memory_gb: float, expected: int
) -> None:
    # `modified` at 64 pixels keeps 66 MB of activations per image: 2.1 GB at batch size 32, and
    # 2.8 GB with the process; four fifths of 8 GB hold two of them.
    asked = config(training={"batch_size": 32})
    monkeypatch.setattr(evaluators, "cores", lambda: 4)
    monkeypatch.setattr(evaluators, "available_memory_bytes", lambda: int(memory_gb * 1e9))
    assert evaluators.default_workers(asked, 64, "cpu") == expected
    assert evaluators.default_workers(asked, 64, "cuda") == 1
    untrained = config(objectives=["params", "macs"])
    assert evaluators.default_workers(untrained, 64, "cpu") == 1
