"""Operations told from the architecture against what the built network launches."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
import torch

from nas.operations import Operation, operations
from nas.vae import build_vae
from profiling.complexity import Row, complexity
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace

COUNTED_AS = {
    "transposed": "convolution",
    "depthwise_transposed": "depthwise",
    "pointwise_transposed": "pointwise",
    "max_pool": "resampling",
    "average_pool": "resampling",
    "global_average": "resampling",
    "upsample": "resampling",
    "pixel_shuffle": "resampling",
    "reparameterise": "other",
}
"""The kinds that `profiling.complexity` does not tell apart."""


def drawn(space: SearchSpace, count: int, seed: int = 0) -> Iterator[Architecture]:
    """Architectures drawn axis by axis, so that depths and kinds are equally frequent."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    while count:
        assignment = space.suggest(study.ask())
        if space.problem(assignment) is None:
            yield space.architecture(assignment)
            count -= 1


def counted(architecture: Architecture, batch: int = 1) -> list[Row]:
    size = architecture.image_size
    with torch.device("meta"):
        model = build_vae(architecture)
        image = torch.empty(batch, architecture.image_channels, size, size)
    return [row for row in complexity(model, image).rows if row.launches]


def told(operation: Operation, batch: int) -> tuple[object, ...]:
    """What the counter says of a row, from the operation."""
    flat = operation.size_in == operation.size_out == 1 and operation.kind in FLAT
    square = [operation.size_out] * 2
    shape = (batch, operation.channels_out, *([] if flat else square))
    return (
        COUNTED_AS.get(operation.kind, operation.kind),
        shape,
        operation.params,
        operation.macs * batch,
        operation.bytes_moved(batch),
        operation.launches,
    )


FLAT = ("linear", "reparameterise")


def seen(row: Row) -> tuple[object, ...]:
    return (row.kind, row.output_shape, row.params, row.macs, row.bytes_moved, row.launches)


def agree(architecture: Architecture, batch: int = 1) -> None:
    rows = counted(architecture, batch)
    found = operations(architecture)
    assert len(found) == len(rows)
    for operation, row in zip(found, rows, strict=True):
        expected = told(operation, batch)
        if operation.kind == "activation" and len(row.output_shape) == 2:  # the seed's
            expected = (expected[0], row.output_shape, *expected[2:])
            assert row.output_shape[1] == operation.channels_out
        assert expected == seen(row), f"{row.path}: {operation}"


@pytest.mark.parametrize("name", REFERENCES)
def test_references_agree_with_the_counter(name: str) -> None:
    agree(REFERENCES[name])
    agree(REFERENCES[name].resized(30), batch=3)


def test_random(record_property) -> None:
    for name, n in {"wide": 120, "paper": 50, "quickstart": 40}.items():
        for a in drawn(SearchSpace.load(name), n):
            agree(a)
