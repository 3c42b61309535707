"""The table of trained VAEs, made end to end from a space of two members."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.vae_table import latency, training
from benchmarks.vae_table.__main__ import TimeLeft, main
from benchmarks.vae_table.parquet import build
from benchmarks.vae_table.protocol import Member, TableProtocol, members
from nas.datasets import DataConfig
from nas.evaluate import CandidateFailed
from nas.protocol import OnBatch
from nas.setups import SetUp
from nas.training import EpochResult, Trainer, TrainingConfig, TrainingDiverged
from profiling.lane import Lane
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.bench.replay import replay
from studies.bench.vae import TabularEvaluator, best_epochs, load_vae_table
from studies.config.study import StudyConfig
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.store.store import StudyStore

SPACE = """
name: two
fixed: {image_size: 16, encoder.depth: 1, encoder.base_width: 2, decoder.depth: 1,
        decoder.base_width: 2, decoder.seed_width: 2}
axes:
  latent_size: [2, 4]
"""
QUICK = SetUp(min_rounds=2, max_rounds=2, max_warmup=2, warmup_window=1, min_sample_ms=0)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TableProtocol]:
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(folder / "cache"))
        # A lane of its own: somebody may be measuring on this machine.
        for module in (training, latency):
            patch.setattr(module, "Lane", lambda device: Lane(device, folder))
        (folder / "two.yaml").write_text(SPACE)
        yield TableProtocol(
            space=str(folder / "two.yaml"),
            data=DataConfig(count=12),
            training=TrainingConfig(epochs=2, batch_size=4),
        )


@pytest.fixture(scope="module")
def run(
    protocol: TableProtocol, narrow_references: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert training.train_all(folder, protocol) == 4
    return folder


def test_named_space_has_as_many_networks_as_assignments() -> None:
    space = SearchSpace.load("table")
    assert 300 <= space.size <= 600
    assert space.distinct() == space.size
    assert space.image_size == 32


def test_members_are_each_network_once_then_the_references() -> None:
    space = SearchSpace.load("table")
    listed = members(space)
    assert len({member.digest for member in listed}) == len(listed) == space.size + 2
    assert [member.reference for member in listed[-2:]] == list(REFERENCES)
    assert [member.digest for member in members(space)] == [member.digest for member in listed]


@pytest.mark.slow
def test_killed_run_goes_on_with_what_is_missing(run: Path, protocol: TableProtocol) -> None:
    before = {file.name: file.read_text() for file in (run / "training").iterdir()}
    lost = sorted(before)[0]
    (run / "training" / lost).unlink()
    told: list[tuple[int, int]] = []
    trained = training.train_all(run, protocol, progress=lambda *at: told.append(at))
    assert (trained, told) == (1, [(4, 4)])
    again = json.loads((run / "training" / lost).read_text())
    losses = [epoch["reconstruction"] for epoch in again["epochs"]]
    assert losses == [epoch["reconstruction"] for epoch in json.loads(before[lost])["epochs"]]


def test_other_protocol_is_refused(run: Path, protocol: TableProtocol) -> None:
    other = protocol.model_copy(update={"data": DataConfig(count=13)})
    with pytest.raises(UserError, match="protocol differs"):
        training.train_all(run, other)


def test_diverged_training_is_a_row_with_a_reason(
    protocol: TableProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(Trainer):
        def _epoch(self, epoch: int, on_batch: OnBatch | None) -> EpochResult:
            if epoch == 2:
                raise TrainingDiverged("epoch 2: the loss is nan")
            return super()._epoch(epoch, on_batch)

    monkeypatch.setattr(training, "Trainer", Diverging)
    training.train_all(tmp_path, protocol, limit=1)
    (file,) = (tmp_path / "training").iterdir()
    record = json.loads(file.read_text())
    assert record["failure"] == "epoch 2: the loss is nan"
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1]
    build(tmp_path, protocol, tmp_path / "t.parquet", partial=True)
    table = load_vae_table(tmp_path / "t.parquet")
    evaluate = TabularEvaluator(table, ["reconstruction_loss"])
    architecture = next(m.architecture for m in members(table.space) if m.digest == file.stem)
    with pytest.raises(CandidateFailed, match="nan"):
        list(evaluate(architecture))
    assert not table.table().entries


@pytest.mark.slow
def test_built_table_replays_what_was_recorded(
    run: Path, protocol: TableProtocol, tmp_path: Path
) -> None:
    latency.measure_all(run, protocol, QUICK)
    assert build(run, protocol, tmp_path / "t.parquet") == 4
    table = load_vae_table(tmp_path / "t.parquet")
    assert table.about["protocol"] == protocol.model_dump(mode="json")
    found = table.table()
    assert found.objectives == ("reconstruction_loss", "params", "macs", "latency_ms")
    assert sorted(row.assignment["latent_size"] for row in found.entries.values()) == [2, 4]
    for digest, row in found.entries.items():
        recorded = json.loads((run / "training" / f"{digest}.json").read_text())
        measured = json.loads((run / "latency" / f"{digest}.json").read_text())
        assert row.costs[:2] == (recorded["params"], recorded["macs"])
        ratio = measured["latency_over_original"]
        assert row.costs[2] == pytest.approx(ratio * table.anchor_ms)
        assert row.epoch_s == tuple(epoch["processor_s"] for epoch in recorded["epochs"])


def test_contended_measurement_is_taken_again(
    protocol: TableProtocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([True, False])
    taken = []

    def measured(member: Member, config: SetUp, lane: Lane) -> dict[str, Any]:
        taken.append(member.digest)
        return {"contended": next(verdicts), "spread": 0.2}

    monkeypatch.setattr(latency, "measure_one", measured)
    assert latency.measure_all(tmp_path, protocol, limit=1) == 1
    assert latency.measure_all(tmp_path, protocol, limit=1) == 0
    assert latency.measure_all(tmp_path, protocol, limit=1) == 0
    assert len(taken) == 2


@pytest.mark.slow
def test_evaluator_yields_steps_like_a_real_one(
    run: Path, protocol: TableProtocol, tmp_path: Path
) -> None:
    latency.measure_all(run, protocol, QUICK)
    build(run, protocol, tmp_path / "t.parquet")
    table = load_vae_table(tmp_path / "t.parquet")
    architecture = REFERENCES["original"].resized(16)
    wanted = ["params", "latency_ms", "reconstruction_loss"]
    stream = list(TabularEvaluator(table, wanted)(architecture))
    assert [one.step for one in stream] == ["static", "device", "training", "training", "done"]
    assert [len(one.history) for one in stream] == [0, 0, 1, 2, 2]
    record = table.records[architecture.digest]
    best = best_epochs(record)[-1]
    assert stream[-1].objectives["reconstruction_loss"] == record["reconstruction_loss"][best]
    assert stream[-1].metrics["best_epoch"] == best + 1
    low, high = stream[-1].intervals["latency_ms"]
    assert low <= stream[-1].objectives["latency_ms"] <= high
    short = TabularEvaluator(table, ["params", "macs"])(architecture)
    assert [one.step for one in short] == ["static", "done"]
    with pytest.raises(UserError, match="not in the table"):
        next(TabularEvaluator(table, wanted)(REFERENCES["original"].resized(64)))


def test_whole_study_runs_from_the_table(
    run: Path, protocol: TableProtocol, tmp_path: Path
) -> None:
    build(run, protocol, tmp_path / "t.parquet")
    table = load_vae_table(tmp_path / "t.parquet")
    config = StudyConfig.model_validate(
        {
            "name": "s",
            "space": protocol.space,
            "objectives": ["reconstruction_loss", "params"],
            "search": {"sampler": "random", "trials": 5},
        }
    )
    store = StudyStore(tmp_path / "s")
    with store.writing():
        store.create(config, table.space, {"data_fingerprint": "0" * 12})
        evaluate = TabularEvaluator(table, config.objectives)
        record = Runner(config, table.space, store, Alone(evaluate)).run()
    assert [trial.reference for trial in record.trials] == ["original", "modified", None, None]
    assert {trial.state for trial in record.trials} == {"complete"}
    losses = {digest: row.losses[-1] for digest, row in table.table().entries.items()}
    found = {trial.digest: trial.objectives["reconstruction_loss"] for trial in record.trials[2:]}
    assert found == losses


def test_a_table_becomes_a_study_of_all_its_members(
    run: Path, protocol: TableProtocol, tmp_path: Path
) -> None:
    build(run, protocol, tmp_path / "t.parquet")
    table, told = load_vae_table(tmp_path / "t.parquet"), list[tuple[int, int]]()
    record = replay(table, tmp_path, "s", lambda done, total: told.append((done, total)))
    rows = table.table().entries
    found = {t.digest: [t.objectives[n] for n in record.objective_names] for t in record.trials}
    assert {digest: row.values for digest, row in rows.items()}.items() <= found.items()
    assert told[-1] == (len(rows), len(rows))
    assert StudyStore.open(tmp_path, "s").record().trials == record.trials
    with pytest.raises(UserError, match="exists already"):
        replay(table, tmp_path, "s", lambda done, total: None)
    with pytest.raises(UserError, match="cannot name a study"):
        replay(table, tmp_path, "a name", lambda done, total: None)


def test_kept_epoch_is_the_one_of_lowest_total_loss() -> None:
    assert best_epochs({"total_loss": [3.0, 2.0, 2.5, 2.0, 1.0]}) == [0, 1, 1, 1, 4]


def test_incomplete_run_is_not_built_unasked(protocol: TableProtocol, tmp_path: Path) -> None:
    training.train_all(tmp_path, protocol, limit=1)
    with pytest.raises(UserError, match="3 of 4 are not trained"):
        build(tmp_path, protocol, tmp_path / "t.parquet")
    assert build(tmp_path, protocol, tmp_path / "t.parquet", partial=True) == 1
    table = load_vae_table(tmp_path / "t.parquet")
    assert table.table().objectives == ("reconstruction_loss", "params", "macs")
    member = next(m for m in members(table.space) if m.digest in table.records)
    with pytest.raises(UserError, match="latency_ms: not in this table"):
        list(TabularEvaluator(table, ["latency_ms"])(member.architecture))


def test_time_left_counts_the_steps_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr("benchmarks.vae_table.__main__.time.monotonic", lambda: next(now))
    told = TimeLeft("trained")
    told(8, 11)
    told(9, 11)
    assert capsys.readouterr().out == "trained 8/11, 3 min left\ntrained 9/11, 2 min left\n"


def test_command_ends_in_one_line_where_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vae_table", "build", "--out", str(tmp_path), "--to", "x"])
    assert main() == 2
    assert "434 of 434 are not trained yet" in capsys.readouterr().err
