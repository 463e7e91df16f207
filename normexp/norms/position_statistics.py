"""Norms over the channels of each position: LayerNorm2d and RMSNorm."""

from torch import Tensor, nn
from torch.nn import functional as F

from normexp.norms.base import Norm


class _OverChannels(Norm):
    """A norm over the channels at each position of (N,C,H,W), or of (N,C)."""

    def __init__(self, channels: int, eps: float, affine: bool, seeds: int = 1) -> None:
        super().__init__(channels, affine)
        self.eps, self.affine, self.seeds = eps, affine, seeds

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

    def for_seeds(self, seeds: int) -> nn.Module:
        return type(self)(seeds * self.channels, self.eps, self.affine, seeds)


class LayerNorm2d(_OverChannels):
    """LayerNorm over C at each position of (N,C,H,W), or over C of (N,C): torch's on the last
    axis (Ba et al. 2016, arXiv 1607.06450; in this form ConvNeXt's, Liu et al. 2022,
    arXiv 2201.03545). Unlike ``ln`` it keeps the differences between positions."""

    def over_last(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


class RMSNorm2d(_OverChannels):
    """RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467): y = γx/√(mean x² + ε), the mean over C at
    each position of (N,C,H,W), or over C of (N,C): torch's on the last axis. It has no shift."""

    def __init__(self, channels: int, eps: float, affine: bool, seeds: int = 1) -> None:
        super().__init__(channels, eps, affine, seeds)
        self.bias = None

    def over_last(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight, self.eps)
