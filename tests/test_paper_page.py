"""The paper's page: tables, verdicts and sentences follow from the results."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.setups import SetUp
from nas.timed_models import TimedImages
from search_spaces.errors import UserError
from search_spaces.references import PUBLISHED, REFERENCES
from studies.config.loading import load_config
from studies.paper import claims, strips, timing, words
from studies.paper.claims import Claim
from studies.paper.curves import paper_curve_figure, paper_curve_table
from studies.paper.estimate import Pace, Work, in_words
from studies.paper.page import cluster_rows, paper_panels, share_rows, write_paper
from studies.paper.results import require_both
from studies.paper.table import reduction, table_1
from tests.fakes.paper import TEST, results, study, without
from tests.fakes.paper import timing as fake_timing


@pytest.mark.slow
def test_table_1_at_the_papers_size_is_the_papers() -> None:
    rows = {row.what: row for row in table_1(REFERENCES, [fake_timing(), fake_timing(32)])}
    params = rows["Parameters at 144 px"]
    assert (params.original, params.modified) == ("9,352,195", "6,283,267")
    assert params.published == ("9,352,195", "6,283,267", "32.8 % fewer")
    assert params.relation == "32.8 % fewer"
    assert rows["MACs, one image at 144 px"].relation == "1.66x as many"
    assert rows["FLOPs, one image at 144 px"].original == "1,329,758,208"
    small = rows["Batch 1, our protocol"]
    assert small.published == ("-", "-", "-")
    assert (small.original, small.modified, small.relation) == ("10 ms", "40 ms", "4.00x slower")
    papers = rows["Batch 1, the paper's protocol"]
    assert papers.published == ("1.77 ± 0.08 ms", "10.32 ± 1.13 ms", "5.8x slower")
    assert papers.original == "11.0 ± 2.0 ms"
    large = rows["Batch 32, the paper's protocol"]
    assert large.published == ("26.30 ± 5.07 ms", "131.22 ± 8.18 ms", "5.0x slower")
    assert reduction("params") == pytest.approx(0.328, abs=5e-4)
    assert reduction("macs") == pytest.approx(-0.657, abs=1e-3)


@pytest.mark.slow
def test_a_faster_model_is_called_faster_and_a_busy_machine_busy() -> None:
    faster = fake_timing(1, 0.5, ("other processes",))
    row = next(r for r in table_1(REFERENCES, [faster]) if r.what == "Batch 1, our protocol")
    assert row.relation == "2.00x faster"
    assert row.contended
    claim = claims.slower(faster)
    assert claim.verdict == "does not hold"
    assert "busy" in claim.found
    assert claims.slower(fake_timing(1, 1.005)).verdict == "undecided"
    assert claims.slower(fake_timing(32)).verdict == "holds"
    assert claims.slower(fake_timing(1, 1.2)).verdict == "holds"
    assert claims.slower(fake_timing(1, 1.2, ("other processes",))).verdict == "undecided"


def verdicts(folder: Path, **numbers: float) -> dict[str, str]:
    return {one.key: one.verdict for one in claims.claims(results(folder, **numbers))}  # type: ignore[arg-type]


@pytest.mark.slow
def test_verdicts_follow_the_numbers(tmp_path: Path) -> None:
    papers = verdicts(tmp_path, worse=0.1, rougher=-0.1)
    assert papers["parameters"] == papers["quality"] == papers["smoothness"] == "holds"
    assert papers["slower-1"] == papers["slower-32"] == "holds"
    other = verdicts(tmp_path, worse=-0.1, rougher=0.1, slower=0.5)
    assert other["quality"] == other["smoothness"] == other["slower-1"] == "does not hold"
    equal = verdicts(tmp_path, worse=0.0, rougher=0.0)
    assert equal["quality"] == "undecided"


@pytest.mark.slow
def test_even_steps_between_equal_faces_are_not_called_smooth(tmp_path: Path) -> None:
    found = {one.key: one for one in claims.claims(results(tmp_path, rougher=-0.1, span=0.1))}
    assert found["smoothness"].verdict == "undecided"
    assert "differ by only 10 % of the photos' difference" in found["smoothness"].found


@pytest.mark.slow
def test_a_model_that_draws_one_image_has_no_smoothness(tmp_path: Path) -> None:
    fake = results(tmp_path, span=0.0)
    still = {**fake.models["modified"].interpolation, "step_variation": np.full(20, np.nan)}
    models = {**fake.models, "modified": replace(fake.models["modified"], interpolation=still)}
    unmoved = replace(fake, models=models)
    found = {one.key: one for one in claims.claims(unmoved)}
    assert found["smoothness"].verdict == "undecided"
    assert found["smoothness"].found.startswith("a model's faces differ by only 0 %")
    text = write_paper(unmoved).read_text(encoding="utf-8")
    section = text.split('<section id="smoothness">')[1].split("</section>")[0]
    assert "all images equal" in section
    assert not re.search(r"\bnan\b", section)


@pytest.mark.slow
def test_clusters_are_judged_by_the_neighbours_both_ways(tmp_path: Path) -> None:
    fake = results(tmp_path)
    good = {**fake.models["original"].scores, "seen": fake.labels}
    for name, verdict in (("modified", "holds"), ("original", "does not hold")):
        models = {**fake.models, name: replace(fake.models[name], scores=good)}
        found = {one.key: one for one in claims.claims(replace(fake, models=models))}
        assert found["clusters"].verdict == verdict
    assert "clusters" not in verdicts(tmp_path, labelled=False)


def claim(key: str, verdict: str) -> Claim:
    return Claim(key, "", "", "", verdict)  # type: ignore[arg-type]


def test_the_headline_summarises_the_verdicts() -> None:
    found = [claim("slower-1", "holds"), claim("slower-32", "holds"), claim("quality", "undecided")]
    assert words.paper_headline(found) == (
        "Here `modified` is slower at batch 1 and 32; whether it reconstructs worse is undecided."
    )
    assert words.tally(found) == "2 of 3 statements hold, 1 is undecided"
    other = [claim("slower-1", "does not hold"), claim("slower-32", "holds")]
    other += [claim("quality", "does not hold"), claim("smoothness", "does not hold")]
    assert words.paper_headline(other) == (
        "Here `modified` is faster at batch 1, is slower at batch 32, reconstructs better and "
        "has the rougher latent space."
    )
    assert words.tally(other) == "1 of 4 statements holds, 3 do not"
    nothing = [claim("quality", "undecided"), claim("clusters", "undecided")]
    assert words.paper_headline(nothing).startswith("No claim is decided; whether it")


def test_caveats_name_exactly_the_differences_from_the_protocol() -> None:
    config = load_config("paper-table").to_dict()
    celeba = {**config, "data": {**config["data"], "kind": "celeba"}}
    assert words.caveats(celeba, 20_000, 144, 10) == []
    assert words.caveats(config, 400, 32, 1) == [
        "rendered faces instead of CelebA",
        "400 images instead of 20,000",
        "1 epoch instead of 10",
        "32 px instead of 144 px",
    ]
    changed = {**celeba, "training": {**config["training"], "ssim": "gaussian"}}
    assert words.caveats(changed, 20_000, 144, 10) == ["ssim gaussian instead of uniform"]


def test_the_preset_is_the_papers_protocol() -> None:
    config = load_config("paper-table")
    training = config.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (10, 32, 1e-4)
    assert (training.patience, training.ssim, training.l1_weight) == (5, "uniform", 0.5)
    assert config.data.count == 20_000
    assert config.search.trials == 0
    assert config.load_space().image_size == 144


def test_curves_lie_over_the_published_ones(tmp_path: Path) -> None:
    table = paper_curve_table(study(tmp_path))
    counts = table.groupby(["model", "source", "part"]).size()
    assert counts["original", "here", "train"] == 2
    assert counts["modified", "published", "validation"] == 10
    last = table[(table.source == "published") & (table.epoch == 10) & (table.part == "train")]
    assert sorted(last["loss"]) == [0.5596, 0.6778]
    assert PUBLISHED["modified"].losses[0] == (0.8303, 0.7541)
    assert len(paper_curve_figure(table, "Some CPU").data) == 8


@pytest.mark.slow
def test_the_page_opens_offline_and_holds_everything(tmp_path: Path) -> None:
    fake = results(tmp_path)
    page = write_paper(fake).read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', without_scripts)
    for section in ("claims", "table-1", "images", "training", "latents", "traversals"):
        assert f'<section id="{section}">' in page
    assert page.count("data:image/webp") == 2 + 3 + 4 + 4 + 6
    colours = json.loads(re.findall(r'class="colours".*?json">(.*?)</script>', page, re.S)[0])
    assert {name: len(one) for name, one in colours.items()} == {"Eyeglasses": TEST, "Male": TEST}
    assert "<b>paper-table</b>" in page
    assert "Tesla T4" in page
    assert "Some CPU" in page


@pytest.mark.slow
def test_a_page_without_attributes_says_so(tmp_path: Path) -> None:
    page = write_paper(results(tmp_path, labelled=False)).read_text(encoding="utf-8")
    assert "too few labelled attributes" in page
    assert 'id="attributes"' not in page
    assert 'class="colours"' not in page


def test_tables_of_attributes(tmp_path: Path) -> None:
    fake = results(tmp_path)
    rows = cluster_rows(fake)
    assert [row["name"] for row in rows] == ["Eyeglasses", "Male"]
    assert rows[0]["share"] == "50 %"
    assert rows[0]["pixels"] == 1.0
    shares = share_rows(fake)
    assert [(row["model"], row["shares"][-1]) for row in shares] == [
        ("original", "100 %"),
        ("modified", "100 %"),
    ]
    assert [panel.key for panel in paper_panels(fake)] == [
        "paper-curves",
        "tsne-original",
        "tsne-modified",
    ]


def test_sheets_of_images_are_written_row_by_row(tmp_path: Path) -> None:
    fake = results(tmp_path)
    sheet = strips.reconstruction_sheet(fake)
    (written,) = strips.write_sheets([sheet], tmp_path / "figures")
    picture = np.asarray(Image.open(written)).transpose(2, 0, 1)
    assert picture.shape == (3, 3 * 16, 8 * 16)
    assert (picture[:, 16:32, 16:32] == fake.models["original"].rebuilt[1]).all()


def test_a_model_that_failed_ends_the_work(tmp_path: Path) -> None:
    require_both(study(tmp_path))
    with pytest.raises(
        UserError, match=r"modified was not trained \(out of memory\): use a smaller"
    ):
        require_both(without(study(tmp_path), "out of memory"))


def test_work_left_takes_epochs_and_images() -> None:
    pace = Pace(training_s=2.0, evaluation_s=0.5)
    work = Work(epochs=3, train=320, validation=64, test=64)
    assert work.seconds(pace, 32) == 3 * (10 * 2.0 + 2 * 0.5) + (64 + 768) / 32 * 0.5
    done = Work(epochs=0, train=320, validation=64, test=64)
    assert done.seconds(pace, 32) == (64 + 768) / 32 * 0.5


def test_too_little_memory_is_reported_with_a_remedy() -> None:
    cpu = torch.device("cpu")
    assert in_words(90, 10**9, cpu) == "this will take about 1 min 30 s and 1.0 GB"
    assert "use a smaller --size" in in_words(90, 10**16, cpu)
    assert "--size" not in in_words(90, 10**16, torch.device("cuda"))


def test_a_stored_timing_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked, cpu = tmp_path / "latency-1.json", SetUp(), torch.device("cpu")
    models = timing.TrainedModels(REFERENCES, TimedImages.noise(144), {"original": tmp_path})
    calls = list[str]()

    def measured(*given: object) -> timing.Timing:
        calls.append("measured")
        return fake_timing().model_copy(update={"source": given[3]})

    monkeypatch.setattr(timing, "_measured", measured)
    silent = lambda *_: None  # noqa: E731
    for _ in range(2):
        timing.load_or_measure(models, asked, cpu, path, silent)
    assert len(calls) == 1
    path.write_text("{", encoding="utf-8")
    timing.load_or_measure(models, asked, cpu, path, silent)
    timing.load_or_measure(models, SetUp(threads=2), cpu, path, silent)
    assert len(calls) == 3
    timing.load_or_measure(replace(models, weights={}), asked, cpu, path, silent)
    assert len(calls) == 4


def test_large_batches_get_longer() -> None:
    large = timing.config_for(SetUp(max_s=3), 32)
    assert (large.batch, large.max_s, large.attempts) == (32, 60, 2)
    assert timing.config_for(SetUp(max_s=3), 1) == SetUp(max_s=3)
