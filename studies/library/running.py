"""Run a study by one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from nas.datasets.given import Data, as_config
from nas.objectives import DEFAULT_OBJECTIVES
from profiling.child_process import main_not_imported
from search_spaces.errors import UserError, nearest
from search_spaces.import_strings import import_string_of
from search_spaces.space import SearchSpace
from studies.config.loading import SHORTCUTS, overridden
from studies.config.study import StudyConfig
from studies.launch import run_study as launch
from studies.library.live import Where, displays
from studies.library.study import Study, default_root
from studies.run.interruption import Interruption
from studies.store.store import StudyStore


class Settings(TypedDict, total=False):
    """Keyword arguments of `run_study`: keys of the configuration, and options of the command."""

    trials: int
    epochs: int
    images: int
    loss: str | Callable[..., Any]
    recipe: str | Callable[..., Any]
    sampler: str
    seed: int
    early_stopping: bool | Mapping[str, Any]
    focus: str
    warm_start: str
    backend: str
    part: str
    target: str
    device: str
    workers: int
    threads: int
    trial_timeout: float | str
    trial_memory: int | str
    runner: str
    address: str
    description: str
    limits: Mapping[str, float]
    training: Mapping[str, Any]
    latency: Mapping[str, Any]
    setups: Mapping[str, Any]
    search: Mapping[str, Any]
    confirmation: Mapping[str, Any] | None
    ray: Mapping[str, Any]
    trial_timeout_s: float | str | None
    trial_memory_bytes: int | str | None


def run_study(
    space: str | Path | SearchSpace | Mapping[str, Any],
    data: Data = None,
    objectives: Sequence[str | Callable[..., Any]] = DEFAULT_OBJECTIVES,
    *,
    name: str | None = None,
    root: str | Path | None = None,
    storage: str | None = None,
    progress: Where = "auto",
    mix_environments: bool = False,
    **settings: Unpack[Settings],
) -> Study:
    """Run a study, or resume the one of this name; return it when it is finished.

    Args:
        space: Name or file of a search space, such as `wide@64`; its description; or the object.
        data: Images: an array, a tensor, a torch `Dataset`, the path of a folder, or keys of the
            section `data`. None renders faces.
        objectives: At least two objectives: names, import strings such as `mypkg.metrics:fid`, or
            functions of a module.
        name: The study's name, by default that of the space.
        root: Folder of all studies; by default `$NAS_STUDIES`, or `nas-studies`.
        storage: Address of a storage, as for `nas study run --storage`.
        progress: Where progress is shown: `terminal`, `notebook`, `none`, or `auto`.
        mix_environments: Whether to resume a study that was measured in another environment.
        settings: Keys of the configuration, such as `training={"epochs": 3}`, and the options of
            `nas study run`, such as `epochs=3`.

    Raises:
        UserError, ProfilingError: the study cannot run as configured.
        Interrupted: the user has interrupted it; the same call resumes it.
    """
    config = configuration(space, data, objectives, name, settings)
    place = Path(root or default_root())
    display, bar = displays(progress, config.search.trials, config.training.epochs)
    with main_not_imported(), Interruption() as interruption:
        _, gave_up = launch(
            config,
            place,
            storage=storage,
            mix=mix_environments,
            display=display,
            progress_bar=bar,
            interruption=interruption,
        )
    return Study(StudyStore.open(place, config.name), gave_up)


def configuration(
    space: str | Path | SearchSpace | Mapping[str, Any],
    data: Data,
    objectives: Sequence[str | Callable[..., Any]],
    name: str | None,
    settings: Settings,
) -> StudyConfig:
    """Return the configuration that the arguments of `run_study` describe.

    Raises:
        UserError: it is invalid; the message has one line per fault.
    """
    known = [*StudyConfig.model_fields, *SHORTCUTS, "early_stopping"]
    for key in settings:
        if key not in known:
            raise UserError(f"run_study: {key!r} is no argument{nearest(key, known)}")
    given: dict[str, Any] = {
        "space": _space(space),
        "name": name or _name(space),
        "data": as_config(data).model_dump(),
        "objectives": [import_string_of(one) for one in objectives],
    }
    overrides: dict[str, Any] = {}
    for key, value in settings.items():
        if key in SHORTCUTS:
            overrides[SHORTCUTS[key]] = import_string_of(value) if callable(value) else value
        elif key == "early_stopping":
            chosen = ({} if value else None) if isinstance(value, bool) else value
            overrides["search.early_stopping"] = chosen
        else:
            given[key] = dict(value) if isinstance(value, Mapping) else value
    return overridden(given, overrides, "run_study")


def _space(space: str | Path | SearchSpace | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """Return a space as a configuration holds it; the name if it is a named space."""
    if not isinstance(space, SearchSpace):
        return str(space) if isinstance(space, Path) else space
    try:
        if SearchSpace.load(space.name) == space:
            return space.name
    except UserError:
        pass
    return space.to_dict()


def _name(space: str | Path | SearchSpace | Mapping[str, Any]) -> str:
    """Return the default name of a study of this space."""
    found: object = "study"
    if isinstance(space, SearchSpace):
        found = space.name
    elif isinstance(space, Mapping):
        found = space.get("name", found)
    elif isinstance(space, str | Path):
        found = Path(space).stem
    return str(found).replace("@", "-")
