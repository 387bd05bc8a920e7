"""Modules that torch lacks: a channel axis for spectrograms, residual sums, broadcasted residual sums."""

from __future__ import annotations

from torch import Tensor, nn


class AsImage(nn.Module):
    """[B, height, width] -> [B, 1, height, width], for features laid out as an image."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the channel axis."""
        return x.unsqueeze(1)


class Residual(nn.Module):
    """x -> after(x + body(x)), all of one shape."""

    def __init__(self, body: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.after = body, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum keeps the input's shape."""
        y: Tensor = self.after(x + self.body(x))
        return y


class Broadcasted(nn.Module):
    """[B, C, F, T] -> [B, C', F', T]: after(x + f + g(mean of f over frequency)), where f convolves over frequency.

    Args:
        before: maps to C' channels; if given, the block is a transition, which omits x.
        over_frequency: depthwise, with the stride that takes F to F'.
        over_time: depthwise, with the pointwise convolution after it, on [B, C', 1, T].
        height: F'.
    """

    def __init__(
        self, before: nn.Module | None, over_frequency: nn.Module, over_time: nn.Module, height: int, after: nn.Module
    ) -> None:
        super().__init__()
        self.before, self.over_frequency, self.over_time, self.after = before, over_frequency, over_time, after
        self.mean = nn.AvgPool2d((height, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add the result over time at every frequency."""
        f = self.over_frequency(x if self.before is None else self.before(x))
        y = f + self.over_time(self.mean(f))
        z: Tensor = self.after(y if self.before is not None else x + y)
        return z
