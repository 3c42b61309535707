"""The kinds and the multiply-adds of torch's operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fvcore.nn.jit_handles import conv_flop_count
from torch import Tensor

from profiling.kinds import KindGroup


def _convolution_macs(args: Any, output: Tensor) -> int:
    image, weight, transposed = args[0], args[1], args[6]
    return int(conv_flop_count(image.shape, weight.shape, output.shape, transposed))


def _product_macs(position: int) -> Callable[[Any, Tensor], int]:
    """Return the MACs of a matrix product: output elements times length of the summed dimension."""
    return lambda args, output: output.numel() * int(args[position].shape[-1])


MACS: dict[str, Callable[[Any, Tensor], int]] = {
    "aten::convolution": _convolution_macs,
    "aten::_convolution": _convolution_macs,
    "aten::mm": _product_macs(0),
    "aten::addmm": _product_macs(1),
    "aten::bmm": _product_macs(0),
    "aten::baddbmm": _product_macs(1),
    "aten::mv": _product_macs(0),
    "aten::addmv": _product_macs(1),
}

# Operations that only allocate memory or are views, although their schemas do not say so.
FREE = (
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"),
    *("aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh"),
)

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv")
_BATCH_NORMS = (
    *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"),
    *("_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
)
_ACTIVATIONS = (
    *("elu", "elu_", "relu", "relu_", "leaky_relu", "leaky_relu_", "gelu", "silu", "silu_"),
    *("sigmoid", "tanh", "hardtanh", "hardtanh_", "hardswish", "hardswish_", "hardsigmoid"),
    *("mish", "softplus", "celu", "_softmax", "_prelu_kernel"),
)
_RESAMPLING = (
    *("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "mean"),
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "pixel_shuffle", "pixel_unshuffle"),
)
_KINDS: dict[str, KindGroup] = {
    **dict.fromkeys(_PRODUCTS, "linear"),
    **dict.fromkeys(_BATCH_NORMS, "batch_norm"),
    **dict.fromkeys(_ACTIVATIONS, "activation"),
    **dict.fromkeys(_RESAMPLING, "resampling"),
    "cat": "concatenation",
}


def kind_group(name: str, args: Any) -> KindGroup:
    """Return the group of an operation, from its name in torch's schema and its arguments."""
    short = name.removeprefix("aten::")
    if short in ("convolution", "_convolution"):
        return _convolution_kind(weight=args[1], groups=args[8])
    return _KINDS.get(short, "other")


def _convolution_kind(weight: Tensor, groups: int) -> KindGroup:
    """Return "depthwise" for one channel per group, "pointwise" for other 1x1 kernels."""
    if groups > 1 and weight.shape[1] == 1:
        return "depthwise"
    return "pointwise" if math.prod(weight.shape[2:]) == 1 else "convolution"
