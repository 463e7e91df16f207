"""Fine-tuning: the head is what takes its size from the number of classes; it may learn faster than
the rest, or alone."""

from pathlib import Path

import pytest
import torch
from small_runs import SMALL
from torch import nn

from normexp.config.schema import ModelConfig, NormConfig
from normexp.models import named
from normexp.models.build import build_model
from normexp.models.head import head
from normexp.runs import one_run, training
from normexp.runs.composing import compose
from normexp.system.errors import UserError
from normexp.trainer.optimization import build_optimizer

OWN = """\
from torch import nn


class Upside(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(4, classes)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def fixed(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upside_down.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("simple_cnn", {"classifier.weight", "classifier.bias"}),
        ("mlp", {"classifier.weight", "classifier.bias"}),
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("torchvision:mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
        ("torchvision:squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("upside_down:Upside", {"head.weight", "head.bias"}),
    ],
)
def test_the_head_is_what_follows_the_number_of_classes(model: str, names: set[str]) -> None:
    config = compose([f"model={model}", "norm=keep" if ":" in model else "norm=bn"])
    network = build_model(config.model, config.norm, 32, 10, 0)
    assert head(network, config.model, 32, 10) == names


def test_a_network_without_a_head_is_refused() -> None:
    config = compose(["model=upside_down:fixed", "norm=keep"])
    network = build_model(config.model, config.norm, 8, 10, 0)
    with pytest.raises(UserError, match="takes its size from the number of classes; leave"):
        head(network, config.model, 8, 10)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    model: dict[str, torch.Tensor] = state["model"]
    return model


@pytest.mark.parametrize("fuse", [1, 2])
def test_a_frozen_backbone_stays_and_its_statistics_go_on(tmp_path: Path, fuse: int) -> None:
    config = compose([
        *SMALL, f"output={tmp_path}", "model=upside_down:Upside", "norm=bn", "max_steps=5",
        "model.freeze=backbone", "seeds=2", f"fuse={fuse}", "grad_clip=1",
    ])  # fmt: skip
    jobs = one_run.jobs_of(config)
    results = training.run(jobs, [])
    assert [(one["status"], one["fused"]) for one in results] == [("completed", fuse)] * 2
    for own_config, directory in jobs:
        seed = own_config.seed
        begun = build_model(config.model, config.norm, 8, 10, stream(seed)).state_dict()
        ended = weights(directory.path)
        moved = {name for name, value in ended.items() if not torch.equal(value, begun[name])}
        assert moved == {
            "head.weight", "head.bias", "stem.1.running_mean", "stem.1.running_var",
            "stem.1.num_batches_tracked",
        }  # fmt: skip


def stream(seed: int) -> int:
    from normexp.system.seeds import stream_seed

    return stream_seed(seed, "weights")


def test_the_head_learns_faster_by_its_factor() -> None:
    """A step of plain SGD is the rate times the gradient."""
    config = compose(["model=simple_cnn", "norm=none", "optimizer=sgd", "optimizer.momentum=0"])
    config.optimizer.lr, config.optimizer.head_lr_factor = 0.5, 8.0
    network = build_model(config.model, config.norm, 32, 10, 0)
    before = {name: one.detach().clone() for name, one in network.named_parameters()}
    names = head(network, config.model, 32, 10)
    optimizer = build_optimizer(network, config.optimizer, names)
    for one in network.parameters():
        one.grad = torch.ones_like(one)
    optimizer.step()
    for name, one in network.named_parameters():
        moved = 4.0 if name.startswith("classifier") else 0.5
        torch.testing.assert_close(one.detach(), before[name] - moved)
    rates = {group["lr"] for group in optimizer.state_dict()["param_groups"]}
    assert rates == {0.5, 4.0}


def test_both_are_part_of_a_runs_name_and_their_defaults_are_not(tmp_path: Path) -> None:
    def run_id(*settings: str) -> str:
        config = compose([*SMALL, f"output={tmp_path}", *settings])
        return one_run.jobs_of(config)[0][1].run_id

    plain = run_id()
    assert run_id("model.freeze=none", "optimizer.head_lr_factor=1") == plain
    assert len({plain, run_id("model.freeze=backbone"), run_id("optimizer.head_lr_factor=2")}) == 3


def test_what_pretrained_weights_were_trained_with_is_said() -> None:
    """The figures are those of the published weights' documentation."""
    config = compose(["model=torchvision:resnet18", "norm=keep", "model.pretrained=true"])
    (said,) = named.unlike(config.model, config.data)
    assert "data.image_size=224 (yours are 32)" in said
    assert "'data.mean=[0.485,0.456,0.406]' 'data.std=[0.229,0.224,0.225]'" in said
    config = compose([
        "model=torchvision:inception_v3", "norm=keep", "model.pretrained=true", "data=digits",
        "data.image_size=299", "data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]",
    ])  # fmt: skip
    assert named.unlike(config.model, config.data) == []
    pytest.importorskip("timm")
    model = ModelConfig(name="timm:vit_tiny_patch16_224", pretrained=True)
    expected = named.expected(model)
    assert expected is not None
    assert (expected.size, expected.mean) == (224, (0.5, 0.5, 0.5))


def test_images_are_normalized_as_asked() -> None:
    from normexp.data import sources

    config = compose([*SMALL, "data.mean=[0.1,0.2,0.3]", "data.std=[0.4,0.5,0.6]"])
    found = sources.load(config.data)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for wrong in (["data.mean=[0,0,0]"], ["data.std=[1,1,1]"],
                  ["data.mean=[0,0,0]", "data.std=[1,1,1]", "data.normalize=false"]):  # fmt: skip
        with pytest.raises(UserError, match="give mean and std together"):
            compose([*SMALL, *wrong])


def test_norms_of_a_swapped_network_are_frozen_with_the_backbone() -> None:
    from normexp.models.head import freeze

    config = compose(["model=torchvision:resnet18", "norm=gn", "model.freeze=backbone"])
    network = build_model(config.model, NormConfig(name="gn", num_groups=8), 32, 10, 0)
    freeze(network, config.model, {"fc.weight", "fc.bias"})
    trained = {name for name, one in network.named_parameters() if one.requires_grad}
    assert trained == {"fc.weight", "fc.bias"}
    assert isinstance(network.get_submodule("bn1"), nn.GroupNorm)
