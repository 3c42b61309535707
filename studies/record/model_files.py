"""The files beside the weights of a model that is given to a user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from search_spaces.architecture import Architecture


def model_files(architecture: Architecture, result: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the contents of `architecture.json` and `result.json`, by their names.

    Args:
        architecture: The model's architecture.
        result: What it is, what it costs and how good it is, as plain JSON types.
    """
    return {
        "architecture.json": (architecture.to_json() + "\n").encode(),
        "result.json": (json.dumps(dict(result), indent=1) + "\n").encode(),
    }
