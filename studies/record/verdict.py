"""The verdict of a study's limits on a trial, derived from the trial's recorded costs.

Limits may change whenever a study is resumed. Therefore the storage has how an evaluation ended,
and its costs, but no verdict: every reader gets it from `judged`, by the limits of the last run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nas.findings import Findings
from search_spaces.numbers import at_least, at_most
from studies.record.trial import TrialRecord

Limits = Mapping[str, float]
"""The largest permitted value of each limited objective, by name."""


def judged(trial: TrialRecord, limits: Limits) -> TrialRecord:
    """Return a stored trial with the state that follows from the limits.

    A trial that has ended is `rejected` if a recorded cost is over its limit, also if it was
    trained. A trial that another limit rejected earlier is `open` if none is: its architecture may
    be evaluated. References and running trials are returned unchanged.
    """
    if trial.reference or trial.state == "running":
        return trial
    if reason := missed(limits, trial.findings):
        return replace(trial, state="rejected", reason=reason, ended=trial.ended or trial.state)
    if trial.state == "rejected":
        reason = f"rejected by an earlier limit ({trial.reason or 'no reason recorded'})"
        return replace(trial, state="open", reason=reason, ended="rejected")
    return trial


def in_words(limits: Limits) -> str:
    """Return the limits as text, such as `params <= 2e+06, latency_ms <= 20`."""
    return ", ".join(f"{name} <= {at_most(limit)}" for name, limit in limits.items()) or "none"


def missed(limits: Limits, findings: Findings) -> str | None:
    """Return the reason for rejecting a candidate; None if it violates no limit."""
    known = findings.objectives
    for name, excess in violations(limits, findings).items():
        if excess <= 0:
            continue
        limit = f"over the limit {at_most(limits[name])}"
        if name in known:
            return f"{name} {at_least(known[name])} is {limit}"
        least = findings.metrics["latency_ms_at_least"]
        return f"{name} is predicted to be at least {at_least(least)}, {limit}"
    return None


def violations(limits: Limits, findings: Findings) -> dict[str, float]:
    """Return value / limit - 1 for each limit whose value is known; above 0 it is violated.

    A latency that was not measured counts with its predicted lower bound, if that is over the
    limit: a lower bound within it does not tell whether the latency is.
    """
    known = findings.objectives
    found = {name: known[name] / limit - 1 for name, limit in limits.items() if name in known}
    least = findings.metrics.get("latency_ms_at_least")
    if least and "latency_ms" in limits and "latency_ms" not in known:
        excess = least / limits["latency_ms"] - 1
        found |= {"latency_ms": excess} if excess > 0 else {}
    return {name: found[name] for name in limits if name in found}
