"""The committed studies are correct: costs and claims are computed again."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from nas.evaluate import static_costs
from search_spaces.references import REFERENCES
from studies.paper.timing import Timing
from studies.record.comparison import compare
from studies.store.store import StudyStore, list_studies

ROOT = Path(__file__).parent.parent / "studies" / "results"
FINDINGS = Path(__file__).parent.parent / "docs" / "findings.md"


@pytest.mark.parametrize("name", list_studies(ROOT))
@pytest.mark.slow
def test_costs_of_a_committed_study_are_those_of_its_architectures(name: str) -> None:
    record = StudyStore.open(ROOT, name).record()
    assert set(record.references) == set(REFERENCES)
    members = [trial for trial in record.front if not trial.reference]
    for trial in (*record.references.values(), *members[:4]):
        counted = static_costs(trial.architecture)
        assert trial.objectives["params"] == counted["params"]
        assert trial.objectives["macs"] == counted["macs"]


def test_the_winner_ties_with_original_at_a_fraction_of_its_costs() -> None:
    study = StudyStore.open(ROOT, "flagship").record()
    original, modified = (study.references[name] for name in ("original", "modified"))
    winner, other = study.trial(206), study.trial(184)
    assert study.noise is not None
    assert [winner, other, original] == [one for one in (winner, other, original) if one.confirmed]
    for name, times in (("params", 18.7), ("macs", 19), ("latency_ms", 8.9)):
        assert winner.objectives[name] * times < original.objectives[name]
        assert winner.objectives[name] * 12 < modified.objectives[name]
    assert compare(study, winner, original).verdicts == {"reconstruction_loss": 0, "latency_ms": 1}
    assert winner in study.front
    assert winner.metrics["total_loss"] < 0.99 * original.metrics["total_loss"]
    highest = winner.intervals["reconstruction_loss"][1]
    assert highest < modified.intervals["reconstruction_loss"][0]
    searched = min(one["reconstruction_loss"] for one in other.history)
    assert other.objectives["reconstruction_loss"] > 1.015 * searched  # the winner's curse


def test_after_sixteen_epochs_both_are_better_than_pca() -> None:
    told = json.loads((ROOT / "flagship" / "retrained" / "results.json").read_text())
    study = StudyStore.open(ROOT, "flagship").record()
    assert study.floors is not None
    runs = {run["digest"]: run for run in told["runs"]}
    original, winner = (
        runs[one.digest] for one in (study.references["original"], study.trial(206))
    )
    pca = study.floors.test.pca
    assert winner["test"]["reconstruction"] < 0.95 * pca[16].reconstruction
    assert original["test"]["reconstruction"] < 0.985 * pca[64].reconstruction
    assert original["test"]["reconstruction"] < 0.97 * winner["test"]["reconstruction"]

    slower = median(one.duration_s for one in study.references["original"].runs) / median(
        one.duration_s for one in study.trial(206).runs
    )
    mine, theirs = (
        [one["reconstruction_loss"] for one in run["history"]] for run in (winner, original)
    )
    for epochs in (4, 5):  # in the time of as many epochs of `original`
        assert mine[int(epochs * slower) - 1] < 0.93 * theirs[epochs - 1]


def test_the_papers_models_made_again_differ_as_docs_tell() -> None:
    study = StudyStore.open(ROOT, "paper-144").record()
    losses = {name: one.history for name, one in study.references.items()}
    assert all(len(history) == 5 for history in losses.values())
    for mine, theirs in zip(losses["modified"], losses["original"], strict=True):
        assert mine["validation_loss"] > theirs["validation_loss"]
    told = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    for batch, low, high in ((1, 3.7, 4.3), (32, 4.3, 5.3)):
        text = (study.folder / "paper" / f"latency-{batch}.json").read_text()
        found = Timing.model_validate_json(text)
        assert low < found.slower[1] < found.slower[2] < high
        assert f"{found.slower[0]:.2f}x (95 %: {found.slower[1]:.2f} to" in told
        assert not found.contention or "slowed at times" in " ".join(told.split())


AXES = {
    "first encoder stage, convolution": "encoder.stages.0.convolution",
    "first encoder stage, block": "encoder.stages.0.block",
    "first encoder stage, layers": "encoder.stages.0.layers",
    "first encoder stage, width": "encoder.stages.0.width",
    "first encoder stage, downsampling": "encoder.stages.0.downsampling",
    "stem": "encoder.stem_width",
    "last decoder stage, upsampling": "decoder.stages.5.upsampling",
    "encoder head": "encoder.head",
    "encoder convolution": "encoder.convolution",
    "decoder convolution": "decoder.convolution",
    "encoder block": "encoder.block",
    "latent size": "latent_size",
    "decoder width": "decoder.base_width",
    "encoder depth": "encoder.depth",
}


def effects(name: str) -> dict[tuple[str, str], dict[str, float]]:
    with (ROOT / "effects" / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = ("axis", "choice")
    return {
        (row["axis"], row["choice"].lower()): {
            key: float(value) for key, value in row.items() if key not in texts
        }
        for row in rows
    }


def table(heading: str) -> list[list[str]]:
    """Rows of the table under a heading of findings.md; the axis is carried down."""
    section = FINDINGS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for before, row in pairwise(rows):
        row[0] = row[0] or before[0]
    return rows


def is_rounded(told: str, factor: float) -> bool:
    if told.endswith("x"):
        return abs(float(told[:-1]) - factor) <= 0.0051
    number = told.strip("()").removesuffix("%")
    allowed = 0.051 if "." in number else 0.51
    return abs(float(number) - 100 * (factor - 1)) <= allowed


def test_the_table_of_choices_in_findings_is_that_of_the_data() -> None:
    found = effects("wide-latency")
    rows = table("What a choice costs on this CPU")
    assert len(rows) == 17
    for axis, choices, *cells in rows:
        for column, cell in zip(("macs", "predicted_latency_ms"), cells, strict=True):
            for choice, told in zip(choices.split(", "), cell.split(", "), strict=True):
                key = choice.lower().replace(" (the paper's)", "")
                effect = found[AXES.get(axis, axis), key]
                assert is_rounded(told, effect[column]), (axis, choice, told)
                chance = effect[f"{column}_low"] <= 1 <= effect[f"{column}_high"]
                assert told.startswith("(") is chance, (axis, choice, told)


def test_the_table_of_losses_in_findings_is_that_of_the_data() -> None:
    found = effects("vae-table")
    rows = table("What a choice does to the loss")
    assert len(rows) == 6
    for axis, choices, *cells in rows:
        first, second = (found[AXES[axis], choice] for choice in choices.split(" instead of "))
        for column, told in zip(("reconstruction_loss", "macs", "latency_ms"), cells, strict=True):
            assert is_rounded(told, first[column] / second[column]), (axis, told)
