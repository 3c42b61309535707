"""Networks of two encoder and two decoder stages, for every choice of every table."""

from __future__ import annotations

from typing import Any

from nas.blocks import BLOCKS
from nas.heads import HEADS
from nas.layers import ACTIVATIONS, CONVOLUTIONS, DOWNSAMPLING, OPERATORS, UPSAMPLING
from search_spaces.architecture import Architecture
from search_spaces.sizes import Size

TABLES: dict[str, dict[str, Any]] = {
    "block": BLOCKS,
    "convolution": CONVOLUTIONS,
    "downsampling": DOWNSAMPLING,
    "upsampling": UPSAMPLING,
    "head": HEADS,
    "operator": OPERATORS,
    "activation": ACTIVATIONS,
}
ENTRIES = [(field, value) for field, table in TABLES.items() for value in table]


def described(size: Size = 12, **choices: str) -> Architecture:
    """Return two stages each way, with these choices wherever they apply."""

    def pick(*fields: str) -> dict[str, str]:
        return {field: choices[field] for field in fields if field in choices}

    shared = {"layers": 2, "growth_rate": 3, **pick("block", "convolution")}
    down, up = {**shared, **pick("downsampling")}, {**shared, **pick("upsampling")}
    return Architecture.from_dict(
        {
            "image_size": size,
            "latent_size": 4,
            **pick("activation"),
            "encoder": {
                "stem_width": 4,
                "stages": [{**down, "width": 5}, {**down, "width": 6}],
                "head_width": 2,
                **pick("head"),
            },
            "decoder": {
                "seed_width": 6,
                "stages": [{**up, "width": 5}, {**up, "width": 4}],
                **pick("operator"),
            },
        }
    )
