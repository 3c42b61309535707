"""One operation of a network as a value: what it does, and what follows from its shape."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "convolution",
    "transposed",
    "depthwise",
    "depthwise_transposed",
    "pointwise",
    "pointwise_transposed",
    "linear",
    "batch_norm",
    "activation",
    "concatenation",
    "max_pool",
    "average_pool",
    "global_average",
    "upsample",
    "pixel_shuffle",
    "reparameterise",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind of operation; the first seven do all multiply-adds. Views launch nothing."""

_WEIGHTED = frozenset(KINDS[:7])
_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_REPARAMETERISE = 5, 7, 5  # launches, tensors read, tensors written: noise, half, exp, times, plus


class Operation(NamedTuple):
    """One layer's work on square maps of `channels_in` x `size_in`^2, which become those `_out`.

    Linear layers have size 1. A concatenation joins `channels_in` to as many new ones as make
    `channels_out`. `function` names an activation ("elu", "sigmoid"), "" for other kinds.
    """

    kind: Kind
    channels_in: int
    channels_out: int
    size_in: int
    size_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    function: str = ""

    @property
    def weights(self) -> int:
        """Elements of the weight tensor, without the bias."""
        if self.kind not in _WEIGHTED:
            return 0
        return self.channels_in * self.channels_out // self.groups * self.kernel**2

    @property
    def params(self) -> int:
        """Trainable parameters."""
        if self.kind == "batch_norm":
            return 2 * self.channels_out
        return self.weights + self.channels_out if self.weights else 0

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, as `profiling.complexity` counts them."""
        transposed = self.kind.endswith("transposed")
        return self.weights * (self.size_in if transposed else self.size_out) ** 2

    @property
    def launches(self) -> int:
        """Operations launched."""
        return _REPARAMETERISE[0] if self.kind == "reparameterise" else 1

    @property
    def elements_in(self) -> int:
        """Elements of the feature maps read for one image."""
        if self.kind == "concatenation":
            return self.elements_out
        tensors = _REPARAMETERISE[1] if self.kind == "reparameterise" else 1
        return tensors * self.channels_in * self.size_in**2

    @property
    def elements_out(self) -> int:
        """Elements of the feature maps written for one image."""
        tensors = _REPARAMETERISE[2] if self.kind == "reparameterise" else 1
        return tensors * self.channels_out * self.size_out**2

    def bytes_moved(self, batch: int = 1) -> int:
        """Bytes of operands and results, each once; max pooling also writes where maxima were."""
        # A BatchNorm has its running mean and variance too, and two more of the batch.
        constants = 3 * self.params if self.kind == "batch_norm" else self.params
        moved = (constants + batch * (self.elements_in + self.elements_out)) * _FLOAT_BYTES
        indices = batch * self.elements_out if self.kind == "max_pool" else 0
        return moved + indices * _INDEX_BYTES
