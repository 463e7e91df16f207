"""The norms that normexp writes itself: against float64 formulas, their gradients, timm's layers,
bf16, and several networks' layers as one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_formulas import BOTH, FORMULAS, State
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.batch_statistics import BatchRenorm
from normexp.norms.factory import build_norm
from normexp.norms.weight_standardization import StandardizedConv2d

many = settings(max_examples=30, deadline=None)

# N, groups, channels in a group, H, W: two values or more wherever a variance is taken.
shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 3), st.integers(2, 4), st.integers(1, 4), st.integers(2, 4)
)
seeds = st.integers(0, 2**32 - 1)


def layer_of(name: str, channels: int, dims: int, norm: NormConfig, seed: int) -> nn.Module:
    """A layer with every parameter and running average somewhere of its own."""
    norm.name = name
    layer = build_norm(channels, dims, norm)
    rng = np.random.default_rng(seed)
    low_high = {"rho": (-0.2, 1.2), "running_var": (0.3, 3), "running_std": (0.3, 3)}
    for key, value in layer.state_dict().items():
        value.copy_(torch.from_numpy(rng.uniform(*low_high.get(key, (-2, 2)), value.shape)))
    return layer


def state_of(layer: nn.Module) -> State:
    return {key: value.double().numpy().copy() for key, value in layer.state_dict().items()}


def images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Images whose channels differ in mean and spread."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.5, 3, (*shape[:2], *[1] * (len(shape) - 2)))
    x = rng.uniform(-2, 2, spread.shape) + spread * rng.standard_normal(shape)
    return torch.from_numpy(x)


norms = st.builds(
    NormConfig,
    eps=st.sampled_from([1e-5, 1e-3, 0.5]), affine=st.booleans(),
    momentum=st.sampled_from([0.01, 0.1, 1.0]), ghost_batch_size=st.integers(2, 4),
    rmax=st.sampled_from([1.0, 1.5, 3.0]), dmax=st.sampled_from([0.0, 0.5, 5.0]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "dims"), BOTH)
@many
@given(norm=norms, shape=shapes, seed=seeds, double=st.booleans(), channels_last=st.booleans())
def test_training_and_evaluation_match_the_formula(
    name: str, dims: int, norm: NormConfig, shape: tuple[int, ...], seed: int, double: bool,
    channels_last: bool,
) -> None:  # fmt: skip
    count, norm.num_groups, size, height, width = shape
    if dims == 2:
        count += count % norm.ghost_batch_size == 1  # No ghost batch of one value.
        count += count == 1
    full = (count, norm.num_groups * size, height, width)[:dims]
    layer = layer_of(name, full[1], dims, norm, seed)
    layer, dtype = (layer.double(), torch.float64) if double else (layer, torch.float32)
    state = state_of(layer)
    for training in (True, False):
        x = images(full, seed + training).to(dtype)
        if channels_last and dims == 4:
            x = x.to(memory_format=torch.channels_last)
        found = layer.train(training)(x)
        expected = FORMULAS[name](x.double().numpy(), state, norm, training)
        assert found.dtype == dtype
        # In fp32, near-constant values magnify the rounding of the input by 1/sqrt(eps) at most.
        loose = 1e-9 if double else 3e-5 / np.sqrt(min(norm.eps, 1))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4 * loose, atol=loose)
        for key, value in layer.state_dict().items():
            np.testing.assert_allclose(value.numpy(), state[key], rtol=1e-4, atol=1e-5)
            if double:
                np.testing.assert_allclose(value.numpy(), state[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "dims"), BOTH)
def test_gradients_are_slopes(name: str, dims: int, training: bool, affine: bool) -> None:
    if name == "batch_renorm" and training:
        pytest.skip("it holds two factors constant, which slopes do not")
    norm = NormConfig(ghost_batch_size=2, num_groups=2, affine=affine, eps=1e-3)
    layer = layer_of(name, 4, dims, norm, 3).double().train(training)
    if name == "batch_instance":
        nn.init.uniform_(layer.get_parameter("rho"), 0.1, 0.9)
    parameters = dict(layer.named_parameters())
    x = images((4, 4, 2, 3)[:dims], 4).requires_grad_()

    def call(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, named, x)

    assert gradcheck(call, (x, *(value.detach().requires_grad_() for value in parameters.values())))


@pytest.mark.parametrize(("name", "dims"), BOTH)
def test_every_parameter_learns_from_where_it_begins(name: str, dims: int) -> None:
    layer = build_norm(4, dims, NormConfig(name))
    (
        layer(images((6, 4, 3, 3)[:dims], 24).float()) * images((6, 4, 3, 3)[:dims], 25)
    ).sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-3, key


def test_batch_renorm_holds_its_correction_constant_in_the_gradient() -> None:
    norm = NormConfig(rmax=1.5, dmax=0.5)
    layer = layer_of("batch_renorm", 4, 4, norm, 5).double()
    assert isinstance(layer, BatchRenorm)
    weight, bias = (layer.get_parameter(key).detach().clone() for key in ("weight", "bias"))
    weight.requires_grad_()
    mean, std = layer.running_mean.clone(), layer.running_std.clone()
    pull = images((5, 4, 3, 2), 6)

    x = images((5, 4, 3, 2), 7).requires_grad_()
    (layer(x) * pull).sum().backward()
    other = x.detach().clone().requires_grad_()
    batch_mean = other.mean((0, 2, 3))
    batch_std = (other.var((0, 2, 3), correction=0) + norm.eps).sqrt()
    r = (batch_std / std).clamp(1 / 1.5, 1.5).detach()
    d = ((batch_mean - mean) / std).clamp(-0.5, 0.5).detach()
    rows = other.movedim(1, -1)
    y = weight * ((rows - batch_mean) / batch_std * r + d) + bias
    (y.movedim(-1, 1) * pull).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(layer.get_parameter("weight").grad, weight.grad)


@pytest.mark.parametrize(
    ("fraction", "r", "d"),
    [(0.0, 1, 0), (0.1, 1, 0), (0.2, 1.5, 2.5), (0.3, 2, 5), (0.5, 3, 5), (1.0, 3, 5)],
)
def test_batch_renorm_warms_up_by_the_fraction_of_training(
    fraction: float, r: float, d: float
) -> None:
    norm = NormConfig(
        "batch_renorm", eps=1e-9, rmax=3, dmax=5, renorm_from=0.1, rmax_at=0.5, dmax_at=0.3
    )
    layer = build_norm(1, 2, norm)
    assert isinstance(layer, BatchRenorm)
    layer.at_fraction(0.4)
    layer.at_fraction(fraction)
    # Averages far below the batch's: both corrections meet their bounds. Of -1 and 1 around 10,
    # x is normalized to -1 and 1.
    layer.running_std.fill_(1e-3)
    y = layer(torch.tensor([[9.0], [11.0]])).flatten().tolist()
    assert y == pytest.approx([d - r, d + r], rel=1e-5)


@given(
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    fractions=st.lists(st.floats(0, 1)),
)
@many
def test_batch_renorms_bounds_only_grow(
    ends: tuple[float, float, float], fractions: list[float]
) -> None:
    start = min(ends)
    norm = NormConfig("batch_renorm", renorm_from=start, rmax_at=ends[1], dmax_at=ends[2])
    layer = build_norm(2, 4, norm)
    assert isinstance(layer, BatchRenorm)
    before = (1.0, 0.0)
    for fraction in sorted([0.0, *fractions]):
        layer.at_fraction(fraction)
        bounds = (float(layer.r_bound), float(layer.d_bound))
        assert bounds[0] >= before[0]
        assert bounds[1] >= before[1]
        before = bounds
    layer.at_fraction(1.0)
    assert (float(layer.r_bound), float(layer.d_bound)) == (3, 5)


def test_batch_renorm_begins_as_batch_norm() -> None:
    x = images((6, 4, 3, 3), 8).float()
    renorm, plain = (build_norm(4, 4, NormConfig(name)) for name in ("batch_renorm", "bn"))
    assert isinstance(renorm, BatchRenorm)
    renorm.at_fraction(0.0)
    torch.testing.assert_close(renorm(x), plain(x))


@given(shape=shapes, seed=seeds)
@many
def test_ghost_batches_as_large_as_the_batch_are_batch_norm(
    shape: tuple[int, int, int, int, int], seed: int
) -> None:
    count, groups, size, height, width = shape
    x = images((count, groups * size, height, width), seed).float()
    layers = [build_norm(groups * size, 4, NormConfig(name)) for name in ("ghost_bn", "bn")]
    for training in (True, True, False):
        ghost, plain = (layer.train(training)(x) for layer in layers)
        torch.testing.assert_close(ghost, plain)


def test_batch_instance_norm_learns_from_where_it_begins() -> None:
    layer = build_norm(4, 4, NormConfig("batch_instance", eps=1e-3)).double()
    x, pull = images((3, 4, 5, 2), 16), images((3, 4, 5, 2), 17)
    (layer(x) * pull).sum().backward()
    # The slope from BN, at one end of its range, towards IN.
    difference = F.batch_norm(x, None, None, training=True, eps=1e-3) - F.instance_norm(x, eps=1e-3)
    expected = (pull * difference).sum((0, 2, 3))
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(layer.get_parameter("rho").grad, expected)


def test_batch_instance_norm_keeps_its_share_within_bounds() -> None:
    layer = build_norm(3, 4, NormConfig("batch_instance"))
    rho = layer.get_parameter("rho")
    rho.data.copy_(torch.tensor([-0.5, 0.25, 1.5]))
    layer.eval()(images((2, 3, 2, 2), 18).float())
    assert rho.tolist() == [-0.5, 0.25, 1.5]
    layer.train()(images((2, 3, 2, 2), 18).float())
    assert rho.tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", FORMULAS)
def test_bf16_keeps_statistics_in_fp32(name: str, layout: torch.memory_format) -> None:
    # Spread 1 around 50: squares summed in bf16 (8 bits) would lose the variance altogether.
    centre = 0 if name in ("dyt", "derf") else 50
    x = (centre + images((4, 8, 8, 8), 9)).to(torch.bfloat16)
    norm = NormConfig(num_groups=2, ghost_batch_size=2)
    layer = layer_of(name, 8, 4, norm, 10)
    state = state_of(layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x.to(memory_format=layout))
    assert found.dtype == torch.bfloat16
    assert {value.dtype for value in layer.state_dict().values()} == {torch.float32}
    expected = FORMULAS[name](x.double().numpy(), state, norm, True)
    # Half a unit in the last place of a bf16 result is 2**-9 of it; twice that is allowed.
    np.testing.assert_allclose(found.detach().double(), expected, rtol=2**-8, atol=5e-3)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "dims"), BOTH)
def test_layers_of_several_seeds_as_one(name: str, dims: int, training: bool, affine: bool) -> None:
    norm = NormConfig(
        ghost_batch_size=2, channels_per_group=2, affine=affine, eps=0.1, momentum=0.3,
        rmax=1.2, dmax=0.3, renorm_from=0.2, rmax_at=0.8, dmax_at=0.6, alpha_init=0.8,
    )  # fmt: skip
    shape = (4, 6, 3, 2)[:dims]
    layers = [layer_of(name, 6, dims, norm, seed).double().train(training) for seed in range(3)]
    fused = layers[0].for_seeds(3).double().train(training)  # type: ignore[operator]
    states = [layer.state_dict() for layer in layers]
    assert [*fused.state_dict()] == [*states[0]]
    assert all(value.dim() > 0 for value in fused.parameters())
    fused.load_state_dict({key: torch.cat([state[key] for state in states]) for key in states[0]})
    inputs = [images(shape, 20 + seed).requires_grad_() for seed in range(3)]
    if isinstance(fused, BatchRenorm):
        for layer in (*layers, fused):
            assert isinstance(layer, BatchRenorm)
            layer.at_fraction(0.5)

    together = torch.cat([x.detach() for x in inputs], 1).requires_grad_()
    pull = images((4, 18, 3, 2)[:dims], 30)
    outputs = torch.cat([layer(x) for layer, x in zip(layers, inputs, strict=True)], 1)
    (outputs * pull).sum().backward()
    found = fused(together)
    (found * pull).sum().backward()
    torch.testing.assert_close(found, outputs)
    torch.testing.assert_close(together.grad, torch.cat([x.grad for x in inputs], 1))
    for key, parameter in fused.named_parameters():
        gradients = torch.cat([layer.get_parameter(key).grad for layer in layers])
        torch.testing.assert_close(parameter.grad, gradients)
    for key, value in fused.state_dict().items():
        after = torch.cat([layer.state_dict()[key] for layer in layers])
        torch.testing.assert_close(value, after)


@given(
    groups=st.integers(1, 3), outputs=st.integers(1, 3), inputs=st.integers(1, 3),
    window=st.integers(1, 3), seed=seeds, bias=st.booleans(),
)  # fmt: skip
@many
def test_standardized_convolutions_match_the_formula(
    groups: int, outputs: int, inputs: int, window: int, seed: int, bias: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = StandardizedConv2d(
            groups * inputs, groups * outputs, window, padding=1, groups=groups, bias=bias
        ).double()
    x = images((2, groups * inputs, 4, 3), seed)
    weight = layer.weight.detach().numpy()
    rows = weight.reshape(len(weight), -1)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-6)
    expected = F.conv2d(
        x, torch.from_numpy(rows.reshape(weight.shape)), layer.bias, padding=1, groups=groups
    )
    torch.testing.assert_close(layer(x), expected)


def test_timm_agrees() -> None:
    timm = pytest.importorskip("timm.layers")
    norm = NormConfig(eps=1e-3, num_groups=2)
    theirs = {
        "ln2d": timm.LayerNorm2d(8, eps=1e-3),
        "rms": timm.RmsNorm2d(8, eps=1e-3),
        "frn": timm.FilterResponseNormTlu2d(8, eps=1e-3),
        "evonorm_s0": timm.EvoNorm2dS0(8, groups=2, eps=1e-3),
        "evonorm_b0": timm.EvoNorm2dB0(8, eps=1e-3),
    }
    for name, other in theirs.items():
        layer = layer_of(name, 8, 4, norm, 11)
        other.load_state_dict(layer.state_dict())
        for seed, training in ((12, True), (13, True), (14, False)):
            x = images((5, 8, 4, 3), seed).float()
            mine, their = (each.train(training)(x) for each in (layer, other))
            torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-4, msg=name)
    conv, other = (
        StandardizedConv2d(6, 4, 3, padding=1, groups=2),
        timm.StdConv2d(6, 4, 3, groups=2, bias=True),
    )
    other.load_state_dict(conv.state_dict())
    x = images((2, 6, 5, 5), 15).float()
    torch.testing.assert_close(conv(x), other(x))
