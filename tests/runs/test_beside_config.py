"""What tells runs of one configuration apart, images and the file of an own norm: it is recorded,
and looked at when a finished run is used."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from small_runs import SMALL

from normexp import evaluate, export, predict
from normexp.data import image_folder
from normexp.data.sources import fingerprint
from normexp.finished import finished_run
from normexp.runs.composing import compose
from normexp.runs.one_run import train_unless_done
from normexp.system.errors import UserError

SOURCE = "from torch import nn\ndef build(channels, dims, norm): return nn.Identity()\n"

BESIDE = ("data_fingerprint", "norm_source", "ranks", "model_source")


@dataclass
class Own:
    """A finished run on a folder of images with a norm of one's own."""

    norm: Path
    images: Path
    path: Path
    result: dict[str, Any]


def paint(images: Path, first: int) -> None:
    """Four images of each of two classes to train on and to test with, of seeds from ``first``."""
    for number in range(16):
        pixels = np.random.default_rng(first + number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        folder = images / ("train", "test")[number % 2] / "ab"[number // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.setattr(image_folder, "_known_fingerprints", {})
    monkeypatch.setenv("NORMEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "norm_that_is_edited", raising=False)
    norm, images = tmp_path / "norm_that_is_edited.py", tmp_path / "images"
    norm.write_text(SOURCE)
    paint(images, 0)
    config = compose([
        *SMALL, "norm.name=norm_that_is_edited:build", "data=image_folder", f"data.root={images}",
        "batch_size=2", "max_steps=2", "data.val_fraction=0", f"output={tmp_path}",
    ])  # fmt: skip
    (answer,) = train_unless_done(OmegaConf.structured(config))
    path = tmp_path / "default" / answer.result["run_id"]
    assert answer.result["data_fingerprint"] == fingerprint(config.data)
    return Own(norm, images, path, answer.result)


def test_the_images_and_the_file_of_a_norm_are_recorded(own: Own) -> None:
    found = json.loads((own.path / "result.json").read_text())
    assert found == own.result
    assert found["norm_source"] == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert len(found["data_fingerprint"]) == 64
    assert found["ranks"] == 1
    # A run under way has its configuration only.
    lines = (own.path / "config.yaml").read_text().splitlines()
    comments = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith("# ")))
    assert comments == {key: found[key] for key in BESIDE}


@pytest.mark.parametrize("command", [evaluate, predict, export])
def test_a_norm_that_was_edited_after_training_is_not_used(
    own: Own, command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    own.norm.write_text(SOURCE.replace("Identity()", "Softmax(1)"))
    more = {evaluate: [], predict: [str(own.images)], export: ["--format", "pt2"]}[command]
    with pytest.raises(SystemExit) as left:
        command.main([str(own.path), *more])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(own.norm) in line
    assert "put that back, or train again" in line
    assert not (own.path / "evaluation").exists()
    own.norm.write_text(SOURCE)
    finished_run.load(own.path)


def test_other_images_in_the_folder_of_the_run_are_noted(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def notes(*settings: str) -> list[str]:
        evaluate.main([str(own.path), *settings])
        found = json.loads((own.path / "evaluation" / "evaluation.json").read_text())
        code, *said = capsys.readouterr().err.splitlines()
        assert code.endswith(f"its norm norm_that_is_edited:build is the code of {own.norm}")
        assert said == [f"note: {own.path}: {note}" for note in found["notes"]]
        return said

    assert notes() == []
    moved = own.images.rename(tmp_path / "moved")
    paint(own.images, 100)
    assert "are not those it was trained with" in "".join(notes())
    # Who names other images knows that they are others.
    paint(moved, 200)
    assert notes(f"data.root={moved}") == []


def test_code_that_a_run_says_nothing_of_is_used_where_a_person_asks_for_it(own: Own) -> None:
    """As those of before this was kept."""
    best = own.path / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    del state["beside_config"]
    torch.save(state, best)
    own.norm.write_text(f"{SOURCE}\n")
    sys.modules.pop("norm_that_is_edited")
    with pytest.raises(UserError, match="ask for it: --norm norm_that_is_edited:build"):
        finished_run.load(own.path)
    assert "norm_that_is_edited" not in sys.modules
    loaded = finished_run.load(own.path, norm="norm_that_is_edited:build")
    assert loaded.data_fingerprint == ""
