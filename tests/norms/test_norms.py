"""Every norm of the factory against float64 formulas, and what the formulas promise."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normexp.config.schema import NormConfig
from normexp.norms.factory import build_norm
from normexp.system.errors import UserError

Array = np.ndarray

WITH_POSITIONS = ["none", "bn", "ln", "in", "gn"]
WITHOUT_POSITIONS = ["none", "bn", "ln", "gn"]
BOTH = [*((name, 4) for name in WITH_POSITIONS), *((name, 2) for name in WITHOUT_POSITIONS)]

# Without a deadline: how long an example takes is no behaviour.
many = settings(max_examples=50, deadline=None)

# N, the number of groups, channels in a group, H, W; each group has two values or more.
shapes = st.tuples(
    st.integers(2, 5), st.integers(1, 4), st.integers(2, 4), st.integers(1, 5), st.integers(2, 5)
)
seeds = st.integers(0, 2**32 - 1)
epsilons = st.sampled_from([1e-5, 1e-3, 0.5])


def over(name: str, x: Array, groups: int) -> tuple[Array, tuple[int, ...]]:
    """The input shaped so that its statistics are taken over whole axes, and these axes.

    GN sees (N,G,C/G,...); the axes are those that the papers name.
    """
    if name == "gn":
        split = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
        return split, tuple(range(2, split.ndim))
    if name == "in":
        return x, (2, 3)
    axes = {"bn": (0, 2, 3), "ln": (1, 2, 3)} if x.ndim == 4 else {"bn": (0,), "ln": (1,)}
    return x, axes[name]


def statistics(name: str, x: Array, groups: int) -> tuple[Array, Array]:
    """Mean and biased variance in float64, with the axes kept."""
    shaped, axes = over(name, x.astype(np.float64), groups)
    mean = shaped.sum(axis=axes, keepdims=True) / np.prod([shaped.shape[axis] for axis in axes])
    return mean, ((shaped - mean) ** 2).mean(axis=axes, keepdims=True)


def per_channel(values: Array, x: Array) -> Array:
    return values.astype(np.float64).reshape(1, -1, *[1] * (x.ndim - 2))


def formula(
    name: str, x: Array, gamma: Array, beta: Array, eps: float, groups: int = 1
) -> Array:  # fmt: skip
    """gamma * (x - mean) / sqrt(variance + eps) + beta in float64; ``none`` is x."""
    if name == "none":
        return x.astype(np.float64)
    mean, variance = statistics(name, x, groups)
    shaped, _ = over(name, x.astype(np.float64), groups)
    standard = ((shaped - mean) / np.sqrt(variance + eps)).reshape(x.shape)
    return per_channel(gamma, x) * standard + per_channel(beta, x)


def layer_of(name: str, channels: int, dims: int, groups: int = 1, **settings: float) -> nn.Module:
    norm = NormConfig(name=name, num_groups=groups if name == "gn" else None)
    for key, value in settings.items():
        setattr(norm, key, value)
    return build_norm(channels, dims, norm)


def set_affine(layer: nn.Module, gamma: Array, beta: Array) -> None:
    """Set scale and shift, whatever a layer has of them."""
    with torch.no_grad():
        for name, value in (("weight", gamma), ("bias", beta)):
            parameter = getattr(layer, name, None)
            if parameter is not None:
                parameter.copy_(torch.from_numpy(value))


def draw(seed: int, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """An input whose channels and images differ in mean and spread, and scales and shifts."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.5, 3, (*shape[:2], *[1] * (len(shape) - 2)))
    centre = rng.uniform(-2, 2, spread.shape)
    x = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
    gamma = rng.uniform(-2, 2, shape[1]).astype(np.float32)
    beta = rng.uniform(-2, 2, shape[1]).astype(np.float32)
    return x, gamma, beta


def apply(layer: nn.Module, x: Array) -> Array:
    return layer(torch.from_numpy(x)).detach().numpy()


def assert_matches_formula(
    name: str, shape: tuple[int, ...], groups: int, seed: int, eps: float
) -> None:
    x, gamma, beta = draw(seed, shape)
    layer = layer_of(name, shape[1], len(shape), groups, eps=eps)
    set_affine(layer, gamma, beta)
    # Near-constant statistics magnify the rounding of fp32 inputs by 1/sqrt(variance + eps).
    magnified = 1.0
    if name != "none":
        _, variance = statistics(name, x, groups)
        magnified = float(1 / np.sqrt(variance.min() + eps))
    expected = formula(name, x, gamma, beta, eps, groups)
    for training in (True, False) if name != "bn" else (True,):
        found = apply(layer.train(training), x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-5 * max(1, magnified))


@pytest.mark.parametrize("name", WITH_POSITIONS)
@many
@given(shape=shapes, seed=seeds, eps=epsilons)
def test_maps_match_the_formula(
    name: str, shape: tuple[int, int, int, int, int], seed: int, eps: float
) -> None:
    count, groups, size, height, width = shape
    assert_matches_formula(name, (count, groups * size, height, width), groups, seed, eps)


@pytest.mark.parametrize("name", WITHOUT_POSITIONS)
@many
@given(shape=shapes, seed=seeds, eps=epsilons)
def test_vectors_match_the_formula(
    name: str, shape: tuple[int, int, int, int, int], seed: int, eps: float
) -> None:
    count, groups, size, _, _ = shape
    assert_matches_formula(name, (count, groups * size), groups, seed, eps)


@pytest.mark.parametrize("name", ["bn", "ln", "in", "gn"])
@many
@given(shape=shapes, seed=seeds)
def test_without_eps_the_output_has_mean_0_and_variance_1(
    name: str, shape: tuple[int, int, int, int, int], seed: int
) -> None:
    count, groups, size, height, width = shape
    rng = np.random.default_rng(seed)
    # Steps of at least 0.2 along each row keep variances far above what rounding does to them.
    x = rng.uniform(-0.4, 0.4, (count, groups * size, height, width)) + np.arange(width)
    x = (x + rng.uniform(-3, 3, (count, groups * size, 1, 1))).astype(np.float32)
    # torch takes no 0 for BN; 1e-30 vanishes beside such variances.
    layer = layer_of(name, x.shape[1], 4, groups, eps=1e-30 if name == "bn" else 0.0)
    mean, variance = statistics(name, apply(layer, x), groups)
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    np.testing.assert_allclose(variance, 1, atol=1e-3)


@many
@given(shape=shapes, seed=seeds)
def test_group_norm_has_ln_and_in_at_its_ends(
    shape: tuple[int, int, int, int, int], seed: int
) -> None:
    count, groups, size, height, width = shape
    channels = groups * size
    x, gamma, beta = draw(seed, (count, channels, height, width))
    ends = {"ln": 1, "in": channels}
    for name, number in ends.items():
        named, grouped = layer_of(name, channels, 4), layer_of("gn", channels, 4, number)
        set_affine(named, gamma, beta)
        set_affine(grouped, gamma, beta)
        np.testing.assert_allclose(apply(named, x), apply(grouped, x), rtol=1e-5, atol=2e-3)


@many
@given(shape=shapes, seed=seeds)
def test_groups_by_number_and_by_size_are_the_same(
    shape: tuple[int, int, int, int, int], seed: int
) -> None:
    count, groups, size, height, width = shape
    x, gamma, beta = draw(seed, (count, groups * size, height, width))
    outputs = []
    for keys in ({"num_groups": groups}, {"channels_per_group": size}):
        layer = build_norm(groups * size, 4, NormConfig(name="gn", **keys))
        set_affine(layer, gamma, beta)
        outputs.append(apply(layer, x))
    np.testing.assert_array_equal(*outputs)


def test_group_norm_of_a_tensor_computed_by_hand() -> None:
    # Each group of (2,10,3,3) holds 5*9 = 45 numbers in a row: k, k+1, ... k+44. Their mean is
    # k+22 and their variance (45*45-1)/12 = 168.667, so every group becomes the same numbers.
    x = np.arange(2 * 10 * 3 * 3, dtype=np.float32).reshape(2, 10, 3, 3)
    one_group = ((np.arange(45) - 22) / np.sqrt(506 / 3 + 1e-5)).reshape(5, 3, 3)
    expected = np.stack([np.concatenate([one_group, one_group])] * 2)
    np.testing.assert_allclose(apply(layer_of("gn", 10, 4, 2), x), expected, atol=1e-5)


@pytest.mark.parametrize("name", WITH_POSITIONS)
def test_only_bn_lets_the_other_images_of_a_batch_matter(name: str) -> None:
    x, gamma, beta = draw(1, (4, 6, 5, 5))
    changed = x.copy()
    changed[1:] = 10 - 3 * changed[1:]
    layer = layer_of(name, 6, 4, 3)
    set_affine(layer, gamma, beta)
    first, first_in_other_company = apply(layer, x)[0], apply(layer, changed)[0]
    alone = apply(layer, x[:1])[0]
    if name == "bn":
        assert np.abs(first - first_in_other_company).max() > 0.1
        assert np.abs(first - alone).max() > 0.1
    else:
        np.testing.assert_allclose(first_in_other_company, first, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone, first, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 4])
@many
@given(
    shape=shapes, seed=seeds, eps=epsilons, momentum=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    batches=st.integers(1, 3),
)  # fmt: skip
def test_bn_evaluates_with_running_averages(
    dims: int, shape: tuple[int, int, int, int, int], seed: int, eps: float, momentum: float,
    batches: int,
) -> None:  # fmt: skip
    count, groups, size, height, width = shape
    full = (count, groups * size, height, width)[:dims]
    layer = layer_of("bn", full[1], dims, eps=eps, momentum=momentum)
    _, gamma, beta = draw(seed, full)
    set_affine(layer, gamma, beta)
    running_mean, running_variance = np.zeros(full[1]), np.ones(full[1])
    for batch in range(batches):
        x, _, _ = draw(seed + batch + 1, full)
        apply(layer.train(), x)
        mean, biased = (value.ravel() for value in statistics("bn", x, 1))
        values = x.size // full[1]
        # The new batch enters with weight `momentum`, its variance unbiased.
        running_mean = (1 - momentum) * running_mean + momentum * mean
        unbiased = biased * values / (values - 1)
        running_variance = (1 - momentum) * running_variance + momentum * unbiased
    found = {name: buffer.numpy() for name, buffer in layer.named_buffers()}
    np.testing.assert_allclose(found["running_mean"], running_mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["running_var"], running_variance, rtol=1e-4, atol=1e-5)

    x, _, _ = draw(seed + 100, full)
    # What evaluation gives is a function of the stored averages, so take these as they are.
    mean, variance = (found[key].astype(np.float64) for key in ("running_mean", "running_var"))
    standard = (x - per_channel(mean, x)) / np.sqrt(per_channel(variance, x) + eps)
    expected = per_channel(gamma, x) * standard + per_channel(beta, x)
    magnified = float(1 / np.sqrt(variance.min() + eps))
    found_output = apply(layer.eval(), x)
    np.testing.assert_allclose(found_output, expected, rtol=1e-5, atol=3e-5 * max(1, magnified))
    np.testing.assert_array_equal(layer.get_buffer("running_mean").numpy(), found["running_mean"])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("name", "dims"), BOTH)
def test_each_channel_has_one_scale_and_one_shift(name: str, dims: int, affine: bool) -> None:
    layer = layer_of(name, 12, dims, 3, affine=affine)
    sizes = {key: tuple(value.shape) for key, value in layer.named_parameters()}
    learned = affine and name != "none"
    assert sizes == ({"weight": (12,), "bias": (12,)} if learned else {})
    if learned:
        assert torch.equal(layer.get_parameter("weight"), torch.ones(12))
        assert torch.equal(layer.get_parameter("bias"), torch.zeros(12))


def test_instance_norm_refuses_vectors_and_names_what_works() -> None:
    with pytest.raises(UserError, match=r"^norm=in: .*positions.* norm=ln"):
        layer_of("in", 12, 2)


@pytest.mark.parametrize(("name", "dims"), [case for case in BOTH if case[0] != "none"])
def test_gradients_are_the_slopes_of_the_formula(name: str, dims: int) -> None:
    """Along random directions, against central differences of the float64 formula."""
    x, gamma, beta = draw(7, (4, 6, 3, 5)[:dims])
    rng = np.random.default_rng(8)
    pull = rng.standard_normal(x.shape)
    layer = layer_of(name, 6, dims, 2)
    set_affine(layer, gamma, beta)
    layer, tensor = layer.double(), torch.from_numpy(x.astype(np.float64)).requires_grad_()
    (layer(tensor) * torch.from_numpy(pull)).sum().backward()
    gradients = [tensor.grad, layer.get_parameter("weight").grad, layer.get_parameter("bias").grad]

    def value(*point: Array) -> float:
        return float((pull * formula(name, *point, 1e-5, 2)).sum())

    point = [array.astype(np.float64) for array in (x, gamma, beta)]
    for place, gradient in enumerate(gradients):
        assert gradient is not None
        for _ in range(5):
            step = 1e-5 * rng.standard_normal(point[place].shape)
            ahead, behind = list(point), list(point)
            ahead[place], behind[place] = point[place] + step, point[place] - step
            slope = (value(*ahead) - value(*behind)) / 2
            assert slope == pytest.approx(float((gradient.numpy() * step).sum()), rel=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["bn", "ln", "in", "gn"])
def test_bf16_keeps_statistics_in_fp32(name: str, layout: torch.memory_format) -> None:
    # Spread 1 around 50: squares summed in bf16 (8 bits) would lose the variance altogether.
    rng = np.random.default_rng(3)
    x = torch.from_numpy(50 + rng.standard_normal((4, 8, 16, 16))).to(torch.bfloat16)
    _, gamma, beta = draw(4, (4, 8))
    layer = layer_of(name, 8, 4, 2)
    set_affine(layer, gamma, beta)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x.to(memory_format=layout)).detach().double().numpy()
    expected = formula(name, x.double().numpy(), gamma, beta, 1e-5, 2)
    # Half a unit in the last place of a bf16 result is 2**-9 of it; twice that is allowed.
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=2e-3)


@pytest.fixture
def own_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes the body of a norm function to a file on the path and gives its `module:function`."""
    name = "a_norm_of_ones_own"

    def write(body: str) -> str:
        head = "import torch\nfrom torch import nn\n\n\ndef build(channels, dims, norm):\n"
        (tmp_path / f"{name}.py").write_text(f"{head}    {body}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return f"{name}:build"

    yield write
    sys.modules.pop(name, None)


def test_a_norm_of_ones_own_is_built_as_its_function_says(own_norm: Callable[[str], str]) -> None:
    name = own_norm("return nn.BatchNorm2d(channels, eps=norm.eps * dims)")
    layer = build_norm(6, 4, NormConfig(name=name, eps=0.25))
    assert isinstance(layer, nn.BatchNorm2d)
    assert (layer.num_features, layer.eps) == (6, 1.0)


@pytest.mark.parametrize("name", [*WITH_POSITIONS, "own"])
def test_norms_draw_nothing_from_the_random_stream(
    name: str, own_norm: Callable[[str], str]
) -> None:
    if name == "own":
        name = own_norm("return nn.PReLU(channels, init=torch.rand(()).item())")

    def following() -> Tensor:
        torch.manual_seed(5)
        layer_of(name, 8, 4, 2)
        return torch.rand(4)

    expected = torch.rand(4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(following(), expected)


@pytest.mark.parametrize(
    "given_name", ["foo", "BN", "batchnorm", "no_such_module:build", "math:foo"]
)
def test_an_unknown_norm_lists_the_known_ones(given_name: str) -> None:
    with pytest.raises(UserError) as caught:
        build_norm(8, 4, NormConfig(name=given_name))
    message = str(caught.value)
    assert given_name in message
    assert "none bn syncbn ln in gn" in message
