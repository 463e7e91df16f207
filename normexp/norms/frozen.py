"""BatchNorm whose statistics stand still."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.base import Averaging, moments, per_channel, update_average
from normexp.norms.catalogue import Facts


@Facts(
    name="frozen_bn",
    title="BatchNorm with frozen statistics",
    paper="He et al. 2015, arXiv 1512.03385; Wu & Johnson 2021, arXiv 2105.07576",
    when="fine-tuning with one or two images",
    formula="y = γ (x - μ) / √(σ² + ε) + β,  μ and σ² fixed, those of pretrained weights;  with "
    "norm.freeze_at it is bn until that fraction of training, and μ and σ² are what its running "
    "averages have come to by then",
    axes=(),
    parameters="2C",
    reads="eps affine momentum freeze_at",
    refused="no pretrained weights and no norm.freeze_at",
)
class FrozenBatchNorm(Averaging):
    """γ and β are learned. The weights of a BatchNorm can be loaded into it.

    The trainer tells the fraction of training with :meth:`at_fraction`; a layer with ``freeze_at``
    that is never told stays BatchNorm.
    """

    frozen: Tensor

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.freeze_at = norm.freeze_at
        self.always = norm.freeze_at is None
        # On the device and no branch of the code, as the bounds of BatchRenorm.
        self.register_buffer("frozen", torch.tensor(self.always), persistent=False)
        self._told = self.always

    def at_fraction(self, fraction: float) -> None:
        """Freeze if this fraction (0..1) of training is enough, or thaw if not."""
        freeze = self.freeze_at is None or fraction >= self.freeze_at
        if freeze != self._told:
            self._told = freeze
            self.frozen.fill_(freeze)

    def by_whole_batch(self, whole: bool) -> None:
        self.always = self.freeze_at is None and not whole
        if whole:
            self.frozen.fill_(False)

    def normalize(self, x: Tensor) -> Tensor:
        if self.always or not self.training:
            fixed = self.running_mean, self.running_var
            return F.batch_norm(x, *fixed, self.weight, self.bias, False, 0.0, self.eps)
        mean, variance = moments(x)
        values = x.numel() // x.shape[1]
        unbiased = variance * (values / (values - 1))
        # A frozen average moves towards itself.
        mean = torch.where(self.frozen, self.running_mean, mean)
        variance = torch.where(self.frozen, self.running_var, variance)
        unbiased = torch.where(self.frozen, self.running_var, unbiased)
        update_average(self.running_mean, mean, self.momentum)
        update_average(self.running_var, unbiased, self.momentum)
        factor = per_channel((variance + self.eps).rsqrt(), x)
        return self.scale_and_shift(x - per_channel(mean, x), factor)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        state.pop(f"{prefix}num_batches_tracked", None)  # BatchNorm's, of no use here
        super()._load_from_state_dict(state, prefix, *rest)
