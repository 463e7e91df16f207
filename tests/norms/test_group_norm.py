"""GroupNorm in any layout and precision beside torch's own in float64, and for fused seeds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normexp.norms.group_norm import GroupNorm

CHANNELS_LAST = torch.channels_last


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


def pair(groups: int, channels: int, affine: bool = True) -> tuple[GroupNorm, nn.GroupNorm]:
    """Ours and torch's, with the same parameters; theirs in float64."""
    ours, theirs = (kind(groups, channels, affine=affine) for kind in (GroupNorm, nn.GroupNorm))
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.double()


def gradients(layer: nn.Module, x: Tensor, pull: Tensor) -> list[Tensor]:
    """Output and gradients by the input and the parameters; what follows works in place."""
    x = x.detach().requires_grad_()
    y = layer(x)
    result = y.detach().clone()
    y.mul_(pull.to(y.dtype)).sum().backward()
    assert x.grad is not None
    return [result, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor, rounding: float) -> None:
    """Theirs in float64 and contiguous, where it takes the variance by Welford's method."""
    pull = torch.randn(x.shape).to(x.dtype)
    found = gradients(ours, x, pull)
    expected = gradients(theirs, x.double().contiguous(), pull.double())
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        # What all values of a channel are off by is summed with their pulls in the gradients of its
        # parameters: the sum of n standard normal numbers stays below 4 √n.
        summed = 4 * (x.numel() / len(other)) ** 0.5 if other.dim() == 1 else 1.0
        scale = max(summed, float(other.abs().max()))
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=rounding * scale)


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x.requires_grad_())
    return sum(sizes.values())


@pytest.mark.parametrize("affine", [True, False])
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5),
                    st.integers(2, 5)),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_outputs_and_gradients_are_those_of_torch(
    affine: bool, shape: tuple[int, int, int, int, int], seed: int
) -> None:
    count, groups, size, height, width = shape
    torch.manual_seed(seed)
    channels = groups * size
    x = torch.randn(count, channels, height, width) + 3 * torch.randn(1, channels, 1, 1)
    ours, theirs = pair(groups, channels, affine)
    # In float64 even groups of two nearly equal values leave no doubt.
    assert_same(ours.double(), theirs, x.double().to(memory_format=CHANNELS_LAST), 1e-8)


@pytest.mark.parametrize(
    ("dtype", "groups", "rounding"),
    [(torch.float32, 1, 1e-5), (torch.float32, 8, 1e-5), (torch.float32, 32, 1e-5),
     (torch.bfloat16, 1, 2**-8), (torch.bfloat16, 8, 2**-8), (torch.bfloat16, 32, 2**-8)],
)  # fmt: skip
def test_channels_last_is_kept_and_costs_no_more_memory(
    dtype: torch.dtype, groups: int, rounding: float
) -> None:
    x = (1 + torch.randn(2, 32, 16, 16)).to(dtype).to(memory_format=CHANNELS_LAST)
    ours, theirs = pair(groups, 32)
    y = ours(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    assert torch.equal(ours.eval()(x), y)
    assert_same(ours, theirs, x, rounding)
    assert saved_bytes(ours, x) <= saved_bytes(nn.GroupNorm(groups, 32), x)


@pytest.mark.parametrize("far", [10, 100, 1000])
@pytest.mark.parametrize("groups", [1, 8, 16, 32])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)], ids=["fp32", "bf16"]
)
def test_channels_far_from_0_keep_their_digits(
    dtype: torch.dtype, rounding: float, groups: int, far: int
) -> None:
    """At means of so many standard deviations, and with signs of the groups' own."""
    means = far * torch.randn(3, groups, 1).sign().expand(3, groups, 32 // groups)
    x = (means.reshape(3, 32, 1, 1) + torch.randn(3, 32, 16, 16)).to(dtype)
    # What is copied, for groups of few channels, is as exact as torch's kernel for contiguous maps.
    copied = dtype == torch.bfloat16 or groups == 32
    rounding = max(rounding, 3e-7 * far) if copied else rounding
    assert_same(*pair(groups, 32), x.to(memory_format=CHANNELS_LAST), rounding)


def test_what_is_near_the_mean_need_not_be_typical() -> None:
    """Where the only positions that differ are those that are looked at, or none of them is."""
    for places in ((slice(None, None, 4), slice(None, None, 4)), (5, 6)):
        x = 1e-3 * torch.randn(2, 16, 16, 16)
        x[:, :, places[0], places[1]] += 1000
        assert_same(*pair(4, 16), x.to(memory_format=CHANNELS_LAST), 2e-5)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_any_other_layout_is_normalized_too(groups: int) -> None:
    wide = torch.randn(4, 12, 8, 8)
    for x in (wide[:, ::2], wide[:, :6, 1:, ::3], wide[:, :6, :1].transpose(2, 3)):
        assert_same(*pair(groups, 6), x, 1e-5)
    vectors = torch.randn(5, 24)[:, ::2]
    if groups < 6:  # two values a group are 1 and -1 whatever they are
        assert_same(*pair(groups, 12), vectors[..., None, None], 1e-5)
        assert_same(*pair(groups, 12), vectors, 1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_fused_seeds_are_each_normalized_as_alone(groups: int) -> None:
    alone = [pair(groups, 6)[0] for _ in range(3)]
    xs = [seed + torch.randn(2, 6, 4, 4) for seed in range(3)]
    fused = alone[0].for_seeds(3)
    fused.load_state_dict(
        {key: torch.cat([layer.state_dict()[key] for layer in alone]) for key in ("weight", "bias")}
    )
    expected = torch.cat([layer(x) for layer, x in zip(alone, xs, strict=True)], 1)
    for layout in (torch.contiguous_format, CHANNELS_LAST):
        together = torch.cat(xs, 1).to(memory_format=layout)
        torch.testing.assert_close(fused(together), expected, rtol=1e-5, atol=1e-5)


def test_settings_survive_fusing_and_printing() -> None:
    layer = GroupNorm(2, 6, eps=0.25, affine=False)
    assert repr(layer) == repr(nn.GroupNorm(2, 6, eps=0.25, affine=False))
    assert repr(layer.for_seeds(4)) == repr(nn.GroupNorm(8, 24, eps=0.25, affine=False))
