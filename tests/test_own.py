"""Parts of the user's own by import string: found, called, refused, recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas import objective, testing
from nas.datasets import DataConfig, load_dataset
from nas.evaluate import Evaluator
from nas.findings import CandidateFailed, Findings
from nas.objectives import OBJECTIVES, declare, is_own
from nas.own.imports import imported, source_digest
from nas.own.losses import find_loss
from nas.own.objectives import find_objective, own_static_costs
from nas.own.recipes import find_recipe
from nas.predict.known_costs import known_costs
from nas.protocol import TrainingConfig
from nas.setups import SetUp
from nas.training import Trainer
from search_spaces import Architecture, UserError
from search_spaces.import_strings import import_string_of
from studies.config.loading import load_config
from studies.config.study import StudyConfig
from studies.confirm.evaluator import SeedEvaluator, asked, run_of
from studies.record.tables import study_notes
from studies.run.crew import Alone, Workers
from studies.run.evaluators import EvaluatorMaker
from studies.run.own import try_parts
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.dataset import noise
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.parts import Parts
from tests.fakes.runs import config, run
from tests.helpers.small_networks import described


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return Parts(tmp_path, monkeypatch)


def evaluator(tmp_path: Path, wanted: list[str], **training: Any) -> Evaluator:
    settings = TrainingConfig.model_validate({"epochs": 2, "batch_size": 8, **training})
    device, artefacts = torch.device("cpu"), tmp_path / "artefacts"
    return Evaluator(noise(30, 12), settings, SetUp(), device, wanted, artefacts)


# Import strings


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent_module:x", "absent_module:x: there is no module 'absent_module'; install it"),
        ("nas.absent:x", "nas.absent:x: there is no module 'nas.absent'"),
        ("nas.losses:vae_los", "nas.losses:vae_los: nas.losses has no 'vae_los' .*'vae_loss'"),
        ("nas.losses", "'nas.losses' is not an import string such as mypkg.metrics:fid"),
        ("../x:y", "is not an import string"),
    ],
)
def test_what_cannot_be_imported(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        imported(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import absent_package", "raised ModuleNotFoundError: No module named 'absent_package'"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("x = (", "raised SyntaxError: '[(]' was never closed"),
    ],
)
def test_a_module_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, told: str
) -> None:
    broken = Parts(tmp_path, monkeypatch, source)
    with pytest.raises(UserError, match=f"importing {broken.module} {told}") as refused:
        imported(broken("x"))
    assert "\n" not in str(refused.value)


def test_functions_have_import_strings(parts: Parts) -> None:
    assert import_string_of(imported(parts("depth"))) == parts("depth")
    assert import_string_of("a.b:c") == "a.b:c"
    with pytest.raises(UserError, match="define it in a module, at its top level"):
        import_string_of(lambda model: 1.0)


def test_the_current_folder_is_searched_last(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from pathlib import Path\nx = 3\n")
    code = "from nas.own.imports import imported; print(imported('mine:x'))"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "3\n", done.stderr


@pytest.mark.slow
def test_the_digest_is_that_of_the_source(parts: Parts) -> None:
    first = source_digest(parts("depth"))
    assert len(first) == 12
    assert source_digest(parts("closeness")) == first
    parts.path.write_text("# changed\n" + parts.path.read_text())
    assert source_digest(parts("depth")) == first, "a process that has imported the earlier source"
    code = f"from nas.own.imports import source_digest; print(source_digest({parts('depth')!r}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=parts.folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() != first


# Objectives


def test_the_names_of_arguments_say_what_a_value_comes_from(parts: Parts) -> None:
    known = {name: find_objective(parts(name)).definition for name in
             ("depth", "images_seen", "closeness")}  # fmt: skip
    assert {name: one.cost for name, one in known.items()} == {
        "depth": "static", "images_seen": "device", "closeness": "training",
    }  # fmt: skip
    assert (known["depth"].title, known["depth"].unit) == ("Depth", "layers")
    assert known["depth"].explanation == "Number of modules of the network."
    assert known["depth"].by_factor
    assert known["images_seen"].title == "Images seen"
    assert not known["images_seen"].by_factor
    best = known["closeness"]
    assert (best.direction, best.title, best.ideal) == ("maximise", "Closeness", 1.0)
    assert OBJECTIVES[parts("closeness")] is best
    assert parts("closeness") not in list(OBJECTIVES)


def test_latencies_in_set_ups_are_no_import_strings() -> None:
    assert not is_own("latency_ms:pi")
    assert is_own("a:b")
    assert not is_own("params")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("value", r"is a int, not a function of \(model\), \(model, images\) or \(images, recon"),
        ("no_arguments", r"no_arguments\(\): name its arguments \(model\), \(model, images\)"),
        ("other_arguments", r"other_arguments\(a, b\): name its arguments"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_is_no_objective(parts: Parts, tmp_path: Path, name: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"space: tiny\nobjectives: [params, '{parts(name)}']\n")
    with pytest.raises(UserError, match=told) as refused:
        load_config(str(path))
    assert str(refused.value).startswith(f"{path}: objectives: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"direction": "up"}, "direction 'up' is not one of minimise, maximise"),
        ({"compared_by": "sum"}, "compared_by 'sum' is not one of factor, difference"),
        ({"direction": "maximise"}, "what is maximised needs ideal"),
        ({"ideal": float("inf")}, "ideal inf is not finite"),
    ],
)
def test_what_no_objective_can_be(arguments: Any, told: str) -> None:
    with pytest.raises(UserError, match=f"^objective: {told}"):
        objective(**arguments)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nan", "returned nan, not a finite number$"),
        ("tensor", r"returned a Tensor of shape \(3,\), not a number; return float\(...\) of it$"),
        ("text", "returned a str, not a number$"),
        ("negative_factor", "returned -1, but is compared by factors: not above 0$"),
        ("broken", "raised ZeroDivisionError: no luck$"),
    ],
)
def test_a_bad_value_fails_the_candidate_in_one_line(parts: Parts, name: str, told: str) -> None:
    own = find_objective(parts(name))
    given = [torch.zeros(1)] * (1 if own.definition.cost == "static" else 2)
    with pytest.raises(CandidateFailed, match=f"^{parts(name)} {told}"):
        own.value(*given)


def test_a_difference_may_be_negative(parts: Parts) -> None:
    assert find_objective(parts("negative")).value(torch.zeros(1), torch.zeros(1)) == -1.0


def test_two_objectives_of_one_title_are_refused(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    other = Parts(tmp_path / "b", monkeypatch)
    with pytest.raises(ValueError, match="both have the title 'Depth'; give one of them another"):
        config(objectives=[parts("depth"), other("depth")])
    with pytest.raises(ValueError, match="name each objective once"):
        config(objectives=[parts("depth"), parts("depth")])


def test_one_name_has_one_meaning_in_a_process(parts: Parts) -> None:
    known = find_objective(parts("closeness")).definition
    declare(replace(known, title="Closeness, renamed"))
    with pytest.raises(UserError, match="its direction is maximise in one study and minimise in"):
        declare(replace(known, direction="minimise"))


def test_an_evaluation_finds_all_three_kinds(parts: Parts, tmp_path: Path) -> None:
    names = ["depth", "images_seen", "closeness"]
    wanted = [*map(parts, names), "reconstruction_loss"]
    *_, found = evaluator(tmp_path, wanted)(described(12))
    values = {name: found.objectives[parts(name)] for name in names}
    assert values["depth"] == sum(1 for _ in _built().modules())
    assert values["images_seen"] == 1.012
    assert 0 < values["closeness"] < 1
    assert [parts("closeness") in epoch for epoch in found.history] == [True, True]
    assert (
        found.history[int(found.metrics["best_epoch"]) - 1][parts("closeness")]
        == (values["closeness"])
    )
    assert not found.metrics.keys() & found.objectives.keys()
    assert found.timings_s["measuring"] > 0


def _built() -> torch.nn.Module:
    from nas.vae import build_vae

    return build_vae(described(12))


def test_a_resumed_evaluation_measures_nothing_again(parts: Parts, tmp_path: Path) -> None:
    known = Findings("device", {"params": 1.0, parts("images_seen"): 7.0})
    *_, found = evaluator(tmp_path, [parts("images_seen"), "params"])(described(12), known)
    assert found.objectives[parts("images_seen")] == 7.0


def test_further_trainings_are_judged_too(parts: Parts, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=1, batch_size=8)
    asked_for = config(
        space="tiny", objectives=[parts("closeness"), "params"], training=training.model_dump()
    )
    seeds = SeedEvaluator(
        asked_for, noise(30, 12), torch.device("cpu"), tmp_path, 1, lambda done, total: None
    )
    *_, found = seeds(described(12), asked(5))
    further = run_of(found, 5)
    assert 0 < further.validation[parts("closeness")] < 1
    assert 0 < further.test[parts("closeness")] < 1
    assert further.test.keys() == further.validation.keys()


def test_a_checkpoint_keeps_judged_values(parts: Parts, tmp_path: Path) -> None:
    judges = {parts("closeness"): find_objective(parts("closeness")).value}
    training = TrainingConfig(epochs=2, batch_size=8)
    path = tmp_path / "checkpoint.safetensors"

    def trainer() -> Trainer:
        return Trainer(described(12), noise(30, 12), training, "cpu", judges=judges)

    first = trainer()
    whole = list(first.epochs())
    next(iter(trainer().epochs(path)))
    resumed = list(trainer().epochs(path))
    assert [one.validation for one in resumed] == [one.validation for one in whole]
    assert parts("closeness") in resumed[0].validation.own


def test_a_part_that_raises_late_fails_one_candidate(parts: Parts, tmp_path: Path) -> None:
    wanted = [parts("broken"), "reconstruction_loss"]
    with pytest.raises(CandidateFailed, match=r"broken raised ZeroDivisionError: no luck$"):
        list(evaluator(tmp_path, wanted)(described(12)))
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


# Losses


def test_a_loss_replaces_the_total_alone(parts: Parts) -> None:
    training = TrainingConfig(epochs=1, batch_size=8, loss=parts("squared"))
    (result,) = Trainer(described(12), noise(30, 12), training).epochs()
    quality = result.validation
    assert quality.total < 0.2 < quality.reconstruction
    assert quality.reconstruction == pytest.approx(1 - quality.ssim + 0.5 * quality.l1, abs=1e-5)


def test_the_paper_s_loss_is_not_stored() -> None:
    assert "loss" not in TrainingConfig().model_dump(mode="json")
    assert find_loss("paper") is None
    assert TrainingConfig.model_validate(TrainingConfig().model_dump()) == TrainingConfig()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("number_loss", "returned a float, not a scalar tensor"),
        ("vector_loss", r"returned a Tensor of shape \(8,\), not a scalar tensor"),
        ("detached_loss", "returned a tensor that has no gradient"),
    ],
)
def test_a_loss_that_cannot_be_minimised(parts: Parts, name: str, told: str) -> None:
    asked_for = config(space="tiny", training={"loss": parts(name)})
    with pytest.raises(UserError, match=rf"^{parts(name)} {told} \(tried on 8 random images\)$"):
        try_parts(asked_for, asked_for.load_space())
    training = TrainingConfig(epochs=1, batch_size=8, loss=parts(name))
    with pytest.raises(CandidateFailed, match=told):
        list(Trainer(described(12), noise(30, 12), training).epochs())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "mse"}, "training.loss: 'mse' is not a loss; use paper, or an import string"),
        (
            {"loss": "nas.losses:psnr"},
            r"psnr\(first, second\): cannot be called with reconstruction, images",
        ),
        ({"recipe": "papr"}, r"'papr' is not a recipe; use one of .*'paper'.*or an import string"),
        ({"recipe": "nas.losses:vae_loss"}, "cannot be called with model, learning_rate"),
    ],
)
def test_other_losses_and_recipes_are_refused(settings: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_config("quickstart", {f"training.{key}": value for key, value in settings.items()})


# Data sets


def test_a_data_set_of_ones_own(parts: Parts) -> None:
    data = DataConfig(kind=parts("squares"), count=30)
    dataset = load_dataset(data, 12)
    assert (dataset.name, dataset.images.shape) == (parts("squares"), (30, 3, 12, 12))
    assert load_dataset(data, 12).fingerprint == dataset.fingerprint
    assert DataConfig.model_validate(data.model_dump(mode="json")) == data
    with_path = DataConfig(kind=parts("squares"), path=parts.folder)
    assert len(load_dataset(with_path, 12)) == 40


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("value", "value: is a int, not a function of no arguments"),
        ("other_arguments", r"other_arguments\(a, b\): cannot be called with no arguments"),
        ("no_images", "no_images: int holds no images; give an array"),
        ("broken_images", "broken_images raised OSError: no disk"),
    ],
)
def test_what_is_no_data_set(parts: Parts, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        load_dataset(DataConfig(kind=parts(name)), 12)
    assert "\n" not in str(refused.value)


def test_an_unknown_kind_of_data() -> None:
    with pytest.raises(ValueError, match=r"not one of faces, celeba, folder .*'faces'.*nor an imp"):
        DataConfig(kind="face")


# Recipes


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_resumed_recipe_is_bitwise_the_same(parts: Parts, tmp_path: Path, name: str) -> None:
    training = TrainingConfig(epochs=2, batch_size=8, recipe=parts(name))

    def trainer() -> Trainer:
        return Trainer(described(12), noise(30, 12), training)

    whole = trainer()
    expected = list(whole.epochs())
    path = tmp_path / "checkpoint.safetensors"
    next(iter(trainer().epochs(path)))
    resumed = trainer()
    found = list(resumed.epochs(path))
    assert [one.validation for one in found] == [one.validation for one in expected]
    for one, other in zip(
        whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_recipe_gives_the_learning_rate(parts: Parts) -> None:
    assert TrainingConfig(recipe=parts("sgd")).learning_rate == 0.25
    assert TrainingConfig(recipe=parts("adamw")).learning_rate == 1e-3
    assert TrainingConfig(recipe=parts("sgd"), learning_rate=2.0).learning_rate == 2.0
    assert find_recipe(parts("sgd")).explanation == "Plain descent."


def test_what_is_no_optimiser(parts: Parts) -> None:
    asked_for = config(space="tiny", training={"recipe": parts("no_optimiser")})
    with pytest.raises(UserError, match=r"returned a VAE, not a torch.optim.Optimizer"):
        try_parts(asked_for, asked_for.load_space())


# Studies


class WithOwn(FakeEvaluator):
    """Adds the values of own objectives, made up from the digest."""

    def __init__(self, names: list[str], fail_on: int | None = None) -> None:
        super().__init__(fail_on)
        self.names = names

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        own = {name: int(architecture.digest[:4], 16) / 65536 + 0.1 for name in self.names}
        for findings in super().__call__(architecture, known):
            history = [{**epoch, **own} for epoch in findings.history]
            yield replace(findings, objectives={**findings.objectives, **own}, history=history)


@pytest.fixture
def asked_for(parts: Parts) -> StudyConfig:
    return config(objectives=[parts("closeness"), "params"])


def test_a_study_records_its_parts(parts: Parts, tmp_path: Path, asked_for: StudyConfig) -> None:
    record = run(tmp_path, asked_for, WithOwn([parts("closeness")]))
    assert record.own == {parts("closeness"): ("objective", source_digest(parts("closeness")))}
    assert any(parts("closeness") in note for note in study_notes(record))
    best = max(record.learned, key=lambda trial: trial.objectives[parts("closeness")])
    assert record.front[0] == best
    assert record.objectives[0].title == "Closeness"


@pytest.mark.slow
def test_every_sampler_takes_own_objectives(parts: Parts, tmp_path: Path) -> None:
    names = [parts("closeness"), "params", parts("depth")]
    for sampler in ("pareto", "tpe"):
        asked_for = config(
            name=sampler, objectives=names, search={"sampler": sampler, "trials": 12}
        )
        space, store = asked_for.load_space(), StudyStore(tmp_path / sampler)
        costs, crew = known_costs(names), Alone(WithOwn(names[::2]))
        with store.writing():
            store.create(asked_for, space, ENVIRONMENT)
            record = Runner(asked_for, space, store, crew, costs=costs).run()
        assert record.searched == 12
        best = max(record.learned, key=lambda trial: trial.objectives[names[0]])
        assert record.front[0] == best


@pytest.mark.slow
def test_a_study_is_read_where_its_parts_are_not(
    parts: Parts, tmp_path: Path, asked_for: StudyConfig
) -> None:
    record = run(tmp_path, asked_for, WithOwn([parts("closeness")]))
    parts.forget()
    code = (
        "import sys; from studies import open_study\n"
        f"study = open_study('s', {str(tmp_path)!r})\n"
        "print([trial.number for trial in study.front], study.objectives[0].title)\n"
        "study.report(); study.plot()\n"
        f"sys.exit({parts.module!r} in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    front = [trial.number for trial in record.front]
    assert (done.stdout, done.returncode) == (f"{front} Closeness\n", 0), done.stderr


def test_a_changed_source_is_refused(parts: Parts, tmp_path: Path, asked_for: StudyConfig) -> None:
    run(tmp_path, asked_for, WithOwn([parts("closeness")]))
    before = source_digest(parts("closeness"))
    source_digest.cache_clear()
    parts.path.write_text("# changed\n" + parts.path.read_text())
    now = source_digest(parts("closeness"))
    told = f"the source of {parts('closeness')} was {before}, now {now}"
    with pytest.raises(UserError, match=told):
        run(tmp_path, asked_for, WithOwn([parts("closeness")]))
    assert len(StudyStore.open(tmp_path, "s").record().trials) == 8


def test_a_candidate_that_a_part_fails_is_one_of_many(
    parts: Parts, tmp_path: Path, asked_for: StudyConfig
) -> None:
    record = run(tmp_path, asked_for, WithOwn([parts("closeness")], fail_on=5))
    states = [trial.state for trial in record.trials]
    assert states.count("failed") == 1
    assert states.count("complete") == len(states) - 1


@pytest.mark.parametrize(
    "own",
    [
        {"a.b:c": {"part": "objective", "source": 3}},
        {"a.b:c": {"part": "objective", "source": "x", "objective": {"title": "x"}}},
        {"no import string": {"part": "loss", "source": ""}},
        [1],
    ],
)
def test_a_damaged_record_of_parts_is_refused(
    parts: Parts, tmp_path: Path, asked_for: StudyConfig, own: Any
) -> None:
    run(tmp_path, asked_for, WithOwn([parts("closeness")]))
    store = StudyStore.open(tmp_path, "s")
    store.study.set_user_attr("own", own)
    with pytest.raises(UserError, match=r"damaged \(own") as refused:
        StudyStore.open(tmp_path, "s").record()
    assert "\n" not in str(refused.value)


def test_the_whole_of_a_part_is_in_the_configuration(parts: Parts, tmp_path: Path) -> None:
    overrides = {
        "objectives": [parts("closeness"), parts("depth")],
        f"limits.{parts('depth')}": 50,
        "training.loss": parts("squared"),
        "training.recipe": parts("sgd"),
        "data.kind": parts("squares"),
    }
    made = load_config("quickstart", overrides)
    assert made.limits == {parts("depth"): 50}
    described = made.describe_own()
    assert {name: one["part"] for name, one in described.items()} == {
        parts("closeness"): "objective", parts("depth"): "objective", parts("squared"): "loss",
        parts("sgd"): "recipe", parts("squares"): "data set",
    }  # fmt: skip
    assert StudyConfig.model_validate(made.to_dict()) == made
    assert not made.timed
    timed = load_config("quickstart", {"objectives": [parts("images_seen"), "params"]})
    assert timed.timed
    assert not timed.measured
    with pytest.raises(UserError, match="cannot be limited before training"):
        load_config("quickstart", {f"limits.{parts('closeness')}": 1})


@pytest.mark.slow
def test_worker_processes_import_the_parts(parts: Parts, tmp_path: Path) -> None:
    asked_for = config(
        space="tiny",
        objectives=[parts("closeness"), parts("depth")],
        data={"kind": parts("squares")},
        training={"epochs": 1, "batch_size": 8, "loss": parts("squared")},
    )
    sources = {name: source_digest(name) for name in asked_for.own_parts}
    make = EvaluatorMaker(asked_for, 32, "cpu", tmp_path / "a", {}, sources)
    with Workers(1, make) as crew:
        crew.start(0, described(32))
        while (event := crew.next()).kind != "ended":
            assert event.kind in ("found", "batch"), event.reason
            if event.findings is not None:
                found = event.findings.objectives
                crew.answer(0, True)
    assert {parts("closeness"), parts("depth")} <= found.keys()
    wrong = replace(make, sources=dict.fromkeys(sources, "0" * 12))
    with pytest.raises(UserError, match=r"its source is not that of the study \(it was 0{12}"):
        wrong(lambda done, total: None)


def test_a_data_set_that_changes_is_refused_in_a_worker(parts: Parts, tmp_path: Path) -> None:
    asked_for = config(space="tiny", data={"kind": parts("random_images")})
    first = load_dataset(asked_for.data, 12)
    make = EvaluatorMaker(asked_for, 12, "cpu", tmp_path / "a", {}, fingerprint=first.fingerprint)
    with pytest.raises(UserError, match=r"^data: \S*random_images has other images in a worker"):
        make(lambda done, total: None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tensor", "returned a Tensor of shape"),
        ("text", "returned a str, not a number"),
        ("nan", "returned nan"),
        ("broken", "raised ZeroDivisionError: no luck"),
    ],
)
def test_a_bad_objective_is_refused_before_the_study(parts: Parts, name: str, told: str) -> None:
    asked_for = config(space="tiny", objectives=["reconstruction_loss", parts(name)])
    with pytest.raises(UserError, match=f"^{parts(name)} {told}.*tried on 8 random") as refused:
        try_parts(asked_for, asked_for.load_space())
    assert "\n" not in str(refused.value)


# Contract tests


@pytest.mark.slow
def test_the_contract_tests_accept_good_parts(parts: Parts) -> None:
    for name in ("depth", "images_seen", "closeness"):
        testing.check_objective(parts(name), 32, 1)
    testing.check_objective(imported(parts("depth")))
    testing.check_loss(parts("squared"))
    assert len(testing.check_dataset(parts("squares"), 12)) == 40
    for name in ("sgd", "adamw"):
        testing.check_recipe(parts(name))


@pytest.mark.parametrize(
    ("check", "name", "told"),
    [
        (testing.check_objective, "nan", "nan returned nan, not a finite number"),
        (testing.check_objective, "broken", "broken raised ZeroDivisionError: no luck"),
        (testing.check_objective, "noisy", r"noisy returned 0\.\d+, then 0\.\d+"),
        (testing.check_objective, "changing", "changing has changed its arguments"),
        (testing.check_loss, "vector_loss", r"returned a Tensor of shape \(8,\)"),
        (testing.check_loss, "worse_loss", "worse_loss is not lower for a better reconstruction"),
        (testing.check_dataset, "random_images", "returned other images the second time"),
        (testing.check_recipe, "no_optimiser", "returned a VAE, not a torch.optim.Optimizer"),
    ],
)
def test_the_contract_tests_find_faults(parts: Parts, check: Any, name: str, told: str) -> None:
    with pytest.raises((AssertionError, UserError), match=told):
        check(parts(name))


def test_static_costs_need_no_weights(parts: Parts) -> None:
    found = own_static_costs(described(12), [parts("depth"), "params"])
    assert found == {parts("depth"): float(sum(1 for _ in _built().modules()))}
    assert np.isfinite(list(found.values())).all()
