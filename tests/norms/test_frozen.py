"""frozen_bn: BatchNorm whose statistics stand still, from the beginning or from a fraction on."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from norm_formulas import State, affine, bn
from small_runs import SMALL
from torch import Tensor, nn
from torch.autograd import gradcheck

from normexp.config.schema import NormConfig
from normexp.data import sources
from normexp.models.build import build_model
from normexp.models.fuse import fuse
from normexp.norms.factory import build_norm
from normexp.runs.composing import compose
from normexp.system.errors import UserError
from normexp.trainer.diagnostics import Diagnostics
from normexp.trainer.steps import Trainer


def drawn(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def freezing(**settings: Any) -> Any:
    """In float64, with a scale and a shift and averages of its own."""
    layer = build_norm(3, 4, NormConfig("frozen_bn", momentum=0.3, freeze_at=0.5, **settings))
    for place, value in enumerate(layer.state_dict().values()):
        value.copy_(drawn(place, *value.shape).abs() + 0.5)
    return layer.double()


@pytest.fixture(params=["on a CPU", "compiled or elsewhere"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two ways to compute it, on a CPU."""
    if request.param != "on a CPU":
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("affined", [True, False])
@pytest.mark.parametrize("dims", [2, 4])
def test_it_is_batch_norm_until_the_fraction_and_its_averages_from_there(
    dims: int, affined: bool
) -> None:
    norm = NormConfig("frozen_bn", momentum=0.3, eps=1e-3, freeze_at=0.5, affine=affined)
    layer: Any = build_norm(3, dims, norm).double()
    state: State = {key: value.numpy().copy() for key, value in layer.state_dict().items()}
    for step, fraction in enumerate((0.0, 0.25, 0.49, 0.5, 0.75, 0.99)):
        layer.at_fraction(fraction)
        x = drawn(step, *(4, 3, 5, 2)[:dims])
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        expected = affine(bn(x.numpy(), state, norm, fraction < 0.5), state)
        np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
        for key, value in layer.state_dict().items():
            np.testing.assert_allclose(value.numpy(), state[key], rtol=1e-12)
            assert fraction < 0.5 or torch.equal(value, before[key])
    x = drawn(9, *(1, 3, 5, 2)[:dims])
    expected = affine(bn(x.numpy(), state, norm, False), state)
    np.testing.assert_allclose(layer.eval()(x).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fraction", [0.2, 0.8])
def test_gradients_are_slopes_before_and_after(fraction: float) -> None:
    layer = freezing()
    layer.at_fraction(fraction)
    state = {key: value.clone() for key, value in layer.named_buffers()}

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = {"weight": weight, "bias": bias, **{k: v.clone() for k, v in state.items()}}
        return torch.func.functional_call(layer, values, x)

    own = [layer.get_parameter(key).detach().requires_grad_() for key in ("weight", "bias")]
    assert gradcheck(call, (drawn(1, 3, 3, 2, 2).requires_grad_(), *own))


def test_training_that_goes_on_from_before_the_fraction_moves_them_again() -> None:
    layer = freezing()
    layer.at_fraction(0.9)
    layer.at_fraction(0.1)
    before = layer.running_mean.clone()
    layer(drawn(1, 4, 3, 2, 2))
    assert not torch.equal(layer.running_mean, before)


def test_it_takes_the_weights_of_a_batch_norm() -> None:
    trained = nn.BatchNorm2d(3)
    trained(drawn(1, 4, 3, 5, 5).float())
    nn.init.uniform_(trained.weight)
    layer = build_norm(3, 4, NormConfig("frozen_bn"))
    layer.load_state_dict(trained.state_dict())
    x = drawn(2, 1, 3, 5, 5).float()
    for training in (True, False):
        torch.testing.assert_close(layer.train(training)(x), trained.eval()(x))
    assert torch.equal(layer.get_buffer("running_mean"), trained.get_buffer("running_mean"))
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "weight"]


def test_networks_trained_together_freeze_together_with_each_of_them() -> None:
    config = compose([*SMALL, "norm=frozen_bn", "norm.freeze_at=0.5"])
    own = [build_model(config.model, config.norm, 8, 10, seed) for seed in range(2)]
    whole = fuse(own)
    for layer in whole.modules():
        if hasattr(layer, "at_fraction"):
            layer.at_fraction(0.5)
    before = {name: value.clone() for name, value in whole.named_buffers()}
    images = drawn(1, 4, 6, 8, 8).float()
    outputs = whole(images).view(4, 2, 10)
    for place, network in enumerate(own):
        alone = network(images[:, 3 * place : 3 * place + 3])
        torch.testing.assert_close(alone, outputs[:, place], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in whole.named_buffers())


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_training_freezes_at_the_fraction_and_diagnostics_see_it(seeds: list[int]) -> None:
    config = compose([
        *SMALL, "norm=frozen_bn", "norm.freeze_at=0.5", "epochs=null", "max_steps=8",
    ])  # fmt: skip
    trainer = Trainer(config, seeds, sources.load(config.data, progress=False), torch.device("cpu"))
    plan = trainer.batches.plan(0)
    probe = Diagnostics(*trainer.probe(), lr=0.01)
    averages, gaps = [], []
    for step in range(8):
        trainer.interval(plan, step, step + 1, step, False, lambda: False, lambda steps: None)
        network = trainer.members[-1].network
        averages.append(torch.cat([one.flatten() for one in network.buffers()]).clone())
        found = {one.quantity: one.value for one in probe.measure(network) if not one.layer}
        gaps.append(abs(found["train_eval_gap"]))
        assert torch.equal(torch.cat([one.flatten() for one in network.buffers()]), averages[-1])
    moved = [not torch.equal(*pair) for pair in itertools.pairwise(averages)]
    # Steps 0 to 3 are in the first half. (Step 4 tells the layers that they are frozen.)
    assert moved == [True, True, True, True, False, False, False]
    assert min(gaps[:4]) > 1e-4
    assert max(gaps[4:]) < 1e-6


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(UserError, match=r"^norm=frozen_bn: .*norm\.freeze_at=0\.5 .*pretrained"):
        compose(["norm=frozen_bn"])
    with pytest.raises(UserError, match=r"norm\.freeze_at=1\.0: must be greater than 0 and less"):
        compose(["norm=frozen_bn", "norm.freeze_at=1"])
    with pytest.raises(UserError, match=r" at norm1 .*batch_size=1 .*one value .*use batch_size=2"):
        compose(["norm=frozen_bn", "norm.freeze_at=0.5", "model=mlp", "batch_size=1"])
    with_weights = ("model=resnet18", "model.stem=imagenet", "model.pretrained=true")
    config = compose(["norm=frozen_bn", *with_weights, "batch_size=1", "norm.momentum=0.5"])
    assert config.norm.momentum == NormConfig.momentum  # what never moves does not read it
