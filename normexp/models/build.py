"""Build the network that the configuration names."""

from collections import OrderedDict
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import nn

from normexp.config.schema import Architecture, Head, ModelConfig, NormConfig, Order
from normexp.models import named, swap
from normexp.models.residual import build_residual
from normexp.models.weights import load_matching, read
from normexp.norms.factory import build_norm
from normexp.norms.rules import KEEP, at_sites
from normexp.norms.weight_standardization import StandardizedConv2d


def build_model(
    model: ModelConfig, norm: NormConfig, image_size: int, classes: int, weight_seed: int
) -> nn.Module:
    """A network for images (N,3,S,S) that gives logits (N,classes), on the CPU in fp32.

    Its weights are drawn from ``weight_seed`` alone, by torch's default initialization or that of
    torchvision's ResNets: they are the same for every norm, and torch's global stream is left as
    it was.

    Raises:
        UserError: the norm cannot work in this network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weight_seed)
        match model.architecture:
            case Architecture.mlp:
                return _mlp(model, norm, image_size, classes)
            case Architecture.cnn:
                return _cnn(model, norm, image_size, classes)
            case Architecture.named:
                return _named(model, norm, image_size, classes)
            case Architecture.resnet18 | Architecture.resnet20:
                return build_residual(model, norm, classes)


def _named(model: ModelConfig, norm: NormConfig, image_size: int, classes: int) -> nn.Module:
    network = named.build(model, image_size, classes)
    notes = []
    if model.pretrained or model.weights:
        state = named.pretrained(model) if model.pretrained else read(Path(model.weights or ""))
        notes.append(load_matching(network, state))
    if norm.name != KEEP:
        images = torch.zeros(swap.PROBE_IMAGES, 3, image_size, image_size)
        notes.append(swap.swap(network, norm, swap.sites(network, images)))
    NOTES[network] = notes
    return network


NOTES: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()
"""What was done to a network by name, a sentence each."""


def count_parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def _cnn(model: ModelConfig, norm: NormConfig, image_size: int, classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    convolution = StandardizedConv2d if norm.weight_standardization else nn.Conv2d
    channels, count = 3, len(model.channels)
    own = iter(at_sites(norm, count - model.norm_from + 1))
    for place, width in enumerate(model.channels, start=1):
        layers[f"conv{place}"] = convolution(channels, width, 3, padding=1, bias=model.bias)
        if place < model.norm_from:
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
        elif model.order is Order.conv_relu_norm:
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            layers[f"norm{place}"] = build_norm(width, 4, next(own))
        else:
            _add_norm_and_relu(layers, place, build_norm(width, 4, next(own)))
        if place in model.pool_after:
            layers[f"pool{place}"] = nn.MaxPool2d(2)
            image_size //= 2
        channels = width
    if model.head is Head.average:
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        image_size = 1
    layers["flatten"] = nn.Flatten()
    features = channels * image_size * image_size
    for place, width in enumerate(model.hidden, start=1):
        layers[f"fc{place}"] = nn.Linear(features, width)
        layers[f"fc_relu{place}"] = nn.ReLU(inplace=True)
        features = width
    layers["classifier"] = nn.Linear(features, classes)
    return nn.Sequential(layers)


def _mlp(model: ModelConfig, norm: NormConfig, image_size: int, classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = 3 * image_size * image_size
    own = iter(at_sites(norm, len(model.hidden)))
    for place, width in enumerate(model.hidden, start=1):
        layers[f"fc{place}"] = nn.Linear(features, width, bias=model.bias)
        _add_norm_and_relu(layers, place, build_norm(width, 2, next(own)))
        features = width
    layers["classifier"] = nn.Linear(features, classes)
    return nn.Sequential(layers)


def _add_norm_and_relu(layers: OrderedDict[str, nn.Module], place: int, norm: nn.Module) -> None:
    layers[f"norm{place}"] = norm
    if not getattr(norm, "contains_activation", False):
        layers[f"relu{place}"] = nn.ReLU(inplace=True)
