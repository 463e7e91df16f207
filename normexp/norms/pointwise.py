"""Norms without statistics, which squash each value on its own: Dynamic Tanh, Dynamic erf."""

import torch
from torch import Tensor, nn

from normexp.config.schema import NormConfig
from normexp.norms.base import Norm, per_channel
from normexp.norms.catalogue import Facts


@Facts(
    name="dyt",
    title="Dynamic Tanh",
    paper="Zhu et al. 2025, arXiv 2503.10622",
    when="transformers without any statistics",
    formula="y = γ tanh(α x) + β,  α one a layer",
    axes=(),
    parameters="2C + 1",
    reads="affine alpha_init",
    tokens=True,
)
class DynamicTanh(Norm):
    """α is learned from ``alpha_init`` (0.5 in the paper)."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.alpha = nn.Parameter(torch.full((seeds,), norm.alpha_init))

    def normalize(self, x: Tensor) -> Tensor:
        y = (x * self.of_layer(self.alpha, x)).tanh()
        # The gradient of tanh needs its output, into which a ReLU after this layer may write.
        return y.clone() if self.weight is None else self.scale_and_shift(y)

    def of_layer(self, value: Tensor, x: Tensor) -> Tensor:
        """A number of each network, for all channels of its block."""
        return per_channel(value.repeat_interleave(self.channels // len(value)), x)


@Facts(
    name="derf",
    title="Dynamic erf",
    paper="Chen et al. 2025, arXiv 2512.10938",
    when="as dyt, with better results reported",
    formula="y = γ erf(α x + s) + β,  α and s one a layer",
    axes=(),
    parameters="2C + 2",
    reads="affine alpha_init",
    tokens=True,
)
class DynamicErf(DynamicTanh):
    """α and s are learned from ``alpha_init`` (0.5 in the paper) and 0."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.shift = nn.Parameter(torch.zeros(seeds))

    def normalize(self, x: Tensor) -> Tensor:
        inner = torch.addcmul(self.of_layer(self.shift, x), x, self.of_layer(self.alpha, x))
        return self.scale_and_shift(inner.erf())
