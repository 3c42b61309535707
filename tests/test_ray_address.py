"""Addresses at which no Ray cluster answers are refused soon, in one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import ray

from search_spaces.errors import UserError
from studies.config.study import RayConfig
from studies.on_ray import cluster, local

pytestmark = pytest.mark.ray


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with closing(socket.create_server(("", 0))) as server:
        yield server.getsockname()[1]


def refused(address: str) -> str:
    with pytest.raises(UserError) as refusal:
        cluster._require_answer(address)
    text = str(refusal.value)
    assert text.startswith(f"--address {address}: the connection failed (")
    assert text.endswith("); start a cluster with: ray start --head")
    assert "\n" not in text
    return text


@pytest.mark.slow
def test_what_answers_nothing_is_refused_after_a_time_limit(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.ANSWER_S <= 20
    monkeypatch.setattr(cluster, "ANSWER_S", 4.0)
    assert "no cluster answered within 4 s" in refused(f"127.0.0.1:{silent}")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("nonsense", "Invalid address format: nonsense"),
        ("no.such.host.invalid:6379", "not known"),
    ],
)
def test_an_address_without_a_server_is_refused_with_the_reason(address: str, reason: str) -> None:
    assert reason in refused(address)


def test_a_local_ray_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("Cannot include dashboard with missing packages.\nMore")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    made = set(Path("/tmp").glob(f"nas-ray-{os.getpid()}-*"))
    with (
        pytest.raises(UserError) as refusal,
        local.started_here(RayConfig(dashboard=True)),
    ):
        pass
    assert str(refusal.value) == (
        "ray: no Ray started on this machine (Cannot include dashboard with missing packages.): "
        'install "ray[default]", or leave out ray.dashboard'
    )
    assert set(Path("/tmp").glob(f"nas-ray-{os.getpid()}-*")) == made


def test_the_token_of_a_local_ray_stays_in_this_process_and_its_children() -> None:
    assert len(local._token()) == 64
    assert local._token() == local._token()
