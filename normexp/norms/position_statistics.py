"""Norms over the channels of each position: LayerNorm2d and RMSNorm."""

from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.base import Norm
from normexp.norms.catalogue import Facts


class _OverChannels(Norm):
    """A norm over the channels at each position of (N,C,H,W) or (N,L,C), or of (N,C)."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps = norm.eps

    def normalize(self, x: Tensor) -> Tensor:
        # torch has both on the last axes; for channels_last maps this moves no data.
        blocks = x.movedim(1, -1).unflatten(-1, (self.seeds, -1))
        if self.seeds == 1:
            return self.over_last(blocks, self.weight, self.bias).flatten(-2).movedim(-1, 1)
        y = self.over_last(blocks, None, None).flatten(-2)
        if self.weight is not None:
            y = y * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.movedim(-1, 1)

    def over_last(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """The norm over the last axis."""
        raise NotImplementedError


@Facts(
    name="ln2d",
    title="LayerNorm at each position",
    paper="Ba et al. 2016; Liu et al. 2022, arXiv 2201.03545",
    when="transformers, ConvNeXt",
    formula="y = γ (x - μ) / √(σ² + ε) + β",
    axes=("C",),
    parameters="2C",
    reads="eps affine",
)
class LayerNorm2d(_OverChannels):
    """Unlike ``ln`` it keeps the differences between positions."""

    def over_last(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


@Facts(
    name="rms",
    title="RMSNorm at each position",
    paper="Zhang & Sennrich 2019, arXiv 1910.07467",
    when="language models, as a cheaper ln",
    formula="y = γ x / √(mean x² + ε)",
    axes=("C",),
    parameters="C",
    reads="eps affine",
    tokens=True,
)
class RMSNorm2d(_OverChannels):
    """It has no shift."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.bias = None

    def over_last(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight, self.eps)
