"""Norms without statistics, which squash each value on its own: Dynamic Tanh, Dynamic erf."""

import torch
from torch import Tensor, nn

from normexp.norms.base import Norm, per_channel


class DynamicTanh(Norm):
    """Dynamic Tanh (Zhu et al. 2025, arXiv 2503.10622): y = γ·tanh(αx) + β, for any (N,C,...).

    α is one number a layer, learned from ``alpha_init`` (0.5 in the paper).
    """

    def __init__(self, channels: int, alpha_init: float, affine: bool, seeds: int = 1) -> None:
        super().__init__(channels, affine)
        self.alpha_init, self.affine = alpha_init, affine
        self.alpha = nn.Parameter(torch.full((seeds,), alpha_init))

    def normalize(self, x: Tensor) -> Tensor:
        y = (x * self.of_layer(self.alpha, x)).tanh()
        # The gradient of tanh needs its output, into which a ReLU after this layer may write.
        return self.scale_and_shift(y) if self.affine else y.clone()

    def of_layer(self, value: Tensor, x: Tensor) -> Tensor:
        """A number of each network, for all channels of its block."""
        return per_channel(value.repeat_interleave(self.channels // len(value)), x)

    def for_seeds(self, seeds: int) -> nn.Module:
        return type(self)(seeds * self.channels, self.alpha_init, self.affine, seeds)


class DynamicErf(DynamicTanh):
    """Dynamic erf (Chen et al. 2025, arXiv 2512.10938): y = γ·erf(αx + s) + β, for any (N,C,...).

    α and s are one number a layer each, learned from ``alpha_init`` (0.5 in the paper) and 0.
    """

    def __init__(self, channels: int, alpha_init: float, affine: bool, seeds: int = 1) -> None:
        super().__init__(channels, alpha_init, affine, seeds)
        self.shift = nn.Parameter(torch.zeros(seeds))

    def normalize(self, x: Tensor) -> Tensor:
        inner = torch.addcmul(self.of_layer(self.shift, x), x, self.of_layer(self.alpha, x))
        return self.scale_and_shift(inner.erf())
