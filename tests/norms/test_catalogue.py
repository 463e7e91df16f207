"""The catalogue's facts against the layers, its command, and every norm in every model."""

import dataclasses
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from normexp.config.schema import Config, NormConfig
from normexp.data import sources
from normexp.data.sources import Dataset
from normexp.models.build import build_model, count_parameters
from normexp.norms import catalogue
from normexp.norms.__main__ import main
from normexp.norms.catalogue import BUILT_IN, CATALOGUE, FILES, Facts
from normexp.norms.factory import build_norm
from normexp.norms.rules import Site, settle
from normexp.norms.rules import check as check_norm
from normexp.runs.composing import check, compose
from normexp.system.errors import UserError
from normexp.trainer.steps import Trainer

CONF = Path(__file__).parents[2] / "conf" / "norm"


def test_every_norm_is_in_the_catalogue_and_conf() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {*CATALOGUE, "keep"}
    room = Path(catalogue.__file__).parent
    with_facts = {path.stem for path in room.glob("*.py") if "\n@Facts(" in path.read_text("utf-8")}
    assert set(FILES) == with_facts


@pytest.mark.parametrize("file", FILES)
def test_facts_are_read_as_python_reads_them(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts are taken from the text of a file; running it makes the same."""
    made: list[Facts] = []
    monkeypatch.setattr(Facts, "__call__", lambda facts, builder: made.append(facts) or builder)
    runpy.run_path(str(Path(catalogue.__file__).with_name(f"{file}.py")))
    assert made
    assert all(CATALOGUE[facts.name] == facts for facts in made)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_yaml_of_a_norm_has_the_defaults_of_the_schema(name: str) -> None:
    merged = OmegaConf.merge(
        OmegaConf.structured(NormConfig), OmegaConf.load(CONF / f"{name}.yaml")
    )
    assert OmegaConf.to_object(merged) == NormConfig(name)


def count(formula: str, **values: int) -> int:
    """What a formula such as `2C + 6` or `N·G` comes to."""
    written = re.sub(r"(?<=[0-9])(?=[A-Z])", "*", formula).replace("·", "*")
    return int(eval(written, {}, values))


def test_statistics_counted_as_in_a_tutorial() -> None:
    # Five images of ten channels, two groups; and BN of a hundred channels.
    sizes = {"N": 5, "C": 10, "G": 2, "H": 4, "W": 3, "g": 1}
    found = {name: count(entry.keeps, **sizes) for name, entry in CATALOGUE.items()}
    assert (found["in"], found["ln"], found["gn"]) == (50, 5, 10)
    assert count(CATALOGUE["bn"].keeps, C=100) == 100
    assert (found["ln2d"], found["ghost_bn"], found["switchable"]) == (60, 50, 65)


ON_CPU = [name for name in BUILT_IN if name != "syncbn"]
INPUTS = [
    (name, dims)
    for name in ON_CPU
    for dims in (4, 2)
    if CATALOGUE[name].vectors is not None or dims == 4
]


def drawn(*shape: int) -> torch.Tensor:
    return 1 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("name", "dims"), INPUTS)
def test_facts_are_those_of_the_layers(name: str, dims: int) -> None:
    entry, layer = CATALOGUE[name], build_norm(8, dims, NormConfig(name))
    assert count_parameters(layer) == count(entry.parameters, C=8)
    assert getattr(layer, "contains_activation", False) is entry.contains_activation

    x = drawn(*(4, 8, 3, 3)[:dims])
    # The norm of a mixture that begins as BN alone is to show its other half as well.
    for key, parameter in layer.named_parameters():
        if key == "rho":
            torch.nn.init.constant_(parameter, 0.5)
    first = layer(x)[0]
    changed = torch.cat([x[:1], 10 - 3 * x[1:]])
    uses_batch = not torch.allclose(layer(changed)[0], first, atol=1e-5)
    assert uses_batch is entry.uses_batch
    differs = not torch.allclose(layer.eval()(x)[0], first, atol=1e-5)
    assert differs is entry.train_differs


def test_norms_that_are_undefined_on_vectors_are_refused() -> None:
    undefined = [name for name, entry in CATALOGUE.items() if entry.vectors is None]
    assert undefined == ["in", "frn", "evonorm_b0", "switchable", "batch_instance"]
    for name in undefined:
        with pytest.raises(UserError, match=rf"^norm={name}: .*positions.*; use norm=ln"):
            build_norm(8, 2, NormConfig(name))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_norm_reads_the_settings_that_the_catalogue_names(name: str) -> None:
    read = set()

    class Recording(NormConfig):
        def __getattribute__(self, key: str) -> Any:
            read.add(key)
            return super().__getattribute__(key)

    norm = Recording(name)
    read.clear()
    build_norm(8, 4, norm)
    assert read & {item.name for item in dataclasses.fields(NormConfig)} - {"name"} == set(
        CATALOGUE[name].settings
    )


TOKENS = ["none", "ln", "rms", "dyt", "derf"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_tokens_are_refused_or_normalized_one_by_one(name: str) -> None:
    sites = [Site("first", 8, 16), Site("blocks.0.norm1", 8, 5, tokens=True)]
    norm = NormConfig(name, freeze_at=0.5 if name == "frozen_bn" else None)
    if name not in TOKENS:
        sites[0] = Site("first", 8, 16)
        with pytest.raises(
            UserError, match=r"^norm=\w+ at blocks.0.norm1: .*tokens.*; use norm=\w"
        ):
            check_norm(norm, sites, 2)
        with pytest.raises(
            UserError, match=r"^norm=\w+: .*tokens.*use norm=none, ln, rms, dyt or derf"
        ):
            build_norm(8, 3, norm)
        return
    check_norm(norm, sites, 1)
    layer, same = build_norm(8, 3, norm), build_norm(8, 2, norm)
    tokens = drawn(2, 5, 8)
    found = layer(tokens)
    assert found.is_contiguous()
    for image, expected in zip(tokens, found, strict=True):
        torch.testing.assert_close(same(image), expected)
    assert count_parameters(layer) == count_parameters(same)


MODELS = {
    "simple_cnn": [],
    "deep_cnn": ["model.channels=[8,16,16]", "model.pool_after=[1,2]", "model.hidden=[8]"],
    "mlp": [],
}
NEEDS_POSITIONS = {"in", "frn", "evonorm_b0", "switchable", "batch_instance"}
NEEDS_TWO_IMAGES = {"bn", "syncbn", "ghost_bn", "batch_renorm", "frozen_bn"}
"""Where there are no positions to average over."""


@cache
def model_of(name: str) -> Config:
    return compose([
        f"model={name}", *MODELS[name], "data=synthetic", "data.image_size=8",
        "data.train_images=64", "data.test_images=8", "device=cpu", "log.tensorboard=false",
    ])  # fmt: skip


@cache
def some_images() -> Dataset:
    return sources.load(model_of("mlp").data, progress=False)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_norm_trains_or_is_refused_with_a_fix(name: str, model: str) -> None:
    for batch_size in (1, 2, 3, 32):
        for settings in ({}, {"affine": False}, {"weight_standardization": True}):
            norm = NormConfig(name, **settings)
            norm.freeze_at = 0.5 if name == "frozen_bn" else None
            config = dataclasses.replace(model_of(model), norm=norm, batch_size=batch_size)
            settle(norm)
            refused = (
                (model == "mlp" and name in NEEDS_POSITIONS)
                or (model == "mlp" and name in NEEDS_TWO_IMAGES and batch_size == 1)
                or ("weight_standardization" in settings and (model == "mlp" or name == "none"))
            )  # fmt: skip
            if refused:
                with pytest.raises(UserError, match=r"^norm\S*=.*(; |, or )(use|leave) \S+"):
                    check(config)
                continue
            check(config)
            if name == "syncbn":  # torch has it on CUDA only.
                build_model(config.model, norm, 8, 10, 0)
                continue
            trainer = Trainer(config, [0], some_images(), torch.device("cpu"))
            plan = trainer.batches.plan(0)
            part = trainer.interval(plan, 0, 1, 0, False, lambda: False, lambda steps: None)
            assert all(map(torch.isfinite, map(torch.tensor, part.losses)))
            values = [*trainer.network.parameters(), *trainer.network.buffers()]
            assert all(bool(torch.isfinite(value).all()) for value in values)
            assert all(value.grad is not None for value in trainer.network.parameters())
            trainer.network.eval()
            assert torch.isfinite(trainer.network(drawn(1, 3, 8, 8))).all()


def test_the_command_shows_all_norms_on_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [re.split(r"  +", line) for line in lines]
    end = len(CATALOGUE) + 1
    assert [row[0] for row in cells[1:end]] == [*CATALOGUE]
    assert ["gn", "Wu & He 2018", "CNNs with small batches, as in detection"] in cells[:end]
    assert [row[0] for row in cells[end + 2 : 2 * end + 1]] == [*CATALOGUE]
    assert ["gn", "C/G,H,W", "C/G", "N·G", "2C", "no"] in cells[end:]
    assert any(line.startswith("norm.weight_standardization=true") for line in lines)


REFUSED = {
    **dict.fromkeys(["none", "dyt", "derf"], "-"),
    **dict.fromkeys(["bn", "batch_renorm"], "one value a channel (an MLP at batch_size=1)"),
    "syncbn": "CPUs; one value a channel (an MLP at batch_size=1)",
    "ghost_bn": "batch_size no multiple of g; one value a channel (an MLP at batch_size=1)",
    "ln": "one value an image", **dict.fromkeys(["ln2d", "rms"], "1 channel"),
    **dict.fromkeys(["gn", "evonorm_s0"], "groups that do not divide C, or hold one value"),
    **dict.fromkeys(
        ["in", "frn", "evonorm_b0", "switchable", "batch_instance"], "an MLP; maps of 1x1"
    ),
    "frozen_bn": "no pretrained weights and no norm.freeze_at",
}  # fmt: skip


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_command_shows_one_norm(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([name])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(" ".join(lines).split())
    entry = CATALOGUE[name]
    facts = [entry.formula, entry.paper, entry.when, entry.refused, f"refused {REFUSED[name]}"]
    facts += [f"norm.{key}" for key in entry.settings]
    assert [fact for fact in facts if " ".join(fact.split()) not in shown] == []


def test_the_command_answers_without_torch_and_in_one_line() -> None:
    code = (
        "import sys\nfrom normexp.norms.__main__ import main\nmain(['gn'])\n"
        "assert 'torch' not in sys.modules\nmain(['gnn'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("norm        gn: GroupNorm")
    assert len(done.stderr.splitlines()) == 1
    assert "gnn: no such norm; did you mean gn?" in done.stderr
