"""Search spaces: counts compared with enumeration, both parametrisations, all faults at once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.vae import build_vae
from search_spaces.architecture import Architecture
from search_spaces.axes import Assignment, Axis, Scalar
from search_spaces.configurations import ConfigurationSpace, _below
from search_spaces.enumeration import Enumeration
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES
from search_spaces.sizes import sides
from search_spaces.space import SPACES, SearchSpace

FIXED: dict[str, Any] = {
    "image_size": 16,
    "encoder.depth": 2,
    "encoder.base_width": 4,
    "decoder.depth": 2,
    "decoder.base_width": 4,
    "decoder.seed_width": 8,
}
# By hand: encoder plain 1 + dense 2 = 3, times latents 2, times layers 2 = 12; the rule takes
# away dense with growth 8 and 2 layers, for both latents: 10.
SMALL: dict[str, Any] = {
    "name": "small",
    "fixed": FIXED,
    "axes": {
        "latent_size": [4, 8],
        "encoder.block": ["plain", "dense"],
        "encoder.growth_rate": {"choices": [4, 8], "when": {"encoder.block": "dense"}},
        "encoder.layers": [1, 2],
    },
    "forbid": [{"encoder.growth_rate": 8, "encoder.layers": 2}],
}


def _space(
    axes: dict[str, Any], forbid: list[Any] | None = None, fixed: dict[str, Any] | None = None
) -> SearchSpace:
    kept = {path: value for path, value in (FIXED | (fixed or {})).items() if path not in axes}
    return SearchSpace({"name": "made", "fixed": kept, "axes": axes, "forbid": forbid or []})


def _brute_force(space: SearchSpace) -> list[Assignment]:
    """Every assignment by trying all products of choices and absences: the oracle for counts."""
    absent = object()
    options = [[*axis.choices, absent] for axis in space.axes.values()]
    found = []
    for values in itertools.product(*options):
        pairs = zip(space.axes, values, strict=True)
        assignment: Assignment = {n: v for n, v in pairs if v is not absent}  # type: ignore[misc]
        active = [
            all(assignment.get(parent, absent) in allowed for parent, allowed in axis.when.items())
            for axis in space.axes.values()
        ]
        present = [name in assignment for name in space.axes]
        refused = any(
            all(assignment.get(name, absent) in values for name, values in rule.items())
            for rule in space.forbid
        )
        if present == active and not refused:
            found.append(assignment)
    return found


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Small spaces with random conditions, chains of conditions and rules across parts."""
    pool: dict[str, list[Any]] = {
        "latent_size": [4, 8, 12],
        "encoder.block": ["plain", "dense"],
        "decoder.block": ["plain", "dense"],
        "encoder.layers": [1, 2],
        "decoder.upsampling": ["nearest", "transposed"],
        "encoder.stem_width": [None, 4],
    }
    names = draw(st.permutations(list(pool)))[: draw(st.integers(1, 5))]
    axes: dict[str, Any] = {}
    for name in names:
        when = (
            {
                parent: draw(st.lists(st.sampled_from(pool[parent]), min_size=1, unique=True))
                for parent in draw(st.lists(st.sampled_from(list(axes)), max_size=2, unique=True))
                if axes
            }
            if axes
            else {}
        )
        axes[name] = {"choices": pool[name], "when": when}
    rules = [
        {name: draw(st.sampled_from(pool[name])) for name in draw(_subset(names))}
        for _ in range(draw(st.integers(0, 2)))
    ]
    # Rules on two or more axes never refuse everything here: each axis keeps another choice.
    rules = [rule for rule in rules if len(rule) > 1]
    return _space(axes, rules, {"encoder.growth_rate": 4, "decoder.growth_rate": 4})


def _subset(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)


@given(spaces())
@settings(max_examples=150, deadline=None)
def test_size_and_listing_agree_with_brute_force(space: SearchSpace) -> None:
    listed, expected = list(space.enumerate()), _brute_force(space)
    assert space.size == len(listed) == len(expected)
    assert all(assignment in expected for assignment in listed)
    assert len({json.dumps(assignment) for assignment in listed}) == len(listed)
    assert all(space.problem(assignment) is None for assignment in listed)


@given(spaces(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_an_assignment_comes_back_from_its_architecture(space: SearchSpace, seed: int) -> None:
    assignment = space.sample(np.random.default_rng(seed))
    architecture = space.architecture(assignment)
    assert architecture in space
    # Every axis of these spaces has an effect, so the way back is unique.
    assert space.assignment(architecture) == assignment
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@given(spaces(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_mutation_differs_and_stays_in_the_space(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = space.sample(rng)
    before = dict(first)
    if space.size > 1:
        mutant = space.mutate(first, rng)
        assert mutant != first
        assert space.problem(mutant) is None
    assert first == before


def test_a_space_counts_as_by_hand() -> None:
    space = SearchSpace(SMALL)
    assert space.size == 10
    assert space.distinct() == 10
    assert space.distinct(limit=9) is None


def test_axes_without_effect_count_as_assignments_but_not_as_architectures() -> None:
    axes = {"encoder.block": ["plain", "dense"], "encoder.growth_rate": [4, 8, 12]}
    space = _space(axes)
    assert (space.size, space.distinct()) == (6, 4)
    plain = space.architecture({"encoder.block": "plain", "encoder.growth_rate": 12})
    assert space.assignment(plain) == {"encoder.block": "plain", "encoder.growth_rate": 4}


def test_a_rule_on_an_axis_without_effect_is_kept_on_the_way_back() -> None:
    axes = {"encoder.block": ["plain", "dense"], "encoder.growth_rate": [4, 8]}
    space = _space(axes, [{"encoder.block": "plain", "encoder.growth_rate": 4}])
    assignment: Assignment = {"encoder.block": "plain", "encoder.growth_rate": 8}
    assert space.assignment(space.architecture(assignment)) == assignment


def test_samples_are_uniform_over_assignments_not_over_branches() -> None:
    space, rng, draws = SearchSpace(SMALL), np.random.default_rng(0), 20_000
    counts = dict.fromkeys((json.dumps(assignment) for assignment in space.enumerate()), 0)
    for _ in range(draws):
        counts[json.dumps(space.sample(rng))] += 1
    expected = draws / 10
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 27.88  # the 99.9 % quantile at nine degrees of freedom


def test_samples_of_a_huge_space_reach_every_choice() -> None:
    space, rng = SearchSpace.load("wide"), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(400)]
    for name, axis in space.axes.items():
        if not name.endswith("depth"):
            assert {a[name] for a in drawn if name in a} == set(axis.choices)
    # Each further stage of the encoder multiplies the assignments by 900: nearly all are deep.
    assert sum(a["encoder.depth"] == 6 for a in drawn) > 380
    # A dense stage has four growth rates, a plain one none: four fifths of all are dense.
    dense = np.mean([a["encoder.stages.0.block"] == "dense" for a in drawn])
    assert 0.74 < dense < 0.86


def test_mutation_changes_one_axis_where_the_rules_allow_it() -> None:
    space, rng = SearchSpace(SMALL), np.random.default_rng(0)
    point: Assignment = {"latent_size": 4, "encoder.block": "plain", "encoder.layers": 2}
    dense: Assignment = {
        "latent_size": 4, "encoder.block": "dense", "encoder.growth_rate": 4, "encoder.layers": 2,
    }  # fmt: skip
    steps = [{**point, "latent_size": 8}, dense, {**point, "encoder.layers": 1}]
    mutants = [space.mutate(point, rng) for _ in range(100)]
    assert all(mutant in steps for mutant in mutants)
    assert all(step in mutants for step in steps)


def test_assignments_are_numbered_from_0_to_size() -> None:
    axes = {"a": Axis((1, 2)), "b": Axis(("x", "y", "z"), when={"a": (2,)})}
    counted = Enumeration(axes, [{"a": (2,), "b": ("y",)}])
    assert [counted.nth(index) for index in range(counted.size)] == [
        {"a": 1}, {"a": 2, "b": "x"}, {"a": 2, "b": "z"},
    ]  # fmt: skip
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"assignment {index} of 3"):
            counted.nth(index)


def test_a_space_of_axes_needs_no_architectures() -> None:
    axes = {"kind": Axis((None, "dense")), "growth": Axis((4, 8, 16), when={"kind": ("dense",)})}
    space, rng = ConfigurationSpace("cells", axes), np.random.default_rng(0)
    dense: list[Assignment] = [{"kind": "dense", "growth": growth} for growth in (4, 8, 16)]
    assert list(space.enumerate()) == [{"kind": None}, *dense]
    assert space.to_optuna(dense[1]) == {"kind": "dense", "log2(growth)": 3}
    assert space.mutate({"kind": None}, rng) in dense
    with pytest.raises(UserError, match="cells: growth: missing"):
        space.require({"kind": "dense"})


def test_mutation_leaves_a_point_that_rules_isolate() -> None:
    axes = {"latent_size": [4, 8], "encoder.layers": [1, 2]}
    rules = [{"latent_size": 4, "encoder.layers": 2}, {"latent_size": 8, "encoder.layers": 1}]
    space = _space(axes, rules)
    start: Assignment = {"latent_size": 4, "encoder.layers": 1}
    assert space.mutate(start, np.random.default_rng(0)) == {"latent_size": 8, "encoder.layers": 2}
    alone = _space({"latent_size": [4]})
    with pytest.raises(UserError, match="the space has one assignment, so it cannot be mutated"):
        alone.mutate({"latent_size": 4}, np.random.default_rng(0))


def test_mutation_reaches_every_choice_of_a_newly_active_axis() -> None:
    space, rng = SearchSpace(SMALL), np.random.default_rng(0)
    point: Assignment = {"latent_size": 4, "encoder.block": "plain", "encoder.layers": 1}
    mutants = [space.mutate(point, rng) for _ in range(200)]
    assert {mutant.get("encoder.growth_rate") for mutant in mutants} == {None, 4, 8}


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ({"latent_sise": 4}, "latent_sise: no such axis (did you mean 'latent_size'?)"),
        ({"latent_size": 4}, "encoder.block: missing"),
        (
            {"latent_size": 5, "encoder.block": "plain", "encoder.layers": 1},
            "latent_size: 5 is not one of 4, 8",
        ),
        (
            {"latent_size": 4, "encoder.block": "palin", "encoder.layers": 1},
            "(did you mean 'plain'?)",
        ),
        (
            {
                "latent_size": 4,
                "encoder.block": "plain",
                "encoder.growth_rate": 4,
                "encoder.layers": 1,
            },
            "encoder.growth_rate: not active here",
        ),
        (
            {
                "latent_size": 4,
                "encoder.block": "dense",
                "encoder.growth_rate": 8,
                "encoder.layers": 2,
            },
            "encoder.growth_rate = 8, encoder.layers = 2: forbidden",
        ),
    ],
)
def test_an_invalid_assignment_is_refused_with_its_reason(
    assignment: Assignment, reason: str
) -> None:
    space = SearchSpace(SMALL)
    problem = space.problem(assignment)
    assert problem is not None
    assert reason in problem
    with pytest.raises(UserError) as caught:
        space.architecture(assignment)
    assert str(caught.value) == f"small: {problem}"


# Paths and schedules


def test_paths_set_what_they_name() -> None:
    space = _space(
        {"encoder.depth": [2, 3], "encoder.stages.*.layers": [1, 2], "decoder.base_width": [4, 8]},
        fixed={
            "encoder.stages.1.block": "dense",
            "encoder.growth_rate": 8,
            "encoder.base_width": 5,
        },
    )
    assert space.axes["encoder.stages.2.layers"].when == {"encoder.depth": (3,)}
    assert space.size == 2 * (2**2 + 2**3)
    layers = {f"encoder.stages.{i}.layers": value for i, value in enumerate((1, 2, 1))}
    built = space.architecture({"encoder.depth": 3, **layers, "decoder.base_width": 8})
    assert [stage.width for stage in built.encoder.stages] == [5, 10, 20]
    assert [stage.width for stage in built.decoder.stages] == [16, 8]
    assert [stage.layers for stage in built.encoder.stages] == [1, 2, 1]
    assert [stage.block for stage in built.encoder.stages] == ["plain", "dense", "plain"]


def test_the_way_back_tells_general_and_specific_paths_apart() -> None:
    space = _space(
        {
            "encoder.stem_width": [None, 4],
            "encoder.layers": [1, 2, 3],
            "encoder.stages.0.layers": {"choices": [2, 4], "when": {"encoder.stem_width": [4]}},
        }
    )
    for assignment in space.enumerate():
        explained = space.assignment(space.architecture(assignment))
        assert explained is not None
        assert space.architecture(explained) == space.architecture(assignment)
    assert space.size == 9


def test_the_way_back_tries_only_the_choices_that_an_architecture_shows() -> None:
    tried: list[Mapping[str, Scalar]] = []

    class Watched(SearchSpace):
        def architecture(self, assignment: Mapping[str, Scalar]) -> Architecture:
            tried.append(assignment)
            return super().architecture(assignment)

    general, specific = "encoder.layers", "encoder.stages.0.layers"
    axes = {general: [1, 2, 3, 4], specific: [1, 2]}
    space = Watched({"name": "made", "fixed": FIXED, "axes": axes})
    built = SearchSpace.architecture(space, {general: 4, specific: 1})
    assert space.assignment(built) == {general: 4, specific: 1}
    assert tried == [{general: 1, specific: 1}, {general: 4, specific: 1}]


def test_other_architectures_are_not_members() -> None:
    space = SearchSpace(SMALL)
    member = space.architecture(next(space.enumerate())).to_dict()
    assert Architecture.from_dict(member) in space
    assert Architecture.from_dict({**member, "activation": "relu"}) not in space
    assert Architecture.from_dict({**member, "image_size": 17}) not in space
    member["encoder"]["stages"][1]["width"] = 9
    assert Architecture.from_dict(member) not in space


# Optuna


def test_optuna_sees_order_where_there_is_any() -> None:
    space = _space(
        {
            "latent_size": [4, 8, 16],
            "encoder.layers": [1, 2, 3],
            "encoder.block": ["plain", "dense"],
            "encoder.growth_rate": [4, 12, 5],
            "encoder.stem_width": [None, 4],
            "decoder.seed_width": [24, 8, 16],
        }
    )
    distributions = optuna.distributions
    assert space.distributions() == {
        "log2(latent_size)": distributions.IntDistribution(2, 4),
        "encoder.layers": distributions.IntDistribution(1, 3),
        "encoder.block": distributions.CategoricalDistribution(["plain", "dense"]),
        "encoder.growth_rate": distributions.CategoricalDistribution([4, 12, 5]),
        "encoder.stem_width": distributions.CategoricalDistribution([None, 4]),
        "decoder.seed_width": distributions.IntDistribution(8, 24, step=8),
    }


@pytest.mark.parametrize("name", list(SPACES))
def test_fixed_trials_return_the_assignment_they_were_made_from(name: str) -> None:
    space, rng = SearchSpace.load(name), np.random.default_rng(0)
    for _ in range(20):
        assignment = space.sample(rng)
        params = space.to_optuna(assignment)
        trial = optuna.trial.FixedTrial(params)
        assert space.suggest(trial) == assignment
        assert set(space.distributions(assignment)) == set(params)


def test_a_real_sampler_covers_the_space_and_stays_in_it() -> None:
    space = SearchSpace(SMALL)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    first = next(space.enumerate())
    study.enqueue_trial(space.to_optuna(first))
    seen: list[Assignment] = []
    for _ in range(120):
        trial = study.ask()
        assignment = space.suggest(trial)
        assert trial.distributions == space.distributions(assignment)
        assert space.to_optuna(assignment) == trial.params
        seen.append(assignment)
    assert seen[0] == first
    valid = [assignment for assignment in seen if space.problem(assignment) is None]
    assert {json.dumps(a) for a in valid} == {json.dumps(a) for a in space.enumerate()}
    refused = [space.problem(assignment) for assignment in seen if assignment not in valid]
    assert set(refused) == {"encoder.growth_rate = 8, encoder.layers = 2: forbidden"}


def test_importing_and_sampling_need_neither_optuna_nor_torch() -> None:
    code = (
        "import sys, numpy; from search_spaces.space import SearchSpace as S; "
        "s = S.load('tiny'); s.architecture(s.sample(numpy.random.default_rng(0))); "
        "assert not {'optuna', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# Named spaces


@pytest.mark.parametrize(
    ("name", "size"), [("tiny", 90), ("quickstart", 14_400), ("paper", 1_924_560_000)]
)
def test_named_spaces_have_the_size_counted_by_hand(name: str, size: int) -> None:
    # tiny: latents 2 x (plain 1 + dense 2) x (flatten 1 + squeeze 2) x (2 x 3 - 1 forbidden).
    # quickstart: latents 2 x encoder 2 x 4 x 2 x (1 + 2 x 2) x decoder 2 x 3 x 3 x (1 + 2 x 2).
    # paper: latents 5 x encoder (3 x 4 - 1) x 3 x 3 x 4 x (1 + 4) x 3 x (2 + 3)
    #        x decoder 3 x 4 x 3 x 4 x (1 + 4) x 3 x 3 x 2.
    assert SearchSpace.load(name).size == size


def test_wide_counts_stage_by_stage() -> None:
    # A stage: convolutions 3 x layers 4 x resamplings 3 x (plain 1 + dense 4), times its widths.
    def part(widths: list[int]) -> int:
        return sum(180**depth * int(np.prod(widths[:depth])) for depth in (3, 4, 5, 6))

    encoder = part([4, 5, 5, 5, 5, 5]) * 5 * (2 + 5)  # stems, heads
    decoder = part([5, 4, 4, 4, 4, 3]) * 5 * 2  # seeds, operators
    assert SearchSpace.load("wide").size == 7 * 5 * encoder * decoder > 10**9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "quickstart"])
def test_small_named_spaces_describe_no_network_twice(name: str) -> None:
    space = SearchSpace.load(name)
    calls: list[tuple[int, int]] = []
    assert space.distinct(progress=lambda done, total: calls.append((done, total))) == space.size
    assert calls[0] == (1, space.size)
    assert calls[-1] == (space.size, space.size)


@pytest.mark.parametrize("name", ["quickstart", "paper", "wide", "paper@64", "wide@64"])
@pytest.mark.parametrize("reference", list(REFERENCES))
def test_the_references_are_members(name: str, reference: str) -> None:
    space = SearchSpace.load(name)
    architecture = REFERENCES[reference].resized(space.image_size)
    assignment = space.assignment(architecture)
    assert assignment is not None
    assert space.architecture(assignment) == architecture
    height, width = sides(space.image_size)
    assert architecture.resized(height - 1) not in space
    assert architecture.resized((height, width + 1)) not in space


def test_the_references_are_where_one_would_look_for_them() -> None:
    space = SearchSpace.load("paper")
    original, modified = space.assignment(ORIGINAL), space.assignment(MODIFIED)
    assert original is not None
    assert modified is not None
    assert (original["encoder.base_width"], original["decoder.base_width"]) == (32, 32)
    assert (modified["encoder.base_width"], modified["decoder.base_width"]) == (64, 32)
    assert "encoder.growth_rate" not in original
    assert modified["encoder.growth_rate"] == 32


@pytest.mark.parametrize("name", ["tiny", "quickstart", "paper@64", "wide@64"])
@pytest.mark.slow
def test_members_are_printed_alike_exactly_when_digests_agree(name: str) -> None:
    space, rng = SearchSpace.load(name), np.random.default_rng(0)
    architectures = [space.architecture(space.sample(rng)) for _ in range(25)]
    assignment = space.sample(rng)
    for _ in range(25):
        assignment = space.mutate(assignment, rng)
        architectures.append(space.architecture(assignment))
    with torch.device("meta"):
        printed = {a.digest: str(build_vae(a)) for a in architectures}
    assert len(set(printed.values())) == len(printed)


# Loading


def test_another_image_size_is_another_space_of_the_same_axes() -> None:
    paper = SearchSpace.load("paper")
    small = paper.with_fixed(image_size=64)
    assert small == SearchSpace.load("paper@64")
    assert (small.name, small.image_size, small.size) == ("paper@64", 64, paper.size)
    assert small.with_fixed(image_size=144).digest == paper.digest != small.digest
    assert paper.with_fixed(latent_size=128).size == paper.size // 5
    with pytest.raises(UserError, match=r"encoder\.depth: at most 4 stages fit 16 pixels"):
        paper.with_fixed(image_size=16)


def test_height_and_width_may_differ() -> None:
    paper = SearchSpace.load("paper")
    wide = SearchSpace.load("paper@64x96")
    assert wide == paper.with_fixed(image_size=(64, 96))
    assert (wide.name, wide.image_size, wide.size) == ("paper@64x96", (64, 96), paper.size)
    described = json.loads(json.dumps(wide.to_dict()))
    assert described["fixed"]["image_size"] == [64, 96]
    assert SearchSpace(described) == wide
    assert len({wide.digest, paper.digest, SearchSpace.load("paper@96x64").digest}) == 3
    assert all(wide.fitted(reference) in wide for reference in REFERENCES.values())
    assert wide.fitted(ORIGINAL).image_shape == (3, 64, 96)
    drawn = wide.architecture(wide.sample(np.random.default_rng(0)))
    assert wide.architecture(wide.assignment(drawn) or {}) == drawn


def test_equal_sides_are_one() -> None:
    assert SearchSpace.load("paper@144x144") == SearchSpace.load("paper")
    assert _space({"latent_size": [4]}, fixed={"image_size": [32, 32]}).image_size == 32


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ([144, 16], r"encoder\.depth: at most 4 stages fit 144x16 pixels"),
        ([144], r"fixed\.image_size: expected one side or \[height, width\], got 1 values"),
        ([144, "96"], r"fixed\.image_size: Input should be a valid integer"),
        ([144, 4000], r"fixed\.image_size: Input should be less than or equal to 2048"),
    ],
)
def test_unsuitable_sides_are_refused(size: list[Any], told: str) -> None:
    described = SearchSpace.load("paper").to_dict()
    described["fixed"]["image_size"] = size
    with pytest.raises(UserError, match=told):
        SearchSpace(described)


def test_a_pair_is_no_choice_of_an_axis() -> None:
    with pytest.raises(UserError, match=r"axes\.image_size: \[32, 16\] is a list; a choice is one"):
        _space({"image_size": [16, [32, 16]]})


def test_the_digest_is_of_the_definition_not_of_its_words() -> None:
    space = SearchSpace(SMALL)
    assert SearchSpace({**SMALL, "name": "x", "description": "y"}).digest == space.digest
    assert SearchSpace({**SMALL, "forbid": []}).digest != space.digest


def test_spaces_load_by_name_or_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(SMALL))
    assert SearchSpace.load(path) == SearchSpace(SMALL)
    with pytest.raises(UserError, match=r"'papr'.*\(did you mean 'paper'\?\)"):
        SearchSpace.load("papr")
    path.write_text("axes: [")
    with pytest.raises(UserError, match=r"mine\.yaml: not valid JSON or YAML"):
        SearchSpace.load(path)
    path.write_text("7")
    with pytest.raises(UserError, match=r"mine\.yaml: expected a mapping"):
        SearchSpace.load(path)


def _faults(**changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        SearchSpace({**SMALL, **changes}, "s.yaml")
    return str(caught.value).splitlines()


def _axes_faults(axes: dict[str, Any], **changes: Any) -> list[str]:
    return _faults(**{"axes": axes, "forbid": [], **changes})


CHOOSE_BLOCK = {"encoder.block": ["plain", "dense"]}


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"encoder.blok": ["plain"]}, "axes.encoder.blok: unknown path (did you mean 'encoder.bl"),
        (
            {"encoder.convolution": ["standrad"]},
            "axes.encoder.convolution: 'standrad' is not one of standard, depthwise_first, "
            "pointwise_first (did you mean 'standard'?)",
        ),
        ({"latent_size": []}, "axes.latent_size: expected a list of at least one choice, got []"),
        ({"latent_size": 4}, "axes.latent_size: expected a list of at least one choice, got 4"),
        ({"latent_size": [0]}, "axes.latent_size: Input should be greater than or equal to 1"),
        ({"latent_size": [4, 4]}, "axes.latent_size: 4 is listed twice"),
        ({"encoder.stem_width": [None, "8"]}, "Input should be a valid integer, got '8'"),
        ({"encoder.base_width": [4]}, "axes.encoder.base_width: both in `fixed` and an axis"),
        ({"encoder.stages.0.blok": ["plain"]}, "unknown stage field 'blok' (did you mean 'block'"),
        ({"encoder.stages.2.block": ["plain"]}, "there is no stage 2: encoder.depth is at most 2"),
        (
            {"encoder.stages.*.block": ["plain"], "encoder.stages.0.block": ["plain"]},
            "axes.encoder.stages.0.block: given twice",
        ),
        (
            {**CHOOSE_BLOCK, "encoder.growth_rate": {"choices": [4], "wehn": {}}},
            "axes.encoder.growth_rate.wehn: unknown key (did you mean 'when'?)",
        ),
        (
            {
                **CHOOSE_BLOCK,
                "encoder.growth_rate": {"choices": [4], "when": {"encoder.blok": "dense"}},
            },
            "when.encoder.blok: no such axis (did you mean 'encoder.block'?)",
        ),
        (
            {
                **CHOOSE_BLOCK,
                "encoder.growth_rate": {"choices": [4], "when": {"encoder.block": "dens"}},
            },
            "'dens' is not a choice of encoder.block (plain, dense) (did you mean 'dense'?)",
        ),
        (
            {"encoder.layers": {"choices": [1], "when": {"latent_size": 4}}, "latent_size": [4]},
            "axes.encoder.layers.when.latent_size: is declared later",
        ),
        (
            {"encoder.layers": {"choices": [1, 2], "when": {"encoder.layers": 1}}},
            "axes.encoder.layers.when.encoder.layers: is declared later",
        ),
        (
            {"encoder.layers": {"choices": [1], "when": {"decoder.depth": 2}}},
            "axes.encoder.layers.when.decoder.depth: is fixed; only an axis can be named here",
        ),
        (CHOOSE_BLOCK, "encoder.growth_rate: missing where encoder.block = dense"),
        (
            {"encoder.head": ["flatten", "squeeze"]},
            "encoder.head_width: missing where encoder.head = squeeze",
        ),
        (
            {"encoder.depth": [1, 10**9], "encoder.stages.*.layers": [1, 2]},
            "axes.encoder.depth: Input should be less than or equal to 11, got 1000000000",
        ),
        (
            {"latent_size": list(range(1, 3000))},
            "axes.latent_size: has 2,999 choices; at most 256 are possible",
        ),
    ],
)
def test_a_fault_in_the_axes_is_named_with_its_remedy(axes: dict[str, Any], expected: str) -> None:
    lines = _axes_faults(axes)
    assert all(line.startswith("s.yaml: ") for line in lines)
    assert any(expected in line for line in lines)


def test_a_condition_on_an_axis_without_choices_is_not_a_second_fault() -> None:
    growth = {"choices": [4], "when": {"encoder.block": "dense"}}
    assert _axes_faults({"encoder.block": [], "encoder.growth_rate": growth}) == [
        "s.yaml: axes.encoder.block: expected a list of at least one choice, got []"
    ]


def test_what_an_architecture_needs_is_asked_when_the_space_is_read() -> None:
    without = {path: value for path, value in FIXED.items() if path != "image_size"}
    assert _faults(fixed=without) == [
        "s.yaml: image_size: missing; give it a value in `fixed` or make it an axis"
    ]
    without = {path: value for path, value in FIXED.items() if path != "decoder.base_width"}
    assert _faults(fixed=without)[0] == "s.yaml: decoder.width: missing in stage 0"
    assert _faults(fixed=FIXED | {"encoder.depth": 5})[0] == (
        "s.yaml: encoder.depth: at most 4 stages fit 16 pixels"
    )
    assert "got 8192" in _faults(fixed=FIXED | {"encoder.base_width": 4096})[0]


def test_a_depth_that_does_not_fit_may_be_forbidden_instead() -> None:
    axes = {"image_size": [16, 32], "encoder.depth": [4, 5]}
    with pytest.raises(UserError, match=r"where image_size = 16, encoder\.depth = 5"):
        _space(axes)
    space = _space(axes, [{"image_size": 16, "encoder.depth": 5}])
    assert space.size == 3
    assert all(space.architecture(assignment) in space for assignment in space.enumerate())
    with pytest.raises(UserError, match="image_size is an axis"):
        _ = space.image_size


@pytest.mark.parametrize(
    ("forbid", "expected"),
    [
        ([{"encoder.layrs": 1}], "forbid.0.encoder.layrs: no such axis (did you mean"),
        ([{"encoder.layers": 7}], "forbid.0.encoder.layers: 7 is not a choice of encoder.layers"),
        ([{}], "forbid.0: names no axis"),
        ([3], "forbid.0: expected a mapping, got 3"),
        (3, "forbid: expected a list of rules, got 3"),
        ([{"encoder.layers": [1, 2]}], "forbid: the rules refuse every combination"),
    ],
)
def test_a_fault_in_the_rules_is_named(forbid: Any, expected: str) -> None:
    (line,) = _faults(forbid=forbid)
    assert line.startswith(f"s.yaml: {expected}")


def test_every_fault_is_named_at_once() -> None:
    fixed = {path: value for path, value in FIXED.items() if path != "image_size"}
    lines = _axes_faults(
        {"encoder.blok": ["plain"], "encoder.convolution": ["standrad"], "latent_size": []},
        fixed={**fixed, "activation": "rely"},
        forbid=[{"decoder.block": "dense"}],
        descripton="typo",
    )
    keys = [line.split(": ")[1] for line in lines]
    assert keys == [
        "descripton",
        "fixed.activation",
        "axes.encoder.blok",
        "axes.encoder.convolution",
        "axes.latent_size",
        "image_size",
        "forbid.0.decoder.block",
    ]


def test_a_choice_given_as_a_numpy_number_becomes_a_plain_one() -> None:
    space = _space({"latent_size": [4, 8]})
    value: Scalar = np.int64(8)  # type: ignore[assignment]
    assert type(space.architecture({"latent_size": value}).latent_size) is int


# Numbering and drawing


def test_assignments_are_numbered_from_zero_to_below_the_size() -> None:
    space = SearchSpace(SMALL)
    enumeration = Enumeration(space.axes, space.forbid)
    assert [enumeration.nth(index) for index in range(enumeration.size)] == list(space.enumerate())
    assert enumeration.nth(0) == {"latent_size": 4, "encoder.block": "plain", "encoder.layers": 1}
    for index in (-1, enumeration.size):
        with pytest.raises(IndexError, match=f"assignment {index} of 10"):
            enumeration.nth(index)


def test_numbers_below_a_bound_come_from_the_leading_bits_of_whole_bytes() -> None:
    first, second, third = np.random.default_rng(0).bytes(3)
    assert _below(np.random.default_rng(0), 1) == 0
    assert _below(np.random.default_rng(0), 256) == first
    assert _below(np.random.default_rng(0), 8) == first >> 5
    assert _below(np.random.default_rng(0), 2**24) == (first << 16) + (second << 8) + third
    rng = np.random.default_rng(0)
    assert {_below(rng, 5) for _ in range(200)} == {0, 1, 2, 3, 4}
    rng = np.random.default_rng(0)
    drawn = [_below(rng, 2**70 - 1) for _ in range(50)]
    assert 2**68 < max(drawn) < 2**70 - 1
    assert min(drawn) < 2**68


def test_what_depends_on_one_another_is_counted_together() -> None:
    # Ten conditions, each on an axis declared ten places before: in declared order there would be
    # 2^10 combinations to remember at once.
    parents = {f"parent{i}": Axis((0, 1)) for i in range(10)}
    children = {f"child{i}": Axis((0, 1), {f"parent{i}": (1,)}) for i in range(10)}
    enumeration = Enumeration(parents | children, [])
    assert enumeration.size == 3**10
    assert len(enumeration._counts) < 50
    ruled = Enumeration(
        {name: Axis((0, 1)) for name in parents | children},
        [{f"parent{i}": (1,), f"child{i}": (1,)} for i in range(10)],
    )
    assert ruled.size == 3**10
    assert len(ruled._counts) < 50


# The space itself


def test_a_space_equals_spaces_of_the_same_description_only() -> None:
    space, same = SearchSpace(SMALL), SearchSpace(SMALL)
    assert space == same
    assert len({space, same}) == 1
    assert space != SearchSpace({**SMALL, "name": "other"})
    assert space != "small"
    assert repr(space) == "SearchSpace('small', 4 axes, 10 assignments)"


def test_digests_of_named_spaces_stay_what_studies_have_stored() -> None:
    assert {name: SearchSpace.load(name).digest for name in ("tiny", "paper")} == {
        "tiny": "0bbd7cedb7cd",
        "paper": "11288fa4c7e5",
    }


def test_a_space_keeps_its_name_unless_the_image_size_changes() -> None:
    paper = SearchSpace.load("paper")
    assert paper.with_fixed(image_size=144).name == "paper"
    assert paper.with_fixed(latent_size=128).name == "paper"
    small = paper.with_fixed(image_size=64, latent_size=128)
    assert (small.name, small.fixed["latent_size"]) == ("paper@64", 128)
    assert small.with_fixed(image_size=96).name == "paper@96"


def test_a_study_needs_one_image_size() -> None:
    space = _space({"image_size": [16, 32], "latent_size": [4, 8]})
    with pytest.raises(UserError, match="made: image_size is an axis; fix it"):
        _ = space.image_size
    assert space.with_fixed(image_size=32).image_size == 32


def test_steps_from_what_is_not_valid_are_refused() -> None:
    space, rng = SearchSpace(SMALL), np.random.default_rng(0)
    broken = {"latent_size": 4}
    refused = pytest.raises(UserError, match=r"small: encoder\.block: missing")
    for step in (
        lambda: space.mutate(broken, rng),
        lambda: space.architecture(broken),
    ):
        with refused:
            step()


def test_there_is_no_way_on_from_an_only_assignment() -> None:
    space = _space({"latent_size": [4]})
    with pytest.raises(UserError, match="made: the space has one assignment"):
        space.mutate({"latent_size": 4}, np.random.default_rng(0))


def test_spaces_are_counted_by_building_up_to_the_limit() -> None:
    space = SearchSpace(SMALL)
    assert space.distinct(limit=10) == 10
    assert space.distinct(limit=9) is None
