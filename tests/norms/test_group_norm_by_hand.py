"""GroupNorm computed by hand, as tutorials do, beside the layer; and the mistakes they make."""

import math

import pytest
import torch
from torch import Tensor

from normexp.config.schema import NormConfig
from normexp.norms.factory import build_norm

EPS = 1e-5
GROUPS, CHANNELS = 2, 10


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(2, CHANNELS, 3, 3, generator=generator) + 1


@pytest.fixture
def scale() -> Tensor:
    return torch.linspace(0.5, 2, CHANNELS)


@pytest.fixture
def shift() -> Tensor:
    return torch.linspace(-1, 1, CHANNELS)


def by_hand(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Number by number: each image, each group of five channels, its 45 values."""
    result = torch.empty_like(images)
    size = CHANNELS // GROUPS
    for image, output in zip(images.tolist(), result, strict=True):
        for group in range(GROUPS):
            channels = range(group * size, (group + 1) * size)
            values = [value for c in channels for row in image[c] for value in row]
            assert len(values) == 45
            mean = math.fsum(values) / 45
            variance = math.fsum((value - mean) ** 2 for value in values) / 45
            for c in channels:
                normal = (torch.tensor(image[c]).double() - mean) / math.sqrt(variance + EPS)
                output[c] = normal * float(scale[c]) + float(shift[c])
    return result


def in_one_go(images: Tensor, scale: Tensor, shift: Tensor, correction: int = 0) -> Tensor:
    """As tutorials write it."""
    count, channels, height, width = images.shape
    grouped = images.view(count, GROUPS, -1)
    mean = grouped.mean(2, keepdim=True)
    variance = grouped.var(2, keepdim=True, correction=correction)
    normal = ((grouped - mean) / (variance + EPS).sqrt()).view(count, channels, height, width)
    return normal * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def layer(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What `norm=gn norm.num_groups=2` builds."""
    norm = build_norm(CHANNELS, 4, NormConfig(name="gn", num_groups=GROUPS, eps=EPS))
    with torch.no_grad():
        norm.weight.copy_(scale)
        norm.bias.copy_(shift)
        result: Tensor = norm(images)
    return result


def agree(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_layer_is_what_is_computed_by_hand(
    images: Tensor, scale: Tensor, shift: Tensor
) -> None:
    expected = by_hand(images, scale, shift)
    torch.testing.assert_close(layer(images, scale, shift), expected)
    torch.testing.assert_close(in_one_go(images, scale, shift), expected)


def test_each_group_of_each_image_has_mean_0_and_variance_1(images: Tensor) -> None:
    found = layer(images, torch.ones(CHANNELS), torch.zeros(CHANNELS)).view(2, GROUPS, 45)
    torch.testing.assert_close(found.mean(2), torch.zeros(2, GROUPS), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.var(2, correction=0), torch.ones(2, GROUPS))


def test_the_mistakes_of_tutorials_disagree(images: Tensor, scale: Tensor, shift: Tensor) -> None:
    def forgets_the_return(images: Tensor) -> None:
        in_one_go(images, scale, shift)

    expected = layer(images, scale, shift)
    assert agree(in_one_go(images, scale, shift), expected)
    assert not agree(in_one_go(images, scale, shift, correction=1), expected)  # unbiased variance
    assert not agree(in_one_go(images, torch.ones(CHANNELS), torch.zeros(CHANNELS)), expected)
    assert not agree(forgets_the_return(images), expected)  # type: ignore[func-returns-value]
