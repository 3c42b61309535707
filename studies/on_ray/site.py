"""Evaluate and measure on the nodes of a Ray cluster, not in the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.latency import Place, measure_together
from nas.setups import SetUp
from nas.timed_models import TimedImages
from profiling.paired import InterleavedLatencies
from search_spaces.architecture import Architecture
from studies.on_ray.cluster import Cluster, largest_memory_bytes, ray_session
from studies.record.records import StudyRecord

if TYPE_CHECKING:
    from studies.config.study import StudyConfig
    from studies.run.evaluators import ProgressBar
    from studies.run.site import PreparedStudy

_GB = 1_000_000_000


@contextmanager
def ray_site(config: StudyConfig, memory_bytes: int, bar: ProgressBar) -> Iterator[RaySite]:
    """Connect to the cluster of the configuration, or start one on this machine.

    Args:
        config: The study's configuration.
        memory_bytes: Estimated memory of one trial.
        bar: Makes a progress bar from a label.

    Raises:
        UserError: there is no such cluster, or no node of it has room for a trial.
    """
    with ExitStack() as afterwards, ExitStack() as session:
        with bar("starting Ray" if config.ray.address is None else "connecting to Ray"):
            session.enter_context(ray_session(config.ray))
            site = RaySite(Cluster(_need(config, memory_bytes)), afterwards)
        yield site


class RaySite:
    """The nodes of a Ray cluster: each trial runs in a worker on a node with enough resources.

    Args:
        cluster: The cluster.
        afterwards: Closed by the caller after the connection to Ray has ended.
    """

    def __init__(self, cluster: Cluster, afterwards: ExitStack) -> None:
        self._cluster, self._afterwards = cluster, afterwards

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a node, and return its result."""
        return self._cluster.call(function, *args)

    def together(
        self,
        architectures: Mapping[str, Architecture],
        base: str,
        latency: SetUp,
        where: Place,
        images: TimedImages | None,
        weights: Mapping[str, Path],
        progress: Callable[[int, int], None],
    ) -> InterleavedLatencies:
        """Call `nas.latency.measure_together` on a node; `progress` is not called.

        A node that cannot read the files of `weights` measures with initial weights.
        """
        measured: InterleavedLatencies = self.call(
            measure_together, dict(architectures), base, latency, where, images, dict(weights)
        )
        return measured

    def run(self, prepared: PreparedStudy) -> tuple[StudyRecord, str | None]:
        """Run the study; return its record, and the reason for giving up the search, or None."""
        from studies.on_ray.crew import TuneCrew
        from studies.on_ray.folder import TuneFolder
        from studies.on_ray.trial import RemoteMaker

        config, store = prepared.config, prepared.store
        folder = TuneFolder(_storage(config, str(store.folder.absolute())))
        self._afterwards.callback(folder.remove)  # ending workers may still write there
        crew = TuneCrew(
            RemoteMaker(prepared.make, prepared.environment, config.timed, prepared.mix),
            config.objectives,
            self._cluster,
            store.artefacts,
            folder,
            config.workers,
            store.mark_mixed,
            config.trial_limits,
        )
        with prepared.display:
            runner = prepared.runner(crew)
            return crew.run(runner, prepared.interruption), runner.gave_up


def _storage(config: StudyConfig, folder: str) -> str:
    path = config.ray.storage_path
    return folder if path is None else f"{path.rstrip('/')}/{config.name}"


def _need(config: StudyConfig, memory_bytes: int) -> dict[str, float]:
    """Return the resources of one trial, by Ray's name.

    An estimate of memory is capped at the largest node's, so that it alone cannot refuse a trial.
    """
    asked = config.ray
    need = {"CPU": asked.cpus_per_trial, "GPU": asked.gpus_per_trial}
    if asked.memory_gb_per_trial is not None:
        need["memory"] = asked.memory_gb_per_trial * _GB
    elif not asked.gpus_per_trial:
        need["memory"] = min(memory_bytes, largest_memory_bytes())
    return {name: amount for name, amount in need.items() if amount}
