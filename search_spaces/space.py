"""Search spaces of architectures, declared in YAML or as a plain mapping.

    name: example
    fixed: {image_size: 64, encoder.depth: 3, decoder.depth: 3, decoder.seed_width: 64,
            decoder.base_width: 16}
    axes:
      encoder.block: [plain, dense]
      encoder.growth_rate: {choices: [8, 16, 32], when: {encoder.block: dense}}
      encoder.stages.*.width: [16, 32, 64]
    forbid:
      - {encoder.block: dense, encoder.stages.0.width: 64}

`search_spaces.paths` lists the paths. With `*` there is one axis (condition, rule) per stage. An
axis is active only where all axes in its `when` have one of the values named there; the axis of a
stage only where that stage exists. An assignment that matches a rule of `forbid` is not valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from search_spaces.architecture import Architecture
from search_spaces.axes import Assignment, Rule, Scalar, Value, matches
from search_spaces.configurations import ConfigurationSpace
from search_spaces.errors import UserError, nearest
from search_spaces.import_strings import is_import_string
from search_spaces.paths import build, describe, overriders, readings
from search_spaces.reader import parse
from search_spaces.sizes import Size, parse_size, size_in_words
from search_spaces.yaml_file import read_yaml

_HERE = Path(__file__).parent / "spaces"

SPACES: dict[str, Path] = {
    "tiny": _HERE / "tiny.yaml",
    "table": _HERE / "table.yaml",
    "quickstart": _HERE / "quickstart.yaml",
    "paper": _HERE / "paper.yaml",
    "wide": _HERE / "wide.yaml",
}
"""The named spaces and their files, from small to large."""


class SearchSpace(ConfigurationSpace):
    """A configuration space in which every valid assignment builds an architecture.

    Two assignments may build the same architecture if an axis without effect (a growth rate of
    plain blocks) is not conditional: `size` counts assignments, `distinct` counts architectures.

    Args:
        description: The content of a YAML file.
        source: Where it comes from, with which each line of an error begins.

    Attributes:
        name, description: For people; they do not change the digest.
        fixed: Path -> value that all members share.
        axes: Name -> axis in declared order, one per stage where `*` is used.
        forbid: Rules; an assignment that matches one of them is not valid.

    Raises:
        UserError: the description has faults; one line per fault.
    """

    def __init__(self, description: Mapping[str, Any], source: str = "search space") -> None:
        definition = parse(description, source)
        super().__init__(definition.name, definition.axes, definition.forbid)
        self.description: Final = definition.description
        self.fixed: Final[Mapping[str, Value]] = definition.fixed

    @property
    def image_size(self) -> Size:
        """Size of the images of every member, in pixels.

        Raises:
            UserError: it is an axis, so it is not the same for every member.
        """
        size = self.fixed.get("image_size")
        if not isinstance(size, int | tuple):
            raise UserError(
                f"{self.name}: image_size is an axis; fix it, because a study has one image size"
            )
        return size

    @property
    def image_channels(self) -> int:
        """Channels of the images of every member: 3 for colour, 1 for grey.

        Raises:
            UserError: it is an axis, or another number.
        """
        channels = self.fixed.get("image_channels", 3)
        if "image_channels" in self.axes or channels not in (1, 3):
            raise UserError(
                f"space {self.name!r}: image_channels must be fixed to 3 (colour) or 1 (grey), "
                "because images have either; leave it out for colour"
            )
        return int(channels)

    @cached_property
    def own_blocks(self) -> tuple[str, ...]:
        """The import strings of blocks of the user's own in this space, sorted."""
        named = [(path, value) for path, value in self.fixed.items()]
        named += [(path, one) for path, axis in self.axes.items() for one in axis.choices]
        blocks = {str(value) for path, value in named if path.endswith(".block")}
        return tuple(sorted(filter(is_import_string, blocks)))

    def fitted(self, architecture: Architecture) -> Architecture:
        """Return an architecture for images of this space's size and channels."""
        return architecture.resized(self.image_size, self.image_channels)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that are equal for equal axes, fixed values and rules."""
        identity = {k: v for k, v in self.to_dict().items() if k not in ("name", "description")}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {len(self.axes)} axes, {self.size:,} assignments)"

    # Reading and writing

    @classmethod
    def load(cls, name: str | Path) -> SearchSpace:
        """Return a named space (`paper`, `paper@64`, or `paper@96x64`), or read a YAML file.

        After `@` stands the side of the images in pixels, or height and width.

        Raises:
            UserError: there is no such space or file, or the file does not describe a space.
        """
        text = str(name)
        base, _, at = text.partition("@")
        if base in SPACES and (size := parse_size(at)) is not None:
            return cls(read_yaml(SPACES[base]), base).with_fixed(image_size=size)
        if text in SPACES:
            return cls(read_yaml(SPACES[text]), text)
        if not Path(text).exists():
            known = ", ".join(SPACES)
            raise UserError(
                f"search space {text!r}: neither a named space nor a file"
                f"{nearest(text, SPACES)}; named spaces: {known}"
            )
        return cls(read_yaml(Path(text)), text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "search space") -> SearchSpace:
        """Build a space from plain JSON types; the inverse of `to_dict`."""
        return cls(data, source)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain JSON types, with one axis per stage instead of `*`."""
        return {
            "name": self.name,
            "description": self.description,
            "fixed": {k: list(v) if isinstance(v, tuple) else v for k, v in self.fixed.items()},
            "axes": {
                name: {"choices": list(axis.choices), "when": _lists(axis.when)}
                for name, axis in self.axes.items()
            },
            "forbid": [_lists(rule) for rule in self.forbid],
        }

    def with_fixed(self, **values: Value) -> SearchSpace:
        """Return the space with these paths fixed; at another image size its name is `name@size`.

        Raises:
            UserError: a value is not valid, or a condition or rule names an axis that is now fixed.
        """
        data = self.to_dict()
        size = values.get("image_size")
        if isinstance(size, int | tuple) and size != self.fixed.get("image_size"):
            data["name"] = f"{self.name.partition('@')[0]}@{size_in_words(size)}"
        data["axes"] = {name: axis for name, axis in data["axes"].items() if name not in values}
        data["fixed"] |= values
        return SearchSpace(data, data["name"])

    # Assignments and architectures

    def architecture(self, assignment: Mapping[str, Scalar]) -> Architecture:
        """Return the architecture that `assignment` describes.

        Raises:
            UserError: the assignment is not valid; the message names the axis.
        """
        self.require(assignment)
        chosen = {
            name: choices[choices.index(value)]  # the declared int instead of an equal numpy value
            for name, value in assignment.items()
            for choices in [self.axes[name].choices]
        }
        values = {**self.fixed, **chosen}
        try:
            return build(values)
        except ValidationError:
            return Architecture.from_dict(describe(values), self.name)  # it names every fault

    def assignment(self, architecture: Architecture) -> Assignment | None:
        """Return the first assignment that builds `architecture`; None if it is not a member."""
        return next(self._explanations(architecture, tuple(self.axes), {}), None)

    def __contains__(self, architecture: Architecture) -> bool:
        return self.assignment(architecture) is not None

    def _explanations(
        self, architecture: Architecture, remaining: tuple[str, ...], known: Assignment
    ) -> Iterator[Assignment]:
        if not remaining:
            if self.problem(known) is None and self.architecture(known) == architecture:
                yield known
            return
        name, *rest = remaining
        if not matches(self.axes[name].when, known):
            yield from self._explanations(architecture, tuple(rest), known)
            return
        for choice in self._candidates(name, architecture):
            yield from self._explanations(architecture, tuple(rest), {**known, name: choice})

    def _candidates(self, name: str, architecture: Architecture) -> Sequence[Scalar]:
        """Return the choices of an axis that may build `architecture`; one if all of them do."""
        choices, places = self.axes[name].choices, readings(name, architecture)
        if places and not overriders(name, {*self.axes, *self.fixed}):
            return [choice for choice in choices if all(choice in place for place in places)]
        if name in self._consequential:
            return choices
        found = [choice for choice in choices if any(choice in place for place in places)]
        return found or choices[:1]

    @cached_property
    def _consequential(self) -> set[str]:
        """Axes whose choice affects which other axes are active or allowed."""
        rules = [*self.forbid, *(axis.when for axis in self.axes.values())]
        return {name for rule in rules for name in rule}

    # Counting

    def distinct(
        self, limit: int = 200_000, progress: Callable[[int, int], None] | None = None
    ) -> int | None:
        """Return the number of distinct architectures; None if `size` is above `limit`.

        Every assignment is built. `progress` is called with (done, total) after each.
        """
        if self.size > limit:
            return None
        digests = set()
        for done, assignment in enumerate(self.enumerate(), start=1):
            digests.add(self.architecture(assignment).digest)
            if progress:
                progress(done, self.size)
        return len(digests)


def _lists(rule: Rule) -> dict[str, list[Scalar]]:
    return {name: list(values) for name, values in rule.items()}
