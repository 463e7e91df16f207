"""What tells runs of one configuration apart, images and the file of an own norm: it is recorded,
and looked at when a finished run is used."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from small_runs import SMALL

from normexp.data import image_folder
from normexp.data.sources import fingerprint
from normexp.entry import compose
from normexp.one_run import train_unless_done

SOURCE = "from torch import nn\ndef build(channels, dims, norm): return nn.Identity()\n"


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
    assert comments == {key: found[key] for key in ("data_fingerprint", "norm_source", "ranks")}
