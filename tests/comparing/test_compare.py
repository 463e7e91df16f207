"""A comparison from its command to its answer: tiny, and gone on with where it was stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_commands import call

TINY = (
    *("data=synthetic", "data.train_images=80", "data.test_images=40", "data.image_size=8"),
    *(
        "model.channels=[4]",
        "model.pool_after=[1]",
        "batch_size=8",
        "max_steps=4",
        "looks=[6,8]",
        "tune.rates=2",
    ),
    *("device=cpu", "threads=1", "fuse=8", "log.tensorboard=false", "log.progress=false"),
)
OWN = """\
from torch import nn


def twin(channels, dims, norm):
    return nn.GroupNorm(4, channels, eps=norm.eps)
"""


FAILS = """\
from torch import nn


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("on purpose")


def build(channels, dims, norm):
    return Fails()
"""


def plan(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outputs/compare/plan.json").read_text())
    return found


def test_a_norm_and_its_twin_and_the_same_command_again(tmp_path: Path) -> None:
    """An own norm that is GroupNorm by another name: equal, seed by seed."""
    (tmp_path / "mine.py").write_text(OWN)
    command = ("normexp.compare", *TINY, "norm=gn,mine:twin")
    first = call(*command, folder=tmp_path)
    assert "best of" in first.stdout
    found = plan(tmp_path)
    comparison = found["comparison"]
    assert found["reference"] == "norm=gn"
    (last,) = comparison["history"][-1]
    assert last["verdict"] in ("same", "undecided")
    assert last["difference"] == 0
    assert set(comparison["rates"]) == {"norm=gn", "norm=mine:twin"}
    # Seeds that chose the rates are none of those that report.
    tuned = json.loads((tmp_path / "outputs/compare-tuning/plan.json").read_text())
    assert {seed for cell in tuned["cells"] for seed in cell["runs"]} == {"1000", "1001"}
    assert {seed for cell in found["cells"] for seed in cell["runs"]} <= set("01234567")
    answer = json.loads((tmp_path / "outputs/compare/report/answer.json").read_text())
    assert answer["conditions"][0]["variants"][0]["verdict"] == "reference"
    assert (tmp_path / "outputs/compare/report/index.html").exists()
    again = call(*command, folder=tmp_path)
    assert "going on with the comparison" in again.stdout
    assert plan(tmp_path)["comparison"]["history"] == comparison["history"]
    other = call(*command, "margin=2", folder=tmp_path, status=2)
    assert "other margin" in other.stderr
    assert other.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["norm=gn"], "nothing to compare"),
        (["norm=gn,bn", "reference=norm=ln"], "is not compared"),
        (["norm=gn,bn", "optimizer.lr=0.1,0.01"], "tune=false"),
        (["norm=gn,fails:build"], "norm=fails:build: cannot take a step: RuntimeError: on purpose"),
        (["norm=gn,in", "model=mlp"], "norm=in"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    settings: list[str], named: str, tmp_path: Path
) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    refused = call("normexp.compare", "data=digits", *settings, folder=tmp_path, status=2)
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert not (tmp_path / "outputs/compare").exists()
