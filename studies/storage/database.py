"""Optuna's tables in PostgreSQL or SQLite, faster for trials with many parameters.

Optuna looks up the distribution of each new parameter among all earlier trials, one query after
another, and decodes all distributions of a trial at each read. Neither is needed here: a study has
one space, which is compared once (`studies.store.agreement`), and records are made from the
attributes of a trial. Parameters are still written, for Optuna's own tools.

The overridden methods are private to Optuna, whose version `constraints.txt` pins:
`tests/test_postgres` compares what they write and read with Optuna's own storage.
"""

from __future__ import annotations

import json
from collections.abc import Container
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import or_
from sqlalchemy.orm import Session, selectinload


class Database(RDBStorage):
    """A database storage that reads trials without parameters and writes parameters unchecked."""

    def _set_trial_param_without_commit(
        self,
        session: Session,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        session.add(
            models.TrialParamModel(
                trial_id=trial_id,
                param_name=param_name,
                param_value=param_value_internal,
                distribution_json=_written(distribution),
            )
        )

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        trial = models.TrialModel
        parts = (trial.values, trial.user_attributes, trial.system_attributes)
        older = [number for number in included_trial_ids if number <= trial_id_greater_than]
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session)
            found = (
                session.query(trial)
                .options(*(selectinload(part) for part in (*parts, trial.intermediate_values)))
                .filter(trial.study_id == study_id)
                .filter(or_(trial.trial_id > trial_id_greater_than, trial.trial_id.in_(older)))
                .order_by(trial.trial_id)
            )
            return [
                self._build_frozen_trial_from_trial_model(one)
                for one in found
                if states is None or one.state in states
            ]

    def _build_frozen_trial_from_trial_model(self, trial: Any) -> FrozenTrial:
        values = {value.objective: value for value in trial.values}
        restored = models.TrialValueModel.stored_repr_to_value
        return FrozenTrial(
            number=trial.number,
            trial_id=trial.trial_id,
            state=trial.state,
            value=None,
            values=[restored(values[i].value, values[i].value_type) for i in sorted(values)]
            or None,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params={},
            distributions={},
            user_attrs={one.key: _decoded(one.value_json) for one in trial.user_attributes},
            system_attrs={one.key: _decoded(one.value_json) for one in trial.system_attributes},
            intermediate_values={},  # this package reports none
        )


class NoJson:
    """The value of an attribute whose text is not JSON; no validation accepts it."""

    def __repr__(self) -> str:
        return "no JSON"


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return NoJson()


@lru_cache(10_000)
def _written(distribution: BaseDistribution) -> str:
    return str(distribution_to_json(distribution))
