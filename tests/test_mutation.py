"""The mutants that the mutation test makes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.mutation.operators import mutants
from benchmarks.mutation.rules import CHANGES, Change

ROOT = Path(__file__).parents[1]


def told(source: str) -> set[str]:
    return {mutant.mutation for mutant in mutants(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"a < b -> (a <= b)", "a < b -> (a >= b)", "a < b -> pass"}),
        ("x = a and b", {"a and b -> (a or b)", "a and b -> b", "a and b -> a"}),
        ("x = a + b", {"a + b -> (a - b)"}),
        ("x = f'{a + b}' + 'Some text'", set()),
        ("x = not a", {"not a -> a"}),
        ("x = b if a else c", {"b if a else c -> b", "b if a else c -> c"}),
        ("x = 1, 0.5, 0.0, True", {"1 -> 2", "0.5 -> 1.0", "0.0 -> 1.0", "True -> False"}),
        ("x = max(a)", {"max -> min"}),
        ("x = a.any()", {"a.any -> a.all"}),
        ("x = a[b:c]", {"a[b:c] -> a[:c]", "a[b:c] -> a[b:]"}),
        ("x = [a for a in b if c]", {"[a for a in b if c] -> ([a for a in b])"}),
        ("x = 'word'", {"'word' -> 'word_x'"}),
        ("x = 'Two words'", set()),
        ("self.x = a", {"self.x = a -> pass"}),
        ("def f(a: Literal[1] = 2): ...", {"2 -> 3"}),
        ("def f():\n    '''Text.'''\n    return a", {"return a -> return None"}),
        ("for a in b:\n    if c:\n        continue", {"if c: continue -> pass"}),
    ],
)
def test_a_source_has_these_faults(source: str, expected: set[str]) -> None:
    assert told(source) == expected


def test_a_fault_is_the_whole_module_with_one_place_changed() -> None:
    source = "# é comment stays\nclass A:\n    def f(self, é):\n        return é < 2\n"
    boundary = next(m for m in mutants(source) if m.mutation == "é < 2 -> (é <= 2)")
    assert (boundary.function, boundary.line) == ("A.f", 4)
    assert boundary.source == source.replace("é < 2", "(é <= 2)")


def test_equal_faults_of_one_function_are_numbered() -> None:
    source = "def f():\n    a = 1\n    b = 1\n"
    assert [m.mutation for m in mutants(source)] == ["1 -> 2", "1 -> 2 (number 2)"]
    assert [ast.unparse(ast.parse(m.source)) for m in mutants(source)] == [
        "def f():\n    a = 2\n    b = 1",
        "def f():\n    a = 1\n    b = 2",
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.rule)
def test_what_a_change_by_hand_replaces_stands_once_in_its_module(change: Change) -> None:
    source = (ROOT / change.module).read_text()
    assert source.count(change.old) == 1
    ast.parse(source.replace(change.old, change.new))
