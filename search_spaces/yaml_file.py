"""Read YAML, and JSON as a part of it, with clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import UserError


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML or JSON file as plain types.

    Raises:
        UserError: the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
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
        raise UserError(
            f"{source}: not valid JSON or YAML ({' '.join(str(error).split())})"
        ) from None


class _Loader(yaml.SafeLoader):
    """Refuses a repeated key, of which YAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != "tag:yaml.org,2002:merge" and str(key) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(str(key))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
