"""Studies on Ray Tune: two nodes on this machine, with workers, nodes and drivers that die."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.fs
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.checkpoint import load_vae
from nas.findings import Findings
from nas.own.imports import source_digest
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint
from profiling.lane import Lane
from profiling.target.addresses import Address
from profiling.target.client import KnownTarget
from search_spaces.errors import UserError
from studies.config.study import StudyConfig
from studies.config.trial_limits import TrialLimits
from studies.on_ray.cluster import Cluster
from studies.on_ray.folder import TuneFolder, remove_trial
from studies.on_ray.local import _remove_left_behind, _without_monitors, sigterm_kept
from studies.on_ray.status import WorkerStatus
from studies.on_ray.trial import RemoteMaker
from studies.record.records import StudyRecord
from studies.run import deaths
from studies.run.evaluators import EvaluatorMaker
from studies.run.watcher import Watcher
from studies.storage.mirror import Mirror
from studies.store.others import NoOthers
from studies.store.store import StudyStore
from tests.fakes.driver import until
from tests.fakes.evaluator import EPOCHS
from tests.fakes.ray import KILLED, RayMaker, run_here, run_on_ray
from tests.fakes.runs import stopping_config
from tests.helpers.command import nas
from tests.helpers.ray_workers import PROGRAM, forked_workers

SMALL = ["--space", "tiny", "--epochs", "1", "--images", "30", "--runner", "ray"]
SMALL += ["--workers", "1"]
QUICK = ["--set", "latency.max_rounds=2", "--set", "latency.attempts=1"]
QUICK += ["--set", "latency.min_rounds=2"]
FORKED = {"setup_worker_path": PROGRAM}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a cluster of one node, to which more can be added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("NAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets allow no long path
        patch.setenv("RAY_TMPDIR", folder)
        with forked_workers(folder), _without_monitors(dashboard=False):
            head = {**FORKED, "num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
            cluster = Nodes(initialize_head=True, head_node_args=head)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
            yield cluster
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(folder, ignore_errors=True)


_FORKS = """
import os, threading, ray, ray.tune
from tests.helpers.ray_workers import draw_apart

def draw():
    os.write(1, (ray.ObjectRef.from_random().hex() + " ").encode())

for number in (0, 0, 1, 2):
    if os.fork() == 0:
        draw_apart(number)
        draw()
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_forked_workers_draw_identities_of_their_own() -> None:
    drawn = subprocess.run(
        [sys.executable, "-c", _FORKS], capture_output=True, text=True, check=True
    ).stdout.split()
    assert drawn[:2] == drawn[2:4]  # forks go on from one state
    assert len(set(drawn)) == len(drawn[2:]) == 6


def search(trials: int, **more: Any) -> dict[str, Any]:
    return {"sampler": "random", "trials": trials, **more}


def trained(maker: RayMaker) -> Counter[tuple[str, str]]:
    return Counter((digest, epoch) for digest, epoch, *_ in maker.log)


def check_whole(root: Path, record: StudyRecord, trials: int) -> None:
    """Every trial is over and was recorded once; complete ones have their weights."""
    assert not [trial for trial in record.trials if trial.state == "running"]
    assert sum(not trial.reference for trial in record.trials) == trials
    assert len({trial.digest for trial in record.trials}) == len(record.trials)
    assert record.trials == StudyStore.open(root, "s").record().trials
    for trial in record.complete:
        folder = record.folder / "artefacts" / trial.digest
        assert (folder / "weights.safetensors").read_text() == trial.digest
        assert not (folder / "checkpoint.safetensors").exists()
    assert not list(record.folder.glob("tune*"))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_one_worker_gives_the_very_record_of_a_local_run(
    tmp_path: Path, nodes: Any, sampler: str
) -> None:
    wanted = stopping_config(search=search(9, sampler=sampler, early_stopping={}))
    local = run_here(tmp_path / "local", wanted, RayMaker(tmp_path))
    record = run_on_ray(tmp_path / "ray", wanted, RayMaker(tmp_path), most=1)
    assert Counter(trial.state for trial in record.trials)["stopped"] >= 1
    assert record.trials == local.trials
    check_whole(tmp_path / "ray", record, 9)
    for trial in record.trials:
        left = record.folder / "artefacts" / trial.digest / "checkpoint.safetensors"
        assert not left.exists()  # nothing calls it back any more


def test_two_at_a_time_with_every_kind_of_end(tmp_path: Path, nodes: Any) -> None:
    maker = RayMaker(tmp_path)
    for trouble, times in {"killed": 2, "failed": 1, "nan": 1}.items():
        (tmp_path / trouble).write_text(str(times))
    record = run_on_ray(tmp_path, stopping_config(search=search(8)), maker)
    assert Counter(t.state for t in record.trials) == {"complete": 8, "failed": 2}
    assert sorted(t.reason or "" for t in record.trials if t.state == "failed") == [
        "reconstruction_loss is nan",
        "training diverged at epoch 2",
    ]
    assert (tmp_path / "killed").read_text() == "0"
    assert len({process for *_, process, _ in maker.log}) >= 2
    assert max(trained(maker).values()) == 1  # killed ones went on from their last epoch
    check_whole(tmp_path, record, 8)


@dataclass(frozen=True)
class Limited:
    """A study with a limit, and what its driver copied to the store of artefacts, in turn."""

    record: StudyRecord
    maker: RayMaker
    store: Path
    pushed: list[str]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, nodes: Any) -> Limited:
    pushed: list[str] = []
    push = Mirror._push

    def noted(mirror: Mirror, path: Path) -> None:
        pushed.append(path.read_text())
        push(mirror, path)

    root = tmp_path_factory.mktemp("limited")
    maker, there = RayMaker(root), root / "there"
    wanted = stopping_config(limits={"params": 6000}, search=search(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mirror, "_push", noted)
        record = run_on_ray(root, wanted, maker, most=1, artefacts=there.as_uri())
    return Limited(record, maker, there, pushed)


def test_every_checkpoint_goes_to_the_store_of_artefacts_as_it_arrives(limited: Limited) -> None:
    assert len(limited.record.complete) >= 3
    for epoch in range(1, EPOCHS):  # the file of the last one is replaced by the weights
        assert limited.pushed.count(str(epoch)) >= len(limited.record.complete)
    for trial in limited.record.complete:
        names = [path.name for path in (limited.store / trial.digest).iterdir()]
        assert names == ["weights.safetensors"]


@contextmanager
def low_on_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every worker that dies look as if Ray had ended it because its node is low on memory."""
    get = ray.get

    def get_or_low(*args: Any, **options: Any) -> Any:
        try:
            return get(*args, **options)
        except RayActorError:
            low: Callable[[str], Exception] = OutOfMemoryError
            raise low("killed due to the node running low on memory") from None

    with monkeypatch.context() as patch:
        patch.setattr(ray, "get", get_or_low)
        yield


def test_a_trial_whose_node_runs_low_on_memory_begins_again(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = RayMaker(tmp_path)
    (tmp_path / "killed").write_text("1")
    with low_on_memory(monkeypatch):
        record = run_on_ray(tmp_path, stopping_config(search=search(1)), maker, most=1)
    assert [trial.state for trial in record.trials] == ["complete"] * 3
    assert (tmp_path / "killed").read_text() == "0"
    assert max(trained(maker).values()) == 1
    check_whole(tmp_path, record, 1)


def test_a_trial_that_exhausts_the_memory_of_its_node_too_often_fails_with_that_reason(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "MAX_STARTS", 1)
    (tmp_path / "killed").write_text("1")
    with low_on_memory(monkeypatch):
        record = run_on_ray(tmp_path, stopping_config(search=search(0)), RayMaker(tmp_path), most=1)
    assert [trial.state for trial in record.trials] == ["failed", "complete"]
    assert "because the memory of its node ran low" in (record.trials[0].reason or "")


def test_limits_reject_in_the_same_worker(limited: Limited) -> None:
    trials, log = limited.record.trials, limited.maker.log
    rejected = {trial.digest for trial in trials if trial.state == "rejected"}
    assert rejected
    assert not rejected & {digest for digest, *_ in log}
    assert len({process for *_, process, _ in log}) == 1


def test_what_kills_every_worker_fails(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "MAX_STARTS", 2)
    maker = RayMaker(tmp_path)
    (tmp_path / "killed").write_text("3")
    record = run_on_ray(tmp_path, stopping_config(search=search(1)), maker, most=1)
    assert [trial.state for trial in record.trials] == ["failed", "complete", "complete"]
    assert "2 times" in (record.trials[0].reason or "")


@pytest.mark.parametrize(
    ("trouble", "limits", "reason"),
    [
        (
            "hung",
            TrialLimits(timeout_s=5.0),
            r"^stopped: still running after its time limit of 5.00 s \(trial_timeout_s\)$",
        ),
        (
            "greedy",
            TrialLimits(memory_bytes=1_200_000_000),
            r"^stopped: used .* of memory, above its memory limit of 1.20 GB "
            r"\(trial_memory_bytes\)$",
        ),
    ],
)
def test_a_trial_that_takes_too_much_fails_and_the_study_goes_on(
    tmp_path: Path, nodes: Any, trouble: str, limits: TrialLimits, reason: str
) -> None:
    (tmp_path / trouble).write_text("1")
    record = run_on_ray(
        tmp_path, stopping_config(search=search(1)), RayMaker(tmp_path), most=1, limits=limits
    )
    assert [trial.state for trial in record.trials] == ["failed", "complete", "complete"]
    assert re.search(reason, record.trials[0].reason or "")
    check_whole(tmp_path, record, 1)


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ("refused", UserError, "disk: full; make room"),
        ("broken", RuntimeError, "ZeroDivisionError: a fault of ours"),
    ],
)
def test_faults_that_are_no_candidate_s_end_the_study(
    tmp_path: Path, nodes: Any, trouble: str, error: type[Exception], message: str
) -> None:
    (tmp_path / trouble).write_text("1")
    with pytest.raises(error, match=message):
        run_on_ray(tmp_path, stopping_config(), RayMaker(tmp_path), most=1)
    left = StudyStore.open(tmp_path, "s").record()
    assert [trial.state for trial in left.trials] == ["running"]


def test_a_node_that_dies_gives_its_trials_to_the_other(tmp_path: Path, nodes: Any) -> None:
    maker = RayMaker(tmp_path, epoch_s=0.2)
    doomed = nodes.add_node(num_cpus=2, **FORKED)
    nodes.wait_for_nodes()
    there = NodeAffinitySchedulingStrategy(doomed.node_id, soft=False)
    ray.get(ray.remote(lambda: None).options(scheduling_strategy=there).remote())  # it is ready
    killer = threading.Thread(target=_kill_when_it_trains, args=(maker, nodes, doomed))
    killer.start()
    record = run_on_ray(tmp_path, stopping_config(search=search(2)), maker, most=4)
    killer.join()
    assert {trial.state for trial in record.trials} == {"complete"}
    check_whole(tmp_path, record, 2)
    by_node = Counter(node for *_, node in maker.log)
    assert by_node[doomed.node_id] >= 1
    assert set(by_node) == {doomed.node_id, nodes.head_node.node_id}
    # An epoch whose checkpoint was on its way when the node died is trained once more.
    again = [epoch for epoch, times in trained(maker).items() if times > 1]
    assert len(again) <= 2
    assert max(trained(maker).values()) <= 2
    assert len(trained(maker)) == len(record.trials) * EPOCHS


def _kill_when_it_trains(maker: RayMaker, nodes: Any, doomed: Any) -> None:
    while not any(node == doomed.node_id and int(epoch) >= 3 for _, epoch, _, node in maker.log):
        time.sleep(0.05)
    nodes.remove_node(doomed, allow_graceful=False)


@pytest.mark.parametrize("after", [4, 25])
def test_a_killed_driver_loses_nothing_and_repeats_nothing(
    tmp_path: Path, nodes: Any, after: int
) -> None:
    maker = RayMaker(tmp_path)
    code = "import sys; from tests.fakes.ray import drive; drive(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(tmp_path), nodes.address]
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    while len(maker.log) < after and driver.poll() is None:
        time.sleep(0.05)
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    before = StudyStore.open(tmp_path, "s").record()
    assert "running" in {trial.state for trial in before.trials}
    record = run_on_ray(tmp_path, KILLED, maker, most=2)
    check_whole(tmp_path, record, 4)
    kept = [trial for trial in before.trials if trial.state == "complete"]
    assert [record.trial(trial.number) for trial in kept] == kept
    assert sum(times - 1 for times in trained(maker).values()) <= 4  # two were being trained


def test_either_runner_goes_on_with_what_the_other_began(tmp_path: Path, nodes: Any) -> None:
    wanted = stopping_config(search=search(1))
    on_ray = partial(run_on_ray, most=1)  # what is trained beside a fault may lose its last epoch
    for first, second, name in ((run_here, on_ray, "a"), (on_ray, run_here, "b")):
        root = tmp_path / name
        root.mkdir()
        maker = _Breaking(root)
        with pytest.raises((ZeroDivisionError, RuntimeError), match="a fault of ours"):
            first(root, wanted, maker)
        record = second(root, wanted, maker)
        check_whole(root, record, 1)
        assert set(trained(maker).values()) == {1}


class _Breaking(RayMaker):
    """Breaks down once, at the fifth epoch of all."""

    def befalls(self, trouble: str) -> bool:
        if trouble == "broken" and len(self.log) == 4 and not (self.folder / "broke").exists():
            (self.folder / "broke").touch()
            return True
        return False


def test_a_worker_that_dies_after_its_trial_is_over_leaves_its_error_with_tune(
    tmp_path: Path,
) -> None:
    there, staging = tmp_path / "there", tmp_path / "staging" / "trial"
    for folder in (there, staging):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    storage = SimpleNamespace(
        trial_fs_path=str(there),
        storage_filesystem=pyarrow.fs.LocalFileSystem(),
        trial_driver_staging_path=str(staging),
    )
    trial = Trial("nas", stub=True, trial_id="1")
    trial.storage = storage  # type: ignore[assignment]
    remove_trial(trial)
    assert not there.exists()
    assert list(staging.iterdir()) == []
    trial.handle_error(RayActorError())
    assert "error.pkl" in {path.name for path in staging.iterdir()}


def test_drivers_that_share_a_storage_remove_each_other_s_folders_only_when_gone(
    tmp_path: Path,
) -> None:
    for name in ("tune-gone", "tune-other", "tune-me", "artefacts"):
        (tmp_path / name / "inner").mkdir(parents=True)
    folder = TuneFolder(str(tmp_path))
    folder.take(SimpleNamespace(me="me", alive=lambda: {"me", "other"}))
    assert {path.name for path in tmp_path.iterdir()} == {"tune-other", "tune-me", "artefacts"}
    folder.remove()
    assert {path.name for path in tmp_path.iterdir()} == {"tune-other", "artefacts"}
    TuneFolder(str(tmp_path)).take(NoOthers())
    assert {path.name for path in tmp_path.iterdir()} == {"artefacts"}


def an_ended_process() -> str:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_link_that_looks_like_the_folder_of_a_ray_is_not_followed(tmp_path: Path) -> None:
    link = Path(f"/tmp/nas-ray-{an_ended_process()}-link")
    link.symlink_to(tmp_path)
    try:
        with (tmp_path / "log").open("w") as log:
            stranger = subprocess.Popen(["sleep", "600"], stdout=log)
        _remove_left_behind()
        assert stranger.poll() is None
        assert link.is_symlink()
    finally:
        link.unlink()
        stranger.kill()
        stranger.wait()


def test_what_a_killed_driver_left_of_its_ray_is_removed(tmp_path: Path) -> None:
    owner = an_ended_process()
    folder = Path(tempfile.mkdtemp(prefix=f"nas-ray-{owner}-", dir="/tmp"))
    with (folder / "log").open("w") as log, (tmp_path / "log").open("w") as other:
        agent, stranger = (subprocess.Popen(["sleep", "600"], stdout=out) for out in (log, other))
    _remove_left_behind()
    assert agent.wait(60) == -signal.SIGKILL
    assert not folder.exists()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_the_status_actor_survives_the_death_of_its_process(nodes: Any) -> None:
    status = WorkerStatus.on_this_node()
    ray.get(status.note.remote(1, 2, 3))
    ray.kill(status, no_restart=False)
    with suppress(RayActorError):  # until it has restarted
        ray.get(status.read.remote())
    until(lambda: _reads(status))


def _reads(status: Any) -> bool:
    with suppress(RayActorError):
        ray.get(status.note.remote(4, 5, 6))
        return bool(ray.get(status.read.remote()) == {4: (5, 6)})
    return False


def test_sigterm_keeps_its_meaning_also_while_ray_starts() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: taken.append(signum))
    try:
        with sigterm_kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ray does
            signal.raise_signal(signal.SIGTERM)
        assert taken == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(taken) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_trial_that_no_node_has_room_for_is_refused(tmp_path: Path, nodes: Any) -> None:
    with pytest.raises(UserError, match=r"no node has room .* 64 CPU; the nodes have 2 CPU"):
        run_on_ray(tmp_path, stopping_config(), RayMaker(tmp_path), cpus=64)


def test_a_cluster_whose_nodes_are_all_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.on_ray.cluster._nodes", list)
    with pytest.raises(UserError, match=r"^ray: the cluster has no living node; start one$"):
        Cluster({"CPU": 1})


def test_a_part_of_a_gpu_makes_room_for_several(nodes: Any) -> None:
    assert Cluster({"CPU": 0.5, "GPU": 0.5}).room == 2
    assert Cluster({"CPU": 0.25, "GPU": 0.4}).room == 2  # never across two GPUs
    assert Cluster({"GPU": 1}).room == 1


class _Held(Watcher):
    """Holds the measurement lane from the first finding on, for two seconds."""

    def __init__(self) -> None:
        self.held = Lane("cpu").measuring()
        self.steps: list[str] = []
        self.while_held: list[str] = []

    def found(self, number: int, findings: Findings) -> None:
        if not self.steps:
            self.held.__enter__()
            threading.Timer(2.0, self.release).start()
        self.steps.append(findings.step)

    def release(self) -> None:
        self.while_held = list(self.steps)
        self.held.__exit__(None, None, None)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, nodes: Any, narrow_references: None
) -> tuple[_Held, StudyRecord]:
    """A real study that is measured while somebody else holds the lane at first."""
    watcher, root = _Held(), tmp_path_factory.mktemp("real")
    options = ["--trials", "1", *QUICK, "--root", str(root)]
    with pytest.MonkeyPatch.context() as patch:
        found = "studies.run.display.Display.found"
        patch.setattr(found, lambda _, *seen: watcher.found(*seen))
        assert nas("study", "run", "quickstart", *SMALL, *options) == 0
    return watcher, StudyStore.open(root, "quickstart").record()


def test_real_trials_wait_for_whoever_measures_on_their_host(
    real: tuple[_Held, StudyRecord],
) -> None:
    watcher, _ = real
    assert set(watcher.while_held) == {"static"}
    assert watcher.steps.count("training") == 3


def test_a_real_study_measures_trains_and_reports(real: tuple[_Held, StudyRecord]) -> None:
    _, record = real
    assert [trial.state for trial in record.trials] == ["complete"] * 3
    assert record.measured_together
    for trial in record.trials:
        folder = record.folder / "artefacts" / trial.digest
        assert {path.name for path in folder.iterdir()} == {
            "weights.safetensors",
            "reconstructions.npy",
            "prior_samples.npy",
            "latency.json",
        }
        assert load_vae(folder / "weights.safetensors").architecture == trial.architecture
        assert trial.objectives["latency_ms"] > 0
    assert (record.folder / "report.html").exists()


def test_an_objective_of_ones_own_is_judged_by_workers_and_by_a_resumed_run(
    tmp_path: Path, nodes: Any
) -> None:
    own = "tests.fakes.metrics:closeness"
    options = [*SMALL, "--objectives", f"{own},params", "--set", "confirmation=null"]
    for trials in ("1", "2"):
        words = [*options, "--trials", trials, "--root", str(tmp_path)]
        assert nas("study", "run", "quickstart", *words) == 0
    record = StudyStore.open(tmp_path, "quickstart").record()
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    assert record.own == {own: ("objective", source_digest(own))}
    for trial in record.trials:
        assert trial.objectives[own] == pytest.approx(1 - trial.metrics["l1"], abs=1e-6)


def remote_maker(
    folder: Path, environment: dict[str, Any], mix: bool, **changes: Any
) -> RemoteMaker:
    values = {"name": "s", "space": "tiny", "objectives": ["params", "latency_ms"], **changes}
    make = EvaluatorMaker(StudyConfig.model_validate(values), 32, "cpu", folder, {"": 1.0})
    return RemoteMaker(make, {"data_fingerprint": None, **environment}, True, mix)


def test_a_worker_in_another_environment_is_refused_or_marked(tmp_path: Path) -> None:
    tune_allocator()
    here = fingerprint("cpu").model_dump()

    def evaluate(environment: dict[str, Any], mix: bool = False) -> Any:
        return remote_maker(tmp_path, environment, mix)(lambda done, total: None, tmp_path)

    assert evaluate(here).elsewhere == []
    other = {**here, "torch_version": "1.0"}
    with pytest.raises(UserError, match=r'torch_version was "1.0".*--mix-environments'):
        evaluate(other)
    assert "torch_version" in evaluate(other, mix=True).elsewhere[0]
    with pytest.raises(
        UserError,
        match=r"data: this node's images differ from the study's; give every node the same$",
    ):
        evaluate({**here, "data_fingerprint": "0" * 12})


def test_a_worker_needs_the_study_s_runtime_and_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.setups.version", lambda name: "1.2")
    tune_allocator()
    there = {"pi": KnownTarget(Address(name="pi", host="h"), cast("Any", None))}
    setups = {"latency": {"backend": "openvino"}, "setups": {"b": {"target": "pi"}}}

    def evaluate(runtime: str) -> Any:
        facts = {"runtime": runtime, "targets": {"pi": {"processor": "Board"}}}
        environment = {**fingerprint("cpu").model_dump(), **facts}
        maker = remote_maker(tmp_path, environment, mix=False, **setups)
        maker = replace(maker, make=replace(maker.make, targets=there))
        return maker(lambda done, total: None, tmp_path)

    assert evaluate("openvino 1.2").elsewhere == []
    with pytest.raises(UserError, match=r'runtime was "openvino 1.1", now "openvino 1.2"'):
        evaluate("openvino 1.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "--address names a Ray cluster: add --runner ray"),
        (["--runner", "ray", "--address", "ray://h:1"], "run the command on a node"),
        (["--runner", "ray", "--set", "ray.cpu_per_trial=2"], "cpus_per_trial"),
        (["--runner", "slurm"], "is not one of local, ray"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert nas("study", "run", "quickstart", "--root", str(tmp_path), *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ray": {"cpu_per_trial": 1}}, "cpu_per_trial"),
        ({"ray": {"gpus_per_trial": 1.5}}, "must be a whole number where it is above 1"),
        ({"ray": {"cpus_per_trial": 0}}, "greater than 0"),
        (
            {"ray": {"storage_path": "here"}},
            "must be an absolute path or a URI, which every node can find",
        ),
        ({"runner": "slurm"}, "'local' or 'ray'"),
        ({"runner": "ray", "device": "cuda"}, "gpus_per_trial above 0"),
    ],
)
def test_faulty_settings_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudyConfig.model_validate({"name": "s", "space": "tiny", **setting})
