"""Seeds trained as one network are the runs that the same seeds make alone."""

import copy
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_runs import CPU, after, alone, assert_same_run, jobs, together
from omegaconf import OmegaConf
from small_runs import SMALL, metrics, same_tensors, state, without_times
from torchvision.models import resnet18
from train_processes import finished, start, statuses

from normexp.data import sources
from normexp.models.build import build_model
from normexp.models.fuse import fuse
from normexp.norms.catalogue import BUILT_IN
from normexp.runs import recording
from normexp.runs.composing import compose
from normexp.runs.one_run import train_unless_done
from normexp.runs.seed_run import SeedRun
from normexp.runs.training import run as run_all
from normexp.system.errors import RunFailed, UserError
from normexp.trainer.evaluation import Score, Stopped
from normexp.trainer.steps import Trainer


def works(model: str, norm: str) -> bool:
    try:
        compose([*SMALL, f"model={model}", f"norm={norm}"])
    except UserError:
        return False
    return norm != "syncbn"  # on CUDA only


CELLS = [
    (model, norm)
    for model in ("simple_cnn", "deep_cnn", "mlp")
    for norm in BUILT_IN
    if works(model, norm)
]
CELLS += [("resnet20", norm) for norm in BUILT_IN if works("resnet20", norm)]
CELLS += [("resnet18", "gn")]


@pytest.mark.parametrize(("model", "norm"), CELLS)
def test_a_fused_network_computes_what_its_networks_compute(model: str, norm: str) -> None:
    """Forward, gradients and running statistics, at each layer's own weights.

    In fp64: over many layers the rounding of fp32 grows beyond any bound that tells it from errors.
    """
    config = compose([*SMALL, f"model={model}", f"norm={norm}"])
    own = [build_model(config.model, config.norm, 8, 10, seed).double() for seed in range(3)]
    single = copy.deepcopy(own)
    whole = fuse(own)
    images = torch.randn(5, 9, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(2):
        outputs = whole(images).view(5, 3, 10)
        outputs.square().sum((0, 2)).mul(torch.tensor([1.0, 2.0, 3.0]).double()).sum().backward()
        for place, network in enumerate(single):
            expected = network(images[:, 3 * place : 3 * place + 3])
            torch.testing.assert_close(outputs[:, place], expected, rtol=1e-7, atol=1e-7)
            (expected.square().sum() * (place + 1)).backward()
            for name, parameter in network.named_parameters():
                gradient = whole.get_parameter(name).grad
                assert gradient is not None
                torch.testing.assert_close(
                    gradient.chunk(3)[place], parameter.grad, rtol=1e-7, atol=1e-7
                )
    for network, view in zip(single, own, strict=True):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(view.state_dict()[name], value, rtol=1e-7, atol=1e-7)


def test_training_a_fused_network_trains_its_networks() -> None:
    config = compose([*SMALL, "norm=bn"])
    own = [build_model(config.model, config.norm, 8, 10, seed) for seed in range(2)]
    whole = fuse(own)
    before = copy.deepcopy(own[1].state_dict())
    whole(torch.randn(4, 6, 8, 8)).sum().backward()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter -= 0.1
    for name, value in own[1].state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_a_network_that_is_no_stack_of_layers_can_be_fused() -> None:
    networks = [resnet18(num_classes=7).eval() for _ in range(2)]
    images = torch.randn(2, 6, 32, 32)
    expected = torch.stack([networks[0](images[:, :3]), networks[1](images[:, 3:])], 1)
    outputs = fuse(networks).eval()(images).view(2, 2, 7)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        ("norm=bn", "model=simple_cnn", "batch_size=2", "data.train_size=60"),
        ("norm=gn", "model=mlp", "optimizer=sgd", "optimizer.lr=0.01", "scheduler=cosine"),
        ("norm=none", "model=deep_cnn", "grad_clip=0.05", "label_smoothing=0.1", "max_steps=12"),
        ("norm=in", "optimizer=adamw", "optimizer.weight_decay=0.5", "channels_last=false"),
        ("norm=batch_renorm", "norm.weight_standardization=true", "epochs=1"),
        ("norm=ln", "model=simple_cnn", "scheduler=one_cycle", "scheduler.warmup=0.3"),
    ],
)
def test_each_seed_is_the_run_it_is_alone(tmp_path: Path, settings: tuple[str, ...]) -> None:
    found = together(*settings, "seeds=[3,0,7]", "fuse=3", output=tmp_path / "together")
    for seed, (directory, result) in zip((3, 0, 7), found, strict=True):
        single, expected = alone(*settings, f"seed={seed}", output=tmp_path / "alone")
        assert_same_run(directory, single)
        assert result["fused"] == 3
        assert expected["fused"] == 1
        for name in ("status", "seed", "steps", "epochs", "samples_seen", "parameters", "lr"):
            assert result[name] == expected[name]
        assert result["test_loss"] == pytest.approx(expected["test_loss"], rel=0.02)
        assert (directory.path / "config.yaml").read_text().replace("together", "alone").replace(
            "fuse: '3'", "fuse: auto"
        ) == (single.path / "config.yaml").read_text()
    assert len({row["train_loss"] for d, _ in found for row in metrics(d)[-1:]}) == 3


@pytest.mark.parametrize(
    ("last_sound", "reason"),
    [
        (7, "the loss became nan at step 8"),
        (27, "the validation loss became nan at step 27"),
    ],
)
def test_a_seed_that_diverges_leaves_the_others_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_sound: int, reason: str
) -> None:
    """Weights that become NaN in one network, in the middle of an epoch or by its last step."""
    step = Trainer.step
    steps = []

    def poisoned(self: Trainer, images: Any, labels: Any, measure: bool = False) -> Any:
        answer = step(self, images, labels, measure)
        steps.append(1)
        if len(steps) == last_sound:
            with torch.no_grad():
                self.members[1].network.get_parameter("conv1.weight").fill_(float("nan"))
        return answer

    monkeypatch.setattr(Trainer, "step", poisoned)
    found = together("norm=bn", "seeds=3", "fuse=3", output=tmp_path / "together")
    monkeypatch.undo()
    assert [result["status"] for _, result in found] == ["completed", "diverged", "completed"]
    assert found[1][1]["reason"] == reason
    assert f"step {found[1][1]['steps']}" in reason
    assert found[1][0].result() == found[1][1]
    for seed in (0, 2):
        single, _ = alone("norm=bn", f"seed={seed}", output=tmp_path / "alone")
        assert_same_run(found[seed][0], single)


def test_all_seeds_may_diverge(tmp_path: Path) -> None:
    found = together(
        "norm=none", "optimizer=sgd", "optimizer.lr=1e12", "seeds=2", "fuse=2", output=tmp_path
    )
    assert [result["status"] for _, result in found] == ["diverged", "diverged"]


@pytest.mark.parametrize("stopped_after", [3, 39, 42, 62])
def test_stopped_seeds_go_on_from_their_own_checkpoints(tmp_path: Path, stopped_after: int) -> None:
    """Within an interval, in the validation of an epoch, and in the test: bit for bit as if they
    had never stopped; and alone, a fused seed goes on as if it had been alone."""
    whole = together("norm=bn", "seeds=2", "fuse=2", output=tmp_path / "whole")
    for name in ("broken", "parted"):
        asked = jobs(tmp_path / name, "norm=bn", "seeds=2", "fuse=2")
        runs = [SeedRun(config, directory) for config, directory in asked]
        for one in runs:
            one.directory.create()
            one.find_state(CPU)
        with pytest.raises(Stopped):
            recording.train_and_record(
                runs, sources.load(asked[0][0].data), CPU, after(stopped_after)
            )
        if name == "broken":
            run_all(asked, [])
        else:
            for job in reversed(asked):
                run_all([job], [])
        for (_, directory), (expected, _) in zip(asked, whole, strict=True):
            assert_same_run(directory, expected)
            if name == "broken":
                assert same_tensors(state(directory)["model"], state(expected)["model"])
                assert same_tensors(state(directory)["optimizer"], state(expected)["optimizer"])


def test_a_kill_between_the_tests_of_seeds_changes_nothing_of_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = jobs(tmp_path, "seeds=4", "fuse=4", "epochs=1")
    test, ended = Trainer.test, []

    def killed(trainer: Trainer, *arguments: Any) -> Score:
        if len(ended) == 2:
            raise KeyboardInterrupt
        ended.append(test(trainer, *arguments))
        return ended[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "test", killed)
        with pytest.raises(KeyboardInterrupt):
            run_all(asked, [])
    run_all(asked, [])
    for _, directory in asked:
        assert (directory.answer() or {})["fused"] == 4
        assert directory.log.read_text().count("test accuracy") == 1


def test_seeds_at_different_steps_are_trained_apart(tmp_path: Path) -> None:
    asked = jobs(tmp_path / "mixed", "norm=gn", "seeds=3", "fuse=3")
    early = SeedRun(*asked[1])
    early.directory.create()
    with pytest.raises(Stopped):
        recording.train_and_record([early], sources.load(early.config.data), CPU, after(12))
    results = run_all(asked, [])
    assert [result["fused"] for result in results] == [2, 1, 2]
    for (_, directory), seed in zip(asked, range(3), strict=True):
        single, _ = alone("norm=gn", f"seed={seed}", output=tmp_path / "alone")
        assert_same_run(directory, single)


def test_an_error_in_one_group_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = Trainer.test

    def broken(self: Trainer, member: Any, kind: str, *rest: Any) -> Any:
        if member.seed == 0:
            raise RuntimeError("on fire")
        return test(self, member, kind, *rest)

    monkeypatch.setattr(Trainer, "test", broken)
    asked = jobs(tmp_path, "seeds=4", "fuse=2")
    with pytest.raises(RunFailed, match="on fire"):
        run_all(asked, [])
    results = [directory.result() for _, directory in asked]
    found = [result["status"] for result in results if result]
    assert sorted(found) == ["completed", "completed", "failed", "failed"]


def test_an_interrupt_after_the_last_step_stops_what_would_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = SeedRun.end

    def and_ctrl_c(self: SeedRun, *arguments: Any) -> None:
        end(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SeedRun, "end", and_ctrl_c)
    asked = jobs(tmp_path, "seeds=2", "fuse=1", "max_steps=2")
    with pytest.raises(KeyboardInterrupt):
        run_all(asked, [])
    first, second = (directory.result() for _, directory in asked)
    assert first is not None
    assert first["status"] == "completed"
    assert second is None


@pytest.mark.parametrize("at", ["data.sources.load", "trainer.fusing.at_a_time"])
def test_an_interrupt_before_runs_go_on_tells_how_far_they_are(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = jobs(tmp_path, "seeds=2", "fuse=auto")
    early = SeedRun(*asked[1])
    early.directory.create()
    with pytest.raises(Stopped):
        recording.train_and_record([early], sources.load(early.config.data), CPU, after(12))

    def ctrl_c(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"normexp.{at}", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run_all(asked, [])
    keys = ("status", "steps", "samples_seen", "reason")
    results = [directory.result() for _, directory in asked]
    found = [tuple(result[key] for key in keys) for result in results if result]
    step = early.progress.step
    assert step > 0
    assert found == [
        ("interrupted", 0, 0, "before the first step"),
        ("interrupted", step, 10 * step, f"at step {step}"),
    ]


@pytest.fixture
def few_files() -> Iterator[None]:
    """Allows eight open files more than there are, or fewer."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 8, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_files")
def test_seeds_raise_the_limit_of_open_files_as_far_as_they_need(tmp_path: Path) -> None:
    results = run_all(jobs(tmp_path, "seeds=12", "fuse=12", "max_steps=1"), [])
    assert [result["status"] for result in results] == ["completed"] * 12


def test_more_seeds_than_the_system_allows_files_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    asked = jobs(tmp_path, "seeds=200", "max_steps=1")
    with pytest.raises(UserError, match=r"200 seeds .* allows 256 .* ask for 52 new ones"):
        run_all(asked, [])
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_left_and_auto_finishes_the_rest(tmp_path: Path) -> None:
    composed = [*SMALL, f"output={tmp_path}", "max_steps=6"]
    (done,) = train_unless_done(compose_raw([*composed, "seed=1"]))
    answers = train_unless_done(compose_raw([*composed, "seeds=3"]))
    assert [answer.trained for answer in answers] == [True, False, True]
    assert answers[1].result == done.result
    assert [answer.result["seed"] for answer in answers] == [0, 1, 2]


def compose_raw(overrides: list[str]) -> Any:
    """As Hydra hands it to the command."""
    return OmegaConf.structured(compose(overrides))


def test_a_sweep_makes_a_run_for_each_seed_and_skips_them_again(tmp_path: Path) -> None:
    arguments = ("-m", *SMALL, "max_steps=6", "norm=gn,bn")
    alone, _ = finished(start(*arguments, "seed=0,1", folder=tmp_path))
    assert statuses(alone) == ["completed"] * 4
    fused, _ = finished(start(*arguments, "seeds=3", "fuse=2", folder=tmp_path))
    assert sorted(statuses(fused)) == ["completed"] * 2 + ["skipped"] * 4
    assert "6 runs in 2 cells, " in fused
    assert "not begun" not in fused
    found = list((tmp_path / "outputs").glob("*/*/result.json"))
    assert len(found) == 6
    assert {json.loads(path.read_text())["seed"] for path in found} == {0, 1, 2}


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("seeds=0", "number of seeds from 1 to 1000"), ("seeds=[]", "number of seeds"),
        ("seeds=[1,1]", "different"), ("seeds=[-1]", "number of seeds"),
        ("seeds=two", "number of seeds"), ("seeds=true", "number of seeds"),
        ("seeds=1.5", "number of seeds"), ("seeds={a:1}", "seeds"),
        ("fuse=0", "auto, or the number"), ("fuse=many", "auto, or the number"),
    ],
)  # fmt: skip
def test_seeds_that_cannot_be_used_are_refused(setting: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        compose([*SMALL, setting])


def test_one_seed_and_several_at_once_are_refused() -> None:
    for seed in ("seed=3", "seed=0", "seed=0,1"):
        with pytest.raises(UserError, match="give one of them"):
            compose([*SMALL, seed, "seeds=4"])


class Killed(BaseException):
    """As SIGKILL: nothing is recorded."""


@pytest.mark.parametrize("kills", [(1,), (5,), (7,), (4, 1)])
def test_seeds_that_a_kill_parts_while_they_are_saved_are_joined_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, ...]
) -> None:
    """Some are saved and some not, in the first epoch, the second, the last, and twice in the
    second: all is bit for bit as if nothing had been."""
    settings = ("norm=bn", "seeds=3", "epochs=3", "diagnostics=true")
    whole = together(*settings, "fuse=3", output=tmp_path / "whole")
    asked = jobs(tmp_path / "killed", *settings, "fuse=auto")
    save = SeedRun.save
    monkeypatch.setattr("normexp.trainer.fusing.at_a_time", lambda *arguments: 3)
    for number in kills:
        saves = iter(range(number))

        def save_or_die(self: SeedRun, saves: Iterator[int] = saves) -> None:
            if next(saves, None) is None:
                raise Killed
            save(self)

        monkeypatch.setattr(SeedRun, "save", save_or_die)
        with pytest.raises(Killed):
            run_all(asked, [])
        # How many at a time was chosen once.
        monkeypatch.setattr("normexp.trainer.fusing.at_a_time", lambda *arguments: 1)
    monkeypatch.setattr(SeedRun, "save", save)
    if kills[0] < 3:
        monkeypatch.setattr("normexp.trainer.fusing.at_a_time", lambda *arguments: 3)
    for (_, directory), result, (expected, undisturbed) in zip(
        asked, run_all(asked, []), whole, strict=True
    ):
        assert without_times(result) == without_times(undisturbed)
        assert result["fused"] == 3
        for part in ("model", "optimizer", "rng"):
            assert same_tensors(state(directory)[part], state(expected)[part])
        rows = [[without_times(row) for row in metrics(one)] for one in (directory, expected)]
        assert rows[0] == rows[1]
        texts = [(one.path / "diagnostics.csv").read_text() for one in (directory, expected)]
        assert texts[0] == texts[1]


def test_seeds_in_turn_meet_the_random_numbers_they_meet_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing.py").write_text(
        "import torch\n\n\nclass Drawing(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x + 0.1 * torch.randn_like(x)\n\n\n"
        "def norm(channels, dims, norm):\n    return Drawing()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ("norm.name=drawing:norm", "max_steps=5")
    found = together(*settings, "seeds=2", output=tmp_path / "together")
    for seed, (directory, result) in enumerate(found):
        single, expected = alone(*settings, f"seed={seed}", output=tmp_path / "alone")
        assert without_times(result) == without_times(expected)
        assert same_tensors(state(directory)["model"], state(single)["model"])


DRAWING = """
import torch


class Mixing(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)


def dropped(channels, dims, norm):
    return torch.nn.Sequential(torch.nn.GroupNorm(4, channels), torch.nn.Dropout(0.3))


def mixing(channels, dims, norm):
    return Mixing()
"""


@pytest.fixture
def own_norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_norms_to_fuse.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_norms")
def test_seeds_that_draw_meet_the_random_numbers_they_meet_alone(tmp_path: Path) -> None:
    """Stopped and gone on with, together and alone: a seed draws what it does if nothing is."""
    settings = ("norm.name=own_norms_to_fuse:dropped", "model=simple_cnn")
    whole = together(*settings, "seeds=[3,0]", "fuse=2", output=tmp_path / "whole")
    singles = {seed: alone(*settings, f"seed={seed}", output=tmp_path / "alone") for seed in (3, 0)}
    for name in ("broken", "parted"):
        asked = jobs(tmp_path / name, *settings, "seeds=[3,0]", "fuse=2")
        runs = [SeedRun(config, directory) for config, directory in asked]
        for one in runs:
            one.directory.create()
            one.find_state(CPU)
        with pytest.raises(Stopped):
            recording.train_and_record(runs, sources.load(asked[0][0].data), CPU, after(9))
        if name == "broken":
            run_all(asked, [])
        else:
            for job in reversed(asked):
                run_all([job], [])
        for (config, directory), (expected, result) in zip(asked, whole, strict=True):
            assert result["fused"] == 2
            assert_same_run(directory, expected)
            single, _ = singles[config.seed]
            assert_same_run(directory, single)
            assert torch.equal(state(directory)["rng"], state(single)["rng"])
            if name == "broken":
                assert same_tensors(state(directory)["model"], state(expected)["model"])


@pytest.mark.usefixtures("own_norms")
def test_a_seed_that_is_left_alone_draws_on_from_its_own_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("norm.name=own_norms_to_fuse:dropped", "model=simple_cnn")
    step, steps = Trainer.step, []

    def poisoned(self: Trainer, images: Any, labels: Any, measure: bool = False) -> Any:
        answer = step(self, images, labels, measure)
        steps.append(1)
        if len(steps) == 7:
            with torch.no_grad():
                self.members[0].network.get_parameter("conv1.weight").fill_(float("nan"))
        return answer

    monkeypatch.setattr(Trainer, "step", poisoned)
    found = together(*settings, "seeds=2", "fuse=2", output=tmp_path / "together")
    monkeypatch.undo()
    assert [result["status"] for _, result in found] == ["diverged", "completed"]
    single, _ = alone(*settings, "seed=1", output=tmp_path / "alone")
    assert_same_run(found[1][0], single)
    assert torch.equal(state(found[1][0])["rng"], state(single)["rng"])


@pytest.mark.usefixtures("own_norms")
def test_seeds_whose_network_mixes_channels_are_trained_in_turn(tmp_path: Path) -> None:
    settings = ("norm.name=own_norms_to_fuse:mixing", "model=simple_cnn", "max_steps=3")
    found = together(*settings, "seeds=2", "fuse=2", output=tmp_path)
    for directory, result in found:
        assert result["fused"] == 1
        said = directory.log.read_text()
        assert "seeds are trained in turn: several Sequential cannot be made one: " in said
        assert "first seen after norm1 (Mixing)" in said
