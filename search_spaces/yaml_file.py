"""Read YAML, and JSON as a part of it, with clear errors.

Only what JSON can hold is read: texts, numbers, true, false, null, lists and mappings. Dates, sets,
numbers to the base 60 and tags of other programs are not, and `1:30` or `2026-01-01` is a text.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from search_spaces.errors import UserError, quoted

MAX_BYTES = 10_000_000
"""Maximum size of a file. Descriptions of spaces and studies have a few thousand bytes."""

MAX_VALUES = 100_000
"""Maximum number of values in a text, after every alias is replaced by what it stands for."""

MAX_DEPTH = 50
"""Maximum number of lists and mappings inside one another."""

MAX_DIGITS = 300
"""Maximum number of digits of an integer; more than that is not a float either."""

_TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML or JSON file as plain types.

    Raises:
        UserError: the file cannot be read, is not YAML, or has a key twice.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the content of a regular file of UTF-8 text, without a byte-order mark.

    Raises:
        UserError: the file cannot be read, is a folder, a pipe or a device, is larger than
            `MAX_BYTES`, or holds no UTF-8 text.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may not end
            raise UserError(f"{path}: cannot be read (not a regular file)")
        if status.st_size > MAX_BYTES:
            raise UserError(
                f"{path}: cannot be read (larger than {MAX_BYTES // 10**6} MB, the maximum)"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read (not UTF-8 text)") from None


def parse_yaml(text: str, source: str) -> Any:
    """Return the content of a YAML text as plain types.

    Raises:
        UserError: the text is not YAML, or has a key twice; the message names `source`.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>",', " at")
        raise UserError(f"{source}: not valid JSON or YAML ({reason})") from None


class _Loader(yaml.SafeLoader):
    """Reads the types of JSON.

    It refuses a repeated key, of which YAML would silently keep the last value, aliases that stand
    for themselves or for a very large number of values, and deep nesting.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[Node, int] = {}
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if self._depth == MAX_DEPTH:
            raise ConstructorError(None, None, f"more than {MAX_DEPTH} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if node not in self._sizes:
            if isinstance(event, AliasEvent):  # its list or mapping has not ended yet
                raise ConstructorError(None, None, "an alias for what contains it", mark)
            self._sizes[node] = 1 + sum(self._sizes[inner] for inner in _inside(node))
        if self._sizes[node] > MAX_VALUES:
            raise ConstructorError(None, None, f"more than {MAX_VALUES:,} values", mark)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != f"{_TAG}merge" and str(key) in seen:
                raise ConstructorError(
                    None, None, f"the key {quoted(key)} is given twice", key_node.start_mark
                )
            seen.add(str(key))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _inside(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _add_scalar(
    name: str,
    first: Iterable[str],
    pattern: str,
    convert: Callable[[str], Any],
    *,
    tagged: str | None = None,
    wrong: str = "",
) -> None:
    """Let the loader read a type of scalars.

    Args:
        name: YAML's name of the type.
        first: The characters that such a scalar begins with.
        pattern: The form of a scalar that has this type without a tag.
        convert: Returns its value.
        tagged: The form that is allowed after a tag; None is `pattern`.
        wrong: What is said of a scalar of another form.
    """
    allowed = re.compile(tagged or pattern)

    def construct(loader: _Loader, node: ScalarNode) -> Any:
        text = loader.construct_scalar(node)
        if not allowed.fullmatch(text):
            raise ConstructorError(None, None, f"{quoted(text)} {wrong}", node.start_mark)
        return convert(text)

    if first:
        _Loader.add_implicit_resolver(f"{_TAG}{name}", re.compile(f"(?:{pattern})$"), list(first))
    _Loader.add_constructor(f"{_TAG}{name}", construct)


_SIGNS_DIGITS = "-+0123456789"
_TRUE = "yes|Yes|YES|true|True|TRUE|on|On|ON"
_FALSE = "no|No|NO|false|False|FALSE|off|Off|OFF"
_INTEGER = rf"[-+]?(?:0x[0-9a-fA-F]{{1,{MAX_DIGITS}}}|0|[1-9][0-9_]{{0,{MAX_DIGITS}}})"
_INFINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_FRACTION = rf"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?|{_INFINITE}"
_ANY_NUMBER = rf"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|{_INFINITE}"
# Texts may hold line feeds and tabs, but nothing that a terminal would execute, and no halves of
# characters, which no file can hold.
_TEXT = "[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]*"


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 16 if "x" in digits else 10)


def _fraction(text: str) -> float:
    return float(re.sub(r"\.(?=[iInN])", "", text.replace("_", "")))


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{_TAG}map": yaml.SafeLoader.construct_yaml_map,
    None: yaml.SafeLoader.construct_undefined,
}
_add_scalar("merge", "<", "<<", str)
_add_scalar(
    "null", ("~", "n", "N", ""), "~|null|Null|NULL|", lambda text: None, wrong="is not null"
)
_add_scalar(
    "bool", "yYnNtTfFoO", f"{_TRUE}|{_FALSE}", lambda text: text.lower() in _TRUE,
    wrong="is neither true nor false",
)  # fmt: skip
_add_scalar("int", _SIGNS_DIGITS, _INTEGER, _integer, wrong="is not an integer")
_add_scalar(
    "float", f"{_SIGNS_DIGITS}.", _FRACTION, _fraction,
    tagged=_ANY_NUMBER, wrong="is not a number",
)  # fmt: skip
_add_scalar("str", "", _TEXT, str, wrong="has a control character")
