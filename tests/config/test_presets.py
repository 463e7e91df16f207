"""The presets of conf/experiment: each of their runs can work, and is what it reproduces."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from small_runs import SMALL, run
from test_commands import call, results

from normexp.config.checks import seeds_of
from normexp.config.schema import conf_dir, get
from normexp.data import image_folder
from normexp.data.sources import fingerprint
from normexp.models.build import build_model
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import BesideConfig, run_id
from normexp.system.errors import UserError

PRESETS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    return found


def swept(name: str) -> list[list[str]]:
    """The settings of each key that a preset sweeps."""
    keys = read(name).get("hydra", {}).get("sweeper", {}).get("params", {})
    return [[f"{key}={value}" for value in str(given).split(",")] for key, given in keys.items()]


@pytest.mark.parametrize("name", PRESETS)
def test_the_runs_of_a_preset_can_work(name: str) -> None:
    """Some of them, such that every value of its sweep is among them."""
    keys = swept(name)
    for place in range(max(map(len, keys), default=1)):
        settings = [values[place % len(values)] for values in keys]
        config = compose([f"experiment={name}", *settings])
        build_model(config.model, config.norm, 32, 10, 0)


@pytest.mark.parametrize("name", [name for name in PRESETS if "published" in read(name)])
def test_every_published_figure_is_about_some_run(name: str) -> None:
    cells = [set(settings) for settings in itertools.product(*swept(name))]
    for figure in read(name)["published"]:
        about = {f"{key}={value}" for key, value in figure["where"].items()}
        assert any(about <= cell for cell in cells), about


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("gn_cnn", [], {"model.channels": [16, 16], "norm.num_groups": 4, "epochs": 10}),
        ("four_norms", ["norm=gn"], {"model.pool_after": [2], "norm.num_groups": [4, 8]}),
        ("four_norms_mlp", [], {"model.hidden": [50], "norm.name": "ln"}),
        ("deep_cnn_bn_vs_none", [], {"model.channels": [64, 128, 256], "data.val_fraction": 0.2}),
        ("gn_batch_size_curve", ["batch_size=2"], {"seeds": 6, "optimizer.reference_batch": 32}),
        ("bn_gn_cnn64", ["norm=gn"], {"model.norm_from": 2, "norm.num_groups": 4, "seeds": 5}),
        ("resnet20_bn", [], {"norm.name": "bn", "optimizer.decay_norms": True, "epochs": 200}),
        ("fruits_resnet18", ["norm=gn"], {"norm.name": "gn", "data.train_folder": "Training"}),
        ("study", ["batch_size=2"], {"seeds": 8, "epochs": 2, "batch_size": 2}),
    ],
)
def test_settings_of_presets(name: str, settings: list[str], expected: dict[str, Any]) -> None:
    config = compose([f"experiment={name}", *settings])
    assert {key: get(config, key) for key in expected} == expected


@pytest.fixture
def fruits(tmp_path: Path) -> Path:
    """Images in three colours, laid out as Fruits-360."""
    generator = np.random.default_rng(0)
    for (part, count), (label, name) in itertools.product(
        (("Training", 8), ("Test", 2)), enumerate(("Apple 1", "Banana", "Cherry"))
    ):
        folder = tmp_path / "fruits" / part / name
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 128, (40, 40, 3), dtype=np.uint8)
            pixels[:, :, label] += 127
            Image.fromarray(pixels).save(folder / f"{index}_100.jpg")
    return tmp_path / "fruits"


def test_a_fruit_classifier_is_trained_to_its_end(
    fruits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_known_fingerprints", {})
    config = compose([
        "experiment=fruits_resnet18", "norm=gn", f"data.root={fruits}", "data.image_size=32",
        f"data.cache={tmp_path / 'cache'}", f"output={tmp_path}", "epochs=2", "batch_size=6",
        "device=cpu", "threads=1", "data.val_fraction=0.25", "log.tensorboard=false",
    ])  # fmt: skip
    directory = RunDirectory(config, run_id(config, BesideConfig(fingerprint(config.data))))
    result = run(config, directory)
    assert result["status"] == "completed"
    assert (result["steps"], result["epochs"]) == (6, 2)
    assert json.loads((directory.path / "result.json").read_text())["test_acc"] is not None


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("mlp_bn_vs_none", "seeds=2", [0, 1]),  # the preset has seed=42
        ("mlp_bn_vs_none", "seeds=null", [42]),
        ("study", "seed=1", [1]),  # the preset has seeds=8
        ("gn_group_number", "seed=0", [0]),
        ("gn_group_number", "seeds=null", [0]),
        ("gn_group_number", "seeds=null seed=3", [3]),
    ],
)
def test_a_seed_or_seeds_takes_the_place_of_what_a_preset_has(
    name: str, given: str, expected: list[int]
) -> None:
    assert seeds_of(compose([f"experiment={name}", *given.split()])) == expected


def test_the_runs_of_a_presets_sweep_have_the_seed_that_is_asked_for(tmp_path: Path) -> None:
    call(
        "normexp.train", "experiment=gn_group_number", "norm.num_groups=8,4", "seed=3", *SMALL,
        "max_steps=1", folder=tmp_path,
    )  # fmt: skip
    found = results(tmp_path)
    assert [(one["norm"], one["seed"]) for one in found] == [("gn", 3), ("gn", 3)]


def test_a_seed_and_seeds_are_refused_together() -> None:
    with pytest.raises(UserError, match="seed and seeds: give one of them"):
        compose(["seed=3", "seeds=2"])
