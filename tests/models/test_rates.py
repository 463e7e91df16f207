"""``rates=[...]``: every learning rate with every seed is a run of its own, trained as one network
with the others, and the run that it is alone."""

import math
from pathlib import Path

import pytest
import torch
from fused_runs import after, alone, assert_same_run, jobs, together
from small_runs import SMALL
from torch import nn

from normexp.config.schema import OptimizerConfig, OptimizerName
from normexp.data import sources
from normexp.runs import one_run, plan, recording
from normexp.runs.composing import compose
from normexp.runs.seed_run import SeedRun
from normexp.runs.training import run as run_all
from normexp.system.errors import UserError
from normexp.trainer.evaluation import Stopped
from normexp.trainer.optimizer import Group, Optimizer

RATES = (0.03, 0.001, 0.01)


@pytest.mark.parametrize(
    "settings",
    [
        ("norm=bn", "model=simple_cnn", "model.bias=false", "grad_clip=0.5"),
        ("norm=gn", "model=mlp", "optimizer=sgd", "scheduler=cosine", "optimizer.weight_decay=0.1"),
        ("norm=ln", "optimizer=adamw", "optimizer.lr_rule=linear", "optimizer.head_lr_factor=3"),
    ],
)
def test_each_rate_is_the_run_it_is_alone(tmp_path: Path, settings: tuple[str, ...]) -> None:
    found = together(
        *settings, "seeds=[2,0]", f"rates=[{','.join(map(str, RATES))}]", "fuse=6",
        output=tmp_path / "together",
    )  # fmt: skip
    asked = [(rate, seed) for rate in RATES for seed in (2, 0)]
    for (rate, seed), (directory, result) in zip(asked, found, strict=True):
        single, expected = alone(
            *settings, f"seed={seed}", f"optimizer.lr={rate}", output=tmp_path / "alone"
        )
        assert directory.run_id == single.run_id
        assert_same_run(directory, single)
        assert (result["fused"], expected["fused"]) == (6, 1)
        for name in ("status", "seed", "steps", "lr"):
            assert result[name] == expected[name]
    # Members of one seed began alike, and each rate led elsewhere.
    assert len({result["train_loss"] for _, result in found}) == 6


def test_a_rate_that_diverges_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    sgd = ("norm=none", "optimizer=sgd")
    found = together(*sgd, "rates=[1e12,0.01]", "seeds=2", "fuse=4", output=tmp_path / "together")
    assert [one["status"] for _, one in found] == ["diverged"] * 2 + ["completed"] * 2
    for seed in (0, 1):
        single, _ = alone(*sgd, f"seed={seed}", "optimizer.lr=0.01", output=tmp_path / "alone")
        assert_same_run(found[2 + seed][0], single)


def test_stopped_rates_go_on_bit_for_bit(tmp_path: Path) -> None:
    settings = ("norm=bn", "seeds=2", "rates=[0.01,0.001]", "fuse=4")
    whole = together(*settings, output=tmp_path / "whole")
    asked = jobs(tmp_path / "broken", *settings)
    runs = [SeedRun(config, directory) for config, directory in asked]
    for one in runs:
        one.directory.create()
        one.find_state(torch.device("cpu"))
    with pytest.raises(Stopped):
        recording.train_and_record(
            runs, sources.load(asked[0][0].data), torch.device("cpu"), after(39)
        )
    results = run_all(asked, [])
    assert [one["fused"] for one in results] == [4] * 4
    for (_, directory), (expected, _) in zip(asked, whole, strict=True):
        own, their = (
            torch.load(one.last, weights_only=True)["model"] for one in (directory, expected)
        )
        assert all(torch.equal(own[name], their[name]) for name in their)


@pytest.mark.parametrize("name", OptimizerName)
def test_a_step_moves_each_part_by_its_own_rate(name: OptimizerName) -> None:
    """Beside torch.optim's optimizers, one for each network."""
    config = OptimizerConfig(name, lr=1.0)
    rates = [0.1, 0.1, 0.02, 0.5]
    whole = nn.Parameter(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    singles = [nn.Parameter(part.clone()) for part in whole.detach().chunk(4)]
    ours = Optimizer([Group([whole], 0.0)], config)
    ours.rates = rates
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    keys = {"momentum": 0.9} if name is OptimizerName.sgd else {}
    if name is OptimizerName.adamw:
        keys["weight_decay"] = 0.0
    theirs = [
        kinds[name.value]([single], lr=rate, **keys)  # type: ignore[arg-type]
        for single, rate in zip(singles, rates, strict=True)
    ]
    for step in range(3):
        whole.grad = torch.cos(whole.detach() + step)
        for single, gradient in zip(singles, whole.grad.chunk(4), strict=True):
            single.grad = gradient.clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
    torch.testing.assert_close(whole.detach(), torch.cat([one.detach() for one in singles]))


def test_equal_rates_are_the_same_bits_as_one(tmp_path: Path) -> None:
    given = together("norm=bn", "seeds=2", "fuse=2", "rates=[0.004]", output=tmp_path / "rates")
    plain = together("norm=bn", "seeds=2", "fuse=2", "optimizer.lr=0.004", output=tmp_path / "lr")
    for (one, _), (other, _) in zip(given, plain, strict=True):
        own, their = (torch.load(each.last, weights_only=True) for each in (one, other))
        for name, value in own["model"].items():
            assert torch.equal(value, their["model"][name])


@pytest.mark.parametrize("given", ["3", "[]", "[1e-3,0]", "[0.1,0.10]", "[a]", "[-1]", "[true]"])
def test_what_are_no_rates_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="must be a list of different numbers above 0"):
        compose([*SMALL, f"rates={given}"])


def test_each_rate_is_a_cell_of_the_plan_and_of_the_table(tmp_path: Path) -> None:
    config = compose([*SMALL, f"output={tmp_path}", "rates=[0.01,0.001]", "seeds=2"])
    assert one_run.labels("norm=bn", config) == [
        "norm=bn optimizer.lr=0.01", "norm=bn optimizer.lr=0.01",
        "norm=bn optimizer.lr=0.001", "norm=bn optimizer.lr=0.001",
    ]  # fmt: skip
    assert one_run.labels("", compose([*SMALL, "seeds=2"])) == ["", ""]
    from normexp.runs.planning import Job, write_plan

    write_plan(
        [Job([], config, runs=one_run.jobs_of(config))], plan.Command([]), lambda _: {"norm": "bn"}
    )
    found = plan.read(tmp_path / "default")
    assert found is not None
    assert [cell.settings for cell in found.cells] == [
        {"norm": "bn", "optimizer.lr": "0.01"}, {"norm": "bn", "optimizer.lr": "0.001"}
    ]  # fmt: skip
    assert [sorted(cell.runs) for cell in found.cells] == [[0, 1], [0, 1]]
    assert len({name for cell in found.cells for name in cell.runs.values()}) == 4
    assert math.isclose(config.optimizer.lr, compose([*SMALL]).optimizer.lr)
