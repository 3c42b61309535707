"""Load a trained model by its file, its folder or its study's trial."""

from __future__ import annotations

from pathlib import Path

import nas.model
from nas.model import Model
from studies.library.study import default_root
from studies.store.finding import artefacts_of


def load_model(source: str | Path, root: str | Path | None = None) -> Model:
    """Return a trained model.

    Args:
        source: A `.safetensors` file, a folder that holds `weights.safetensors` (such as
            `nas study best` writes), or a trial as `STUDY#TRIAL`.
        root: Folder of all studies; by default `$NAS_STUDIES`, or `nas-studies`.

    Raises:
        UserError: there is no such file or trial, or the weights are damaged.
    """
    if isinstance(source, str) and "#" in source and not Path(source).exists():
        return nas.model.load_model(artefacts_of(source, Path(root or default_root())))
    return nas.model.load_model(source)
