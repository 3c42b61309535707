"""A block: a module from `channels` to `stage.width` channels that keeps height and width."""

from __future__ import annotations

from torch import Tensor, nn

from nas.layers import StageLayers
from search_spaces.architecture import Stage


class Residual(nn.Module):
    """Convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(channels, stage.width, 1)
        self.layers = nn.Sequential()
        for _ in range(stage.layers):
            self.layers.append(nn.Conv2d(channels, stage.width, 3, padding=1))
            self.layers.append(nn.BatchNorm2d(stage.width))
            self.layers.append(nn.ELU())
            channels = stage.width

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, stage.width, height, width)`."""
        return self.shortcut(features) + self.layers(features)  # type: ignore[no-any-return]
