"""Weight Standardization: a norm of the weights before a norm of the activations."""

import torch
from torch import Tensor, nn

EPS = 1e-6


class StandardizedConv2d(nn.Conv2d):
    """A convolution with Weight Standardization (Qiao et al. 2019, arXiv 1903.10520).

    It uses Ŵ = (W - μ)/√(σ² + 1e-6), with the mean and the biased variance over the weights of
    each output channel, of which there are in_channels/groups times the window. Everything else,
    the parameters too, is torch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        standardized = (self.weight - mean) * (variance + EPS).rsqrt()
        output: Tensor = self._conv_forward(input, standardized, self.bias)
        return output


def standardize(network: nn.Module) -> None:
    """Standardize the weights of all convolutions of a network that stands already."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = StandardizedConv2d  # it has nothing but what they have
