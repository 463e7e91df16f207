"""Learning rates and optimizers against torch's own schedulers and unfused optimizers."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler

from normexp.config.schema import (
    LrRule,
    NormConfig,
    OptimizerConfig,
    OptimizerName,
    SchedulerConfig,
)
from normexp.config.schema import SchedulerName as Name
from normexp.models.build import build_model
from normexp.norms.factory import build_norm
from normexp.runs.composing import compose
from normexp.trainer.optimization import build_optimizer, effective_rate, rate_factor

CPU = torch.device("cpu")

# Without a deadline: how long an example takes is no behaviour.
many = settings(max_examples=50, deadline=None)
steps = st.integers(4, 60)
factors = st.floats(0, 1)
warmups = st.fractions(0, 1).map(float).filter(lambda value: value <= 0.8)


def torch_rates(build: Callable[[torch.optim.Optimizer], Any], count: int) -> list[float]:
    """The factors that a torch scheduler gives for the steps 0 to count."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    rates = []
    for _ in range(count + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def our_rates(config: SchedulerConfig, count: int) -> list[float]:
    return [rate_factor(config, step / count) for step in range(count + 1)]


def assert_same(ours: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@many
@given(count=steps, final=factors)
def test_cosine_is_that_of_torch(count: int, final: float) -> None:
    expected = torch_rates(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, count, eta_min=final), count
    )
    assert_same(our_rates(SchedulerConfig(Name.cosine, final=final), count), expected)


@many
@given(count=steps, rise=st.integers(1, 50), div=st.floats(1, 100), final=st.floats(1, 1e5))
def test_one_cycle_is_that_of_torch(count: int, rise: int, div: float, final: float) -> None:
    rise = min(rise, count - 2)
    config = SchedulerConfig(Name.one_cycle, rise / count, 1 / div, final=1 / div / final)
    # torch's rate is highest at step pct_start * total_steps - 1 and lowest at the last.
    total = count + 1
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, 1.0, total, pct_start=(rise + 1) / total, div_factor=div,
        final_div_factor=final, cycle_momentum=False,
    )  # fmt: skip
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < total:
            scheduler.step()
    assert_same(our_rates(config, count), expected)


def test_the_one_cycle_choice_has_the_shape_of_torch_by_default() -> None:
    config = compose(["scheduler=one_cycle"]).scheduler
    assert (config.warmup, config.warmup_start, config.final) == (0.3, 1 / 25, 1 / 25 / 1e4)


@many
@given(
    places=st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted),
    gamma=st.floats(0.01, 1),
)
def test_steps_are_those_of_torch(places: list[int], gamma: float) -> None:
    milestones = [place / 100 for place in places]
    expected = torch_rates(
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, places, gamma), 100
    )
    assert_same(
        our_rates(SchedulerConfig(Name.step, milestones=milestones, gamma=gamma), 100), expected
    )


@many
@given(count=steps, rise=st.integers(1, 50), start=st.floats(0.01, 1))
def test_a_linear_warmup_is_that_of_torch(count: int, rise: int, start: float) -> None:
    rise = min(rise, count - 1)
    expected = torch_rates(
        lambda optimizer: lr_scheduler.LinearLR(optimizer, start, 1, rise), count
    )
    assert_same(our_rates(SchedulerConfig(Name.constant, rise / count, start), count), expected)


@many
@given(count=steps, rise=st.integers(1, 50), start=st.floats(0.01, 1), final=factors)
def test_a_warmup_leaves_the_rest_of_training_to_the_cosine(
    count: int, rise: int, start: float, final: float
) -> None:
    rise = min(rise, count - 1)
    up = torch_rates(lambda optimizer: lr_scheduler.LinearLR(optimizer, start, 1, rise), rise)
    down = torch_rates(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, count - rise, final),
        count - rise,
    )
    config = SchedulerConfig(Name.cosine, rise / count, start, final=final)
    assert_same(our_rates(config, count), up[:-1] + down)


@pytest.mark.parametrize(
    ("name", "end"), [(Name.constant, 1.0), (Name.cosine, 0.25), (Name.step, 0.1)]
)
def test_rates_at_the_turning_points(name: Name, end: float) -> None:
    config = SchedulerConfig(name, 0.5, 0.0, milestones=[0.75], gamma=0.1, final=0.25)
    assert rate_factor(config, 0.0) == 0.0
    assert rate_factor(config, 0.25) == pytest.approx(0.5)
    assert rate_factor(config, 0.5) == 1.0
    assert rate_factor(config, 1.0) == pytest.approx(end)


def test_half_a_cosine_by_hand() -> None:
    config = SchedulerConfig(Name.cosine, final=0.2)
    assert rate_factor(config, 0.5) == pytest.approx(0.6)
    assert rate_factor(config, 1 / 3) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 3)) / 2)


@many
@given(warmup=warmups, fraction=factors, name=st.sampled_from(list(Name)), final=factors)
def test_a_schedule_never_leaves_0_to_1(
    warmup: float, fraction: float, name: Name, final: float
) -> None:
    config = SchedulerConfig(name, warmup, 0.1, milestones=[0.3, 0.6], gamma=0.1, final=final)
    assert 0 <= rate_factor(config, fraction) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("rule", "batch_size", "expected"),
    [
        (LrRule.none, 2, 0.1), (LrRule.none, 1024, 0.1),
        (LrRule.linear, 2, 0.00625), (LrRule.linear, 32, 0.1), (LrRule.linear, 128, 0.4),
        (LrRule.sqrt, 2, 0.025), (LrRule.sqrt, 32, 0.1), (LrRule.sqrt, 128, 0.2),
    ],
)  # fmt: skip
def test_the_rate_follows_the_batch_size(rule: LrRule, batch_size: int, expected: float) -> None:
    config = OptimizerConfig(OptimizerName.sgd, lr=0.1, lr_rule=rule, reference_batch=32)
    assert effective_rate(config, batch_size) == pytest.approx(expected, rel=1e-12)


# --- Optimizers


def small_network(norm: str = "gn", model: str = "simple_cnn") -> nn.Module:
    config = compose([f"norm={norm}", f"model={model}", "model.hidden=[8]"])
    network = build_model(config.model, config.norm, 8, 10, 0)
    with torch.no_grad():  # No parameter is 0, or decay would not show.
        for parameter in network.parameters():
            parameter.copy_(torch.sign(parameter + 1e-9) * (0.1 + parameter.abs()))
    return network


def step_without_gradient(network: nn.Module, config: OptimizerConfig) -> dict[str, Tensor]:
    """The factor by which one step scales each parameter when all gradients are 0."""
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = build_optimizer(network, config)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: value.detach() / before[name] for name, value in network.named_parameters()}


@pytest.mark.parametrize("kind", list(OptimizerName))
@pytest.mark.parametrize(
    ("norm", "model"), [("bn", "simple_cnn"), ("gn", "simple_cnn"), ("ln", "mlp"), ("none", "mlp")]
)
def test_weight_decay_leaves_norms_and_biases_alone(
    kind: OptimizerName, norm: str, model: str
) -> None:
    network = small_network(norm, model)
    decayed = {
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    config = OptimizerConfig(kind, lr=0.01, weight_decay=0.1)
    for name, factor in step_without_gradient(network, config).items():
        if name not in decayed:
            assert torch.equal(factor, torch.ones_like(factor)), name
        elif kind is OptimizerName.adam:  # Divides the decay by its own size.
            assert (factor < 1).all(), name
        else:
            torch.testing.assert_close(factor, torch.full_like(factor, 1 - 0.01 * 0.1))


def test_norms_and_biases_are_decayed_where_it_is_asked_for() -> None:
    config = OptimizerConfig(OptimizerName.sgd, lr=0.01, weight_decay=0.1, decay_norms=True)
    for name, factor in step_without_gradient(small_network("bn", "simple_cnn"), config).items():
        torch.testing.assert_close(factor, torch.full_like(factor, 1 - 0.01 * 0.1), msg=name)


@pytest.fixture
def own_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NormConfig]:
    """A norm whose parameters have the shape of maps, as many public ones do."""
    name = "a_norm_with_wide_parameters"
    (tmp_path / f"{name}.py").write_text(
        "import torch\n"
        "from torch import nn\n\n\n"
        "class Scale(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))\n\n"
        "    def forward(self, x):\n"
        "        return self.gamma * x\n\n\n"
        "def build(channels, dims, norm):\n"
        "    return Scale(channels)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield NormConfig(name=f"{name}:build")
    sys.modules.pop(name, None)


def test_weight_decay_leaves_a_norm_of_ones_own_alone(own_norm: NormConfig) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), build_norm(4, 4, own_norm))
    config = OptimizerConfig(OptimizerName.adamw, lr=0.01, weight_decay=0.1)
    factors = step_without_gradient(network, config)
    assert (factors["0.weight"] < 1).all()
    assert torch.equal(factors["1.gamma"], torch.ones(1, 4, 1, 1))


ADAM = ({"betas": [0.8, 0.95], "eps": 1e-6}, {"betas": (0.8, 0.95), "eps": 1e-6})
NESTEROV = {"momentum": 0.7, "nesterov": True}
# Kind, torch's class, and the settings that ours and torch's are given.
UNFUSED = {
    "adam": (OptimizerName.adam, torch.optim.Adam, *ADAM),
    "adamw": (OptimizerName.adamw, torch.optim.AdamW, *ADAM),
    "sgd": (OptimizerName.sgd, torch.optim.SGD, {"momentum": 0.7}, {"momentum": 0.7}),
    "nesterov": (OptimizerName.sgd, torch.optim.SGD, NESTEROV, NESTEROV),
    "plain sgd": (OptimizerName.sgd, torch.optim.SGD, {"momentum": 0.0}, {}),
}


@pytest.mark.parametrize("name", UNFUSED)
def test_steps_equal_those_of_torch_unfused(name: str) -> None:
    kind, torch_kind, our_keys, torch_keys = UNFUSED[name]
    config = OptimizerConfig(kind, lr=0.05, weight_decay=0.1, **our_keys)
    ours, reference = small_network(), small_network()
    exempt = [value for key, value in reference.named_parameters() if is_exempt(reference, key)]
    rest = [value for key, value in reference.named_parameters() if not is_exempt(reference, key)]
    groups = [{"params": rest, "weight_decay": 0.1}, {"params": exempt, "weight_decay": 0.0}]
    optimizers = [
        build_optimizer(ours, config),
        torch_kind(groups, lr=0.05, **torch_keys, foreach=False, fused=False),
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", UNFUSED)
def test_state_is_saved_as_torch_saves_it(name: str) -> None:
    """Two steps of ours, two of torch's from our state, one of ours from theirs: as five ours."""
    kind, torch_kind, our_keys, torch_keys = UNFUSED[name]
    config = OptimizerConfig(kind, lr=0.05, **our_keys)
    whole, parted = small_network(), small_network()
    generator = torch.Generator().manual_seed(1)
    straight = build_optimizer(whole, config)
    first, last = build_optimizer(parted, config), build_optimizer(parted, config)
    order = [{"params": list(parameters)} for parameters, *_ in first.groups]
    theirs = torch_kind(order, lr=0.05, **torch_keys, foreach=False, fused=False)
    for number, optimizer in enumerate([first, first, theirs, theirs, last]):
        if number == 2:
            theirs.load_state_dict(first.state_dict())
        if number == 4:
            last.load_state_dict(theirs.state_dict())
        for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        straight.step()
        optimizer.step()
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OptimizerName)
def test_state_saved_in_another_memory_layout_is_the_same_state(name: OptimizerName) -> None:
    config = OptimizerConfig(name, lr=0.1)
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    layers = []
    for layout in (torch.channels_last, torch.contiguous_format):
        layer = nn.Conv2d(3, 4, 3, bias=False)
        layer.weight.data = weight.clone(memory_format=layout)
        layers.append(layer)
    first, second = (build_optimizer(layer, config) for layer in layers)
    for step in range(2):
        if step == 1:
            layers[1].load_state_dict(layers[0].state_dict())
            second.load_state_dict(first.state_dict())
        for layer in layers:
            layer.weight.grad = torch.sin(layer.weight.detach() + step)
        first.step()
        if step == 1:
            second.step()
    torch.testing.assert_close(layers[1].weight, layers[0].weight)


def test_a_parameter_without_a_gradient_stays() -> None:
    network = small_network()
    optimizer = build_optimizer(network, OptimizerConfig(OptimizerName.adam, lr=0.1))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    used = next(network.parameters())
    used.grad = torch.ones_like(used)
    optimizer.step()
    moved = [
        not torch.equal(parameter, old)
        for parameter, old in zip(network.parameters(), before, strict=True)
    ]
    assert moved == [True] + [False] * (len(moved) - 1)
    optimizer.zero_grad()
    assert used.grad is None


def is_exempt(network: nn.Module, key: str) -> bool:
    layer, _, leaf = key.rpartition(".")
    return leaf == "bias" or isinstance(network.get_submodule(layer), nn.GroupNorm)
