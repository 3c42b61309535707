"""Where a study lives: an Optuna storage for the record, a folder for what does not fit in it.

Everything a table or figure needs can be rebuilt from the two. One process at a time writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.artefacts import write_whole
from nas.objectives import select_objectives
from nas.search.samplers import quiet_optuna
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, nearest
from search_spaces.space import SearchSpace
from search_spaces.yaml_file import read_yaml
from studies.records import NAME, NAME_RULE, FinalLatency, State, StudyRecord, TrialRecord
from studies.storage import absolute, masked, mend_journal, open_storage, portable

if TYPE_CHECKING:  # reading a study needs no torch, which these import
    from nas.evaluate import Findings
    from studies.config import StudyConfig

FORMAT = 1
"""Version of what is written to trial and study attributes."""

HEAD = "study.yaml"
"""The file in a study's folder that says where its storage is, and repeats its configuration."""

PLACE = (
    "device",
    "device_name",
    "torch_version",
    "allocator",
    "mkldnn",
    "tf32",
    "latency_predictor",
)
"""Facts of the environment that must not change either where latency is measured."""

IDENTITY = ("space", "data", "objectives", "training", "latency")
"""What must not change between two runs of one study: values would no longer be comparable."""


class StudyStore:
    """One study, open for reading and, inside `writing()`, for running.

    Args:
        folder: Holds the journal (by default), `study.yaml`, artefacts and the report.
        storage: An Optuna URL, `journal:PATH`, or None for the journal in the folder.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder = folder
        self.address = self._address(storage)
        self._study: optuna.Study | None = None

    @property
    def study(self) -> optuna.Study:
        """The Optuna study underneath; raises `UserError` if there is none yet."""
        if self._study is None:
            self._study = _load(self.address, self.folder.name)
        return self._study

    @classmethod
    def open(cls, root: Path, name: str) -> StudyStore:
        """Open an existing study for reading; raise `UserError` naming the nearest one.

        Only a study's name names one, never a path.
        """
        if not re.fullmatch(NAME, name):
            raise UserError(f"{name[:80]!r} cannot name a study: {NAME_RULE}")
        if not (root / name / HEAD).is_file():
            names = list_studies(root)
            have = f"there are {', '.join(names)}" if names else "there are none yet"
            raise UserError(f"no study {name!r} in {root}: {have}{nearest(name, names)}")
        return cls(root / name)

    def _address(self, storage: str | None) -> str:
        """Return where the study is or shall be; an existing one stays where it is."""
        head = self.folder / HEAD
        if not head.is_file():
            return absolute(storage, self.folder)
        written = read_yaml(head)
        if not isinstance(written, dict) or not isinstance(written.get("storage"), str):
            raise UserError(
                f"{head}: damaged (it names no storage); restore it or remove {head.parent}"
            )
        known = absolute(written["storage"], self.folder)
        if storage is not None and absolute(storage, self.folder) != known:
            raise UserError(
                f"--storage {masked(storage)}: study {self.folder.name!r} is recorded in "
                f"{masked(known)}; leave the option out, or give this one another --name"
            )
        return known

    @property
    def anchor_ms(self) -> float | None:
        """Latency of `original` that the study's latencies are told in; None if not measured."""
        try:
            environment = self.study.user_attrs.get("environment", {})
        except UserError:  # there is no study yet
            return None
        return environment.get("original_latency_ms")  # type: ignore[no-any-return]

    def create(
        self,
        config: StudyConfig,
        space: SearchSpace,
        environment: Mapping[str, Any],
        mix: bool = False,
    ) -> None:
        """Create the study, or check that the existing one asks the same question.

        `mix` accepts that latencies were measured in another environment, and records it.

        Raises:
            UserError: the stored study differs in what must agree.
        """
        self.artefacts.mkdir(parents=True, exist_ok=True)
        storage = open_storage(self.address)
        with quiet_optuna():
            self._study = optuna.create_study(
                study_name=config.name,
                storage=storage,
                directions=["minimize"] * len(config.objectives),
                load_if_exists=True,
            )
        self._check_identity(config, space, environment)
        mixed = self._check_place(config, environment, mix)
        self._write_head(config, space, {**environment, **({"mixed": mixed} if mixed else {})})

    def require_alike(self, config: StudyConfig, space: SearchSpace, data: str | None) -> None:
        """Check that another study may learn from this one.

        Raises:
            UserError: it has another space, data or objectives; what differs is named.
        """
        stored = self.study.user_attrs
        differing = [
            name
            for name, differs in {
                "space": stored["space_digest"] != space.digest,
                "data": stored["environment"]["data_fingerprint"] != data,
                "objectives": stored["config"]["objectives"] != list(config.objectives),
            }.items()
            if differs
        ]
        if differing:
            raise UserError(
                f"search.warm_start: study {self.folder.name!r} has other {', '.join(differing)}; "
                "name one of the same space, data and objectives"
            )

    @property
    def artefacts(self) -> Path:
        """Folder of weights, checkpoints and reconstructions, one per architecture digest."""
        return self.folder / "artefacts"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the study for one process; raise `UserError` if another one has it.

        The kernel releases the lock when its holder dies.
        """
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --root"
            ) from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise UserError(
                    f"study {self.folder.name!r} is being run by process {handle.read().strip()}; "
                    "wait for it, stop it, or give this run another --name"
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            mend_journal(self.address)
            yield

    def begin(
        self,
        architecture: Architecture,
        assignment: Mapping[str, Any] | None,
        space: SearchSpace,
        reference: str | None = None,
        repeats: int = 0,
    ) -> int:
        """Record that an architecture is being evaluated; return its trial number."""
        params = space.to_optuna(dict(assignment)) if assignment else {}
        distributions = space.distributions(dict(assignment)) if assignment else {}
        with quiet_optuna():
            self.study.sampler = PartialFixedSampler(params, RandomSampler())
            trial = self.study.ask(fixed_distributions=distributions)
        trial.set_user_attr(
            "candidate",
            {
                "digest": architecture.digest,
                "architecture": architecture.to_dict(),
                "assignment": dict(assignment or {}),
                "reference": reference,
                "repeats": repeats,
            },
        )
        return trial.number

    def finish(
        self,
        number: int,
        state: State,
        findings: Findings,
        reason: str | None = None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Record how a trial ended. What the trial found is written before its state."""
        trial = self._trial(number)
        trial.set_user_attr("findings", asdict(findings))
        trial.set_user_attr("reason", reason)
        for key, violation in (violations or {}).items():
            trial.set_constraint(key, violation)
        names = self.study.user_attrs["config"]["objectives"]
        with quiet_optuna():
            if state == "complete":
                self.study.tell(number, [findings.objectives[name] for name in names])
            else:
                trial.set_user_attr("stopped", state == "stopped")
                told = TrialState.FAIL if state == "failed" else TrialState.PRUNED
                self.study.tell(number, state=told)

    def keep(self, number: int, findings: Findings, stopped: bool = False) -> None:
        """Record what is known of a trial that is not over; it may be `stopped` for the time."""
        trial = self._trial(number)
        trial.set_user_attr("findings", asdict(findings))
        trial.set_user_attr("stopped", stopped)

    def record(self) -> StudyRecord:
        """Read the whole study."""
        attributes = self.study.user_attrs
        if attributes.get("format") != FORMAT:
            raise UserError(
                f"{masked(self.address)}: study {self.study.study_name!r} was not made by nas"
            )
        final = self.final_latency()
        return StudyRecord(
            name=self.study.study_name,
            objectives=select_objectives(attributes["config"]["objectives"]),
            trials=tuple(
                self._told_last(_record(trial), final)
                for trial in self._trials()
                if "candidate" in trial.user_attrs
            ),
            config=attributes["config"],
            environment=attributes["environment"],
            folder=self.folder,
            space_size=attributes["space_size"],
            measured_together=bool(final),
            mixed=tuple(attributes["environment"].get("mixed", ())),
        )

    def trial(self, number: int) -> TrialRecord:
        """Read one trial."""
        return self._told_last(_record(self._trials()[number]), self.final_latency())

    def final_latency(self) -> dict[str, FinalLatency]:
        """Return what the last measurement of front and references found, by digest."""
        stored = self.study.user_attrs.get("final_latency", {})
        return {
            digest: FinalLatency(
                over={name: (m, low, high) for name, (m, low, high) in one["over"].items()},
                contended=one["contended"],
            )
            for digest, one in stored.items()
        }

    def set_final_latency(self, found: Mapping[str, FinalLatency]) -> None:
        """Record what the last measurement of front and references found, by digest."""
        self.study.set_user_attr("final_latency", {k: asdict(one) for k, one in found.items()})

    def mark_mixed(self, differing: Sequence[str]) -> None:
        """Record that latencies were measured in an environment that differs so."""
        environment = self.study.user_attrs["environment"]
        mixed = list(dict.fromkeys([*environment.get("mixed", ()), *differing]))
        if mixed != environment.get("mixed"):
            self.study.set_user_attr("environment", {**environment, "mixed": mixed})

    def _told_last(self, trial: TrialRecord, final: Mapping[str, FinalLatency]) -> TrialRecord:
        anchor_ms = self.anchor_ms
        if trial.state != "complete" or trial.digest not in final or anchor_ms is None:
            return trial
        return trial.with_latency(final[trial.digest], anchor_ms)

    def count_start(self, number: int) -> int:
        """Count a start of a trial's evaluation; return how many there were without progress."""
        trial = self._trial(number)
        starts = int(trial.user_attrs.get("starts", 0)) + 1
        trial.set_user_attr("starts", starts)
        return starts

    def note_progress(self, number: int, epochs: int) -> bool:
        """Forget the starts so far if this one got further than any before; return whether."""
        further = epochs > int(self._trial(number).user_attrs.get("epochs", 0))
        if further:
            self._trial(number).set_user_attr("epochs", epochs)
            self.forget_starts(number)
        return further

    def forget_starts(self, number: int) -> None:
        """Forget the starts so far: nothing speaks against the candidate."""
        trial = self._trial(number)
        if trial.user_attrs.get("starts"):
            trial.set_user_attr("starts", 0)

    def unfinished(self) -> list[TrialRecord]:
        """Return the trials a killed run left behind; those killed before a start are failed."""
        left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        for trial in left:
            if "candidate" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return [_record(trial) for trial in left if "candidate" in trial.user_attrs]

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> Trial:
        # The public way back to a trial that an earlier process began.
        return Trial(self.study, self._trials()[number]._trial_id)

    def _check_identity(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        stored = self.study.user_attrs.get("config")
        if "format" not in self.study.user_attrs:
            if self._trials():
                raise UserError(
                    f"{masked(self.address)}: a study {config.name!r} that nas did not make is "
                    "there already; choose another --name or --storage"
                )
            return
        current = config.to_dict()
        differing = [key for key in IDENTITY if current[key] != stored[key]]
        if self.study.user_attrs["space_digest"] != space.digest and "space" not in differing:
            differing.insert(0, "space")
        before = self.study.user_attrs["environment"]
        if not differing and before["data_fingerprint"] != environment["data_fingerprint"]:
            differing = ["data"]
        if differing:
            parts = "; ".join(_difference(key, stored[key], current[key]) for key in differing)
            raise UserError(
                f"study {config.name!r} exists with other settings ({parts}): "
                "give this one another --name, or remove the folder "
                f"{self.folder} to start again"
            )

    def _check_place(
        self, config: StudyConfig, environment: Mapping[str, Any], mix: bool
    ) -> list[str]:
        """Return in what the environments differ that this study's latencies were measured in."""
        before = self.study.user_attrs.get("environment", environment)
        mixed = list(before.get("mixed", []))
        parts = differing_places(before, environment)
        if not parts or not config.timed:
            return mixed
        if not mix:
            raise UserError(
                f"study {config.name!r} was measured elsewhere ({'; '.join(parts)}): latencies "
                "would not compare; run it there, give this one another --name, or mix them all "
                "the same with --mix-environments"
            )
        return mixed + [part for part in parts if part not in mixed]

    def _write_head(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        head = {
            "config": config.to_dict(),
            "space": space.to_dict(),
            "space_digest": space.digest,
            "space_size": space.size if space.size < 2**53 else float(space.size),
            "environment": dict(environment),
            "format": FORMAT,  # last: a study that was killed before this was not created
        }
        for key, value in head.items():
            if self.study.user_attrs.get(key) != value:
                self.study.set_user_attr(key, value)
        with quiet_optuna():
            self.study.set_metric_names(list(config.objectives))
        written = {"storage": portable(self.address, self.folder), "config": config.to_dict()}
        text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
        write_whole(self.folder / HEAD, text.encode())


def differing_places(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in what two environments differ that must agree where latency is measured."""
    return [
        _difference(key, before.get(key), now.get(key))
        for key in PLACE
        if before.get(key) != now.get(key)
    ]


def list_studies(root: Path) -> list[str]:
    """Return the names of the studies in `root`, sorted."""
    return sorted(path.parent.name for path in root.glob(f"*/{HEAD}"))


def _load(address: str, name: str) -> optuna.Study:
    try:
        with quiet_optuna():
            storage = open_storage(address, reading=True)
            return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise UserError(f"{masked(address)}: holds no study {name!r}") from None


def _record(trial: FrozenTrial) -> TrialRecord:
    candidate, found = trial.user_attrs["candidate"], trial.user_attrs.get("findings", {})
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "rejected",
        TrialState.FAIL: "failed",
    }
    state = states.get(trial.state, "running")
    if trial.user_attrs.get("stopped") and state in ("running", "rejected"):
        state = "stopped"
    return TrialRecord(
        number=trial.number,
        state=state,
        digest=candidate["digest"],
        architecture=Architecture.model_validate(candidate["architecture"]),
        assignment=candidate["assignment"],
        reference=candidate["reference"],
        repeats=candidate["repeats"],
        reason=trial.user_attrs.get("reason"),
        objectives=found.get("objectives", {}),
        metrics=found.get("metrics", {}),
        intervals={name: (low, high) for name, (low, high) in found.get("intervals", {}).items()},
        contended=found.get("contended", False),
        history=found.get("history", ()),
        timings_s=found.get("timings_s", {}),
    )


def _difference(key: str, stored: Any, current: Any) -> str:
    if isinstance(stored, dict) and isinstance(current, dict):
        inner = [
            _difference(f"{key}.{name}", stored.get(name), current.get(name))
            for name in sorted({*stored, *current})
            if stored.get(name) != current.get(name)
        ]
        if inner:
            return "; ".join(inner)
    if stored == current:
        return f"{key} is described as before but its content changed"
    return f"{key} was {json.dumps(stored)}, now {json.dumps(current)}"
