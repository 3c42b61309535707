"""The paper's two models as architectures, with the figures that the paper reports.

Source: "Face Reconstruction with DenseNet-Enhanced Variational Autoencoders" (Singhal, Prasad,
Khatod; IIT Jodhpur) and the notebook its authors published with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.architecture import (
    Architecture,
    Decoder,
    DecoderStage,
    Encoder,
    EncoderStage,
)

ORIGINAL = Architecture(
    image_size=144,
    encoder=Encoder(stages=tuple(EncoderStage(width=width) for width in (32, 64, 128, 256))),
    decoder=Decoder(
        seed_width=256,
        stages=tuple(DecoderStage(width=width) for width in (256, 128, 64, 32)),
        operator="transposed",
    ),
)
"""Four plain stages in encoder and decoder, and a flatten head: 9,352,195 parameters."""

MODIFIED = Architecture(
    image_size=144,
    encoder=Encoder(
        stem_width=32,
        stages=tuple(
            EncoderStage(
                block="dense",
                convolution="pointwise_first",
                width=width,
                layers=4,
                growth_rate=32,
                downsampling="average",
            )
            for width in (64, 128, 256, 512)
        ),
        head="global_average",
    ),
    decoder=Decoder(
        seed_width=512,
        stages=tuple(
            DecoderStage(
                block="dense", convolution="pointwise_first", width=width, layers=4, growth_rate=32
            )
            for width in (256, 128, 64, 32)
        ),
    ),
)
"""DenseNet blocks of depthwise-separable convolutions, pointwise first: 6,283,267 parameters."""

REFERENCES: dict[str, Architecture] = {"original": ORIGINAL, "modified": MODIFIED}
"""Name -> reference model, for the paper's 144 x 144 pixels. Every study evaluates both."""


@dataclass(frozen=True)
class Published:
    """Figures that the paper and its notebook report for one model, at 144 x 144 pixels.

    Attributes:
        params: Parameters.
        macs: Multiply-adds of one forward pass.
        latency_batch_1_ms: (mean, population standard deviation) of one full forward pass in
            milliseconds: Tesla T4, eager, float32.
        latency_batch_32_ms: The same for a batch of 32.
        losses: (train, validation) for each of ten epochs.
    """

    params: int
    macs: int
    latency_batch_1_ms: tuple[float, float]
    latency_batch_32_ms: tuple[float, float]
    losses: tuple[tuple[float, float], ...]


PUBLISHED: dict[str, Published] = {
    "original": Published(
        params=9_352_195,
        macs=664_879_104,
        latency_batch_1_ms=(1.77, 0.08),
        latency_batch_32_ms=(26.30, 5.07),
        losses=(
            (0.7493, 0.6723),
            (0.6567, 0.6355),
            (0.6263, 0.6105),
            (0.6072, 0.5960),
            (0.5945, 0.5909),
            (0.5851, 0.5771),
            (0.5768, 0.5723),
            (0.5707, 0.5629),
            (0.5643, 0.5605),
            (0.5596, 0.5572),
        ),
    ),
    "modified": Published(
        params=6_283_267,
        macs=1_101_969_536,
        latency_batch_1_ms=(10.32, 1.13),
        latency_batch_32_ms=(131.22, 8.18),
        losses=(
            (0.8303, 0.7541),
            (0.7453, 0.7321),
            (0.7258, 0.7140),
            (0.7128, 0.7037),
            (0.7053, 0.6956),
            (0.6981, 0.6875),
            (0.6928, 0.6888),
            (0.6870, 0.6772),
            (0.6824, 0.6711),
            (0.6778, 0.6699),
        ),
    ),
}
"""Name -> published figures. The paper reports no MACs: they are counted by this project."""
