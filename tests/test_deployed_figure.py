"""Deployed variants in a study's report: the plot beside their models, and the tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies.record.deployed import FOLDER, DeployedRecord, VariantRecord
from studies.record.records import StudyRecord
from studies.report.deployed_figure import deployed_figure, deployed_panels, variants_table
from studies.report.report import write_report
from tests.fakes.study import fake_study
from tests.helpers.page import Page

FAST, SLOW, LOST = "openvino float32", "onnxruntime int8", "openvino int8"


def record(trial: int, target: str | None = None) -> DeployedRecord:
    """Return two variants that were built and one that was not; eager takes 10 ms."""
    return DeployedRecord(
        trial=trial,
        threads=1,
        device="pi (Board)" if target else "Processor",
        target=target,
        contended=False,
        variants=(
            VariantRecord(
                name=FAST,
                latency_ms=2.0,
                over_eager=(0.2, 0.1, 0.3),
                cost=0.0,
                cost_interval=(-0.01, 0.01),
            ),
            VariantRecord(
                name=SLOW,
                rejected="takes 2.00x",
                latency_ms=4.0,
                over_eager=(0.4, 0.3, 0.5),
                cost=0.1,
                cost_interval=(0.05, 0.2),
            ),
            VariantRecord(name=LOST, rejected="needs nncf"),
        ),
    )


@pytest.fixture
def study(tmp_path: Path) -> StudyRecord:
    return fake_study(tmp_path / "s", found=3)


def written(study: StudyRecord, *records: DeployedRecord) -> None:
    folder = study.folder / FOLDER
    folder.mkdir(parents=True)
    for one in records:
        (folder / f"{one.trial}{one.file}").write_text(one.model_dump_json())


def test_variants_stand_beside_their_model(study: StudyRecord) -> None:
    trial = study.complete[2]
    loss = trial.objectives["reconstruction_loss"]
    table = variants_table(study, [record(trial.number), record(999)])
    assert table[["model", "name", "kind"]].values.tolist() == [
        [trial.name, "eager", "model"],
        [trial.name, FAST, "deployed"],
        [trial.name, SLOW, "rejected"],
    ]
    assert table["latency_ms"].tolist() == [10.0, 2.0, 4.0]
    assert table[["latency_ms_low", "latency_ms_high"]].values.tolist() == [
        [10.0, 10.0], [1.0, 3.0], [3.0, 5.0]
    ]  # fmt: skip
    assert table["reconstruction_loss"].tolist() == pytest.approx([loss, loss, 1.1 * loss])
    assert table["reconstruction_loss_high"].tolist() == pytest.approx(
        [loss, 1.01 * loss, 1.2 * loss]
    )
    line, *points = deployed_figure(table).data
    assert list(line.x) == [10.0, 2.0]
    assert [(trace.name, list(trace.text)) for trace in points] == [
        ("rejected", [""]),
        ("model", [f"{trial.name}, eager"]),
        ("deployed", [FAST]),
    ]


@pytest.mark.slow
def test_each_machine_has_a_plot(study: StudyRecord) -> None:
    first, second = (trial.number for trial in study.complete[1:3])
    written(study, record(first), record(second), record(first, "pi"))
    panels = deployed_panels(study)
    assert [panel.key for panel in panels] == ["variants", "variants-2"]
    assert panels[0].caption.startswith("One image on Processor, 1 thread.")
    assert "pi (Board)" in panels[1].caption
    page = Page(write_report(study).read_text())
    assert {"after", "deployed", "plot-variants", "plot-variants-2"} <= set(page.ids)
    assert f"{study.complete[1].name}, deployed for pi" in page.text
    assert "Over float32" in page.text
    shutil.rmtree(study.folder / FOLDER)
    assert "after" not in Page(write_report(study, plots=False).read_text()).ids
