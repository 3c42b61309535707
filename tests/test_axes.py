"""A configuration space of a single axis."""

from search_spaces.axes import Axis
from search_spaces.configurations import ConfigurationSpace


def test_a_wrong_choice_is_a_problem_where_it_is_the_only_one() -> None:
    """One wrong value among one axis must not be counted like one right value."""
    space = ConfigurationSpace("widths", {"width": Axis((8, 16, 32))})
    assert space.problem({"width": 16}) is None
    expected = "width: 12 is not one of 8, 16, 32 (did you mean '32'?)"
    assert space.problem({"width": 12}) == expected
