"""BatchNorm whose statistics stand still."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.base import Averaging
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
        # On the device, and so one for all networks that are trained as one, as BatchRenorm's.
        self.register_buffer("frozen", torch.tensor(self.always), persistent=False)
        self._told: bool | None = None

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
        mean, variance = self.running_mean, self.running_var
        if self.always or not self.training:
            return self._batch_norm(x, mean, variance, False)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return self._batch_norm(x, mean, variance, not bool(self.frozen))
        # To read it would wait for the device, and a step recorded as a CUDA graph would keep what
        # it was: both are computed.
        fixed = self._batch_norm(x, mean.clone(), variance.clone(), False)
        new_mean, new_variance = mean.clone(), variance.clone()
        by_batch = self._batch_norm(x, new_mean, new_variance, True)
        mean.copy_(torch.where(self.frozen, mean, new_mean))
        variance.copy_(torch.where(self.frozen, variance, new_variance))
        return torch.where(self.frozen, fixed, by_batch)

    def _batch_norm(self, x: Tensor, mean: Tensor, variance: Tensor, by_batch: bool) -> Tensor:
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, by_batch, self.momentum, self.eps
        )

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        state.pop(f"{prefix}num_batches_tracked", None)  # BatchNorm's, of no use here
        super()._load_from_state_dict(state, prefix, *rest)
