"""A run: what it leaves, how it goes on where it stopped, and how it says that it cannot."""

import gc
import io
import json
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image
from small_runs import metrics, run, same_tensors, small, state, without_times
from torch.nn import functional as F

from normexp.config.schema import Config, to_dict
from normexp.data import sources
from normexp.finished import finished_run
from normexp.models.build import build_model
from normexp.report.read import read_runs
from normexp.runs import console, recording
from normexp.runs.directory import RunDirectory
from normexp.runs.records import METRICS, RESULT_ADDED_SINCE
from normexp.runs.seed_run import SeedRun
from normexp.system.errors import BusyElsewhere, RunFailed, UserError
from normexp.trainer import process
from normexp.trainer.evaluation import Stopped
from normexp.trainer.steps import Trainer

# fmt: off
RESULT = (
    "schema_version", "status", "reason", "run_id", "name", "model", "norm", "batch_size", "seed",
    "data", "epochs", "steps", "samples_seen", "train_loss", "train_acc", "val_loss", "val_acc",
    "test_loss", "test_acc", "parameters", "seconds", "train_seconds", "ms_per_step",
    "images_per_second", "peak_memory_mb", "device", "threads", "precision", "versions", "git",
    "lr",
)
# fmt: on
CPU = torch.device("cpu")


def after(calls: int) -> Callable[[], bool]:
    """A person who wants the run to stop once it has asked so often."""
    asked = iter(range(calls))
    return lambda: next(asked, None) is None


def train(
    config: Config, directory: RunDirectory, stop: Callable[[], bool] = lambda: False
) -> dict[str, object]:
    directory.create()
    one = SeedRun(config, directory)
    one.find_state(CPU)
    recording.train_and_record([one], sources.load(config.data), CPU, stop)
    assert one.result is not None
    return one.result


def test_a_run_leaves_what_the_design_promises(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "norm=gn", "log.tensorboard=true", "log.images=4",
                              "log.histograms=true")  # fmt: skip
    returned = run(config, directory)
    result = json.loads((directory.path / "result.json").read_text())
    assert result == returned
    assert set(RESULT) <= set(result)
    assert result["status"] == "completed"
    assert result["reason"] is None
    assert (result["epochs"], result["steps"], result["samples_seen"]) == (2, 54, 540)
    assert 0 <= result["test_acc"] <= 1
    assert result["lr"] == 1e-3
    rows = metrics(directory)
    assert list(rows[0]) == list(METRICS)
    assert [row["step"] for row in rows] == ["27", "54"]
    assert float(rows[-1]["train_loss"]) == result["train_loss"]
    assert yaml.safe_load((directory.path / "config.yaml").read_text()) == to_dict(config)
    assert "GroupNorm" in directory.log.read_text()
    assert len(list(directory.path.glob("events.out.tfevents.*"))) == 1
    assert not list(directory.path.rglob(".*.??????"))


def test_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "norm=bn", "epochs=6", "optimizer.lr=0.02")
    result = run(config, directory)
    accuracies = [float(row["val_acc"]) for row in metrics(directory)]
    best = torch.load(directory.best, weights_only=True)
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1 == result["tested_epoch"]
    assert result["val_acc"] == max(accuracies)
    assert result["test_acc"] == pytest.approx(_accuracy(config, best))


def _accuracy(config: Config, checkpoint: dict[str, object]) -> float:
    """Test accuracy worked out from the checkpoint alone."""
    network = build_model(config.model, config.norm, 8, 10, 0)
    network.load_state_dict(checkpoint["model"])  # type: ignore[arg-type]
    test = sources.load(config.data).test
    mean = torch.tensor(checkpoint["mean"])[:, None, None]
    std = torch.tensor(checkpoint["std"])[:, None, None]
    images = (torch.from_numpy(test.images) / 255 - mean) / std
    with torch.no_grad():
        guesses = network.eval()(images).argmax(1)
    return (guesses == torch.from_numpy(test.labels)).double().mean().item()


def test_the_test_set_can_meet_the_last_weights(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "evaluate.checkpoint=last", "epochs=3")
    result = run(config, directory)
    assert result["tested_epoch"] == 3
    assert result["test_acc"] == pytest.approx(
        _accuracy(config, state(directory) | _best(directory))
    )


def _best(directory: RunDirectory) -> dict[str, object]:
    best = torch.load(directory.best, weights_only=True)
    return {"mean": best["mean"], "std": best["std"]}


def test_training_loss_is_the_mean_over_the_steps(tmp_path: Path) -> None:
    """With a learning rate of next to nothing the network stands still, and its loss on the images
    of an epoch can be worked out apart."""
    config, directory = small(
        tmp_path, "optimizer=sgd", "optimizer.lr=1e-30", "norm=ln", "epochs=1", "data.flip=false",
        "data.crop_padding=0", "data.normalize=false", "batch_size=27", "data.val_fraction=0.1",
    )  # fmt: skip
    result = run(config, directory)
    network = build_model(config.model, config.norm, 8, 10, 0)
    network.load_state_dict(state(directory)["model"])
    dataset = sources.load(config.data)
    trainer = Trainer(config, [config.seed], dataset, CPU)
    images = torch.from_numpy(dataset.train.images)[trainer.train_indices] / 255
    labels = torch.from_numpy(dataset.train.labels)[trainer.train_indices]
    with torch.no_grad():
        logits = network(images)
    assert result["train_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result["train_acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_a_trainer_that_is_gone_leaves_no_memory_behind(tmp_path: Path) -> None:
    config, _ = small(tmp_path)
    trainer = Trainer(config, [0, 1], sources.load(config.data), CPU)
    trainer.interval(trainer.batches.plan(0), 0, 2, 0, True, lambda: False, lambda taken: None)
    left = weakref.ref(trainer.network)
    gc.collect()
    gc.disable()  # at once, and not when the collector comes by: a GPU may be full before
    try:
        del trainer
        assert left() is None
    finally:
        gc.enable()


def test_fp32_on_a_gpu_is_not_tf32(tmp_path: Path) -> None:
    before = torch.backends.cudnn.allow_tf32
    with process.settings(small(tmp_path)[0], CPU):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("norm", ["none", "bn", "gn"])
@pytest.mark.parametrize("stopped_after", [3, 39, 42, 60, 120])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, norm: str, stopped_after: int
) -> None:
    """Within an interval, in validation, twice in the second epoch, and in the test."""
    settings = (f"norm={norm}", "scheduler=cosine", "optimizer=sgd", "grad_clip=1.0", "epochs=3")
    config, whole = small(tmp_path / "whole", *settings)
    expected = train(config, whole)
    config, broken = small(tmp_path / "broken", *settings)
    with pytest.raises(Stopped):
        train(config, broken, after(stopped_after))
    assert 0 < state(broken)["progress"]["step"] <= 81
    torch.manual_seed(12345)  # what another process would have in its global stream
    result = train(config, broken)
    assert without_times(result) == without_times(expected)
    assert [without_times(row) for row in metrics(broken)] == [
        without_times(row) for row in metrics(whole)
    ]
    for part in ("model", "optimizer", "rng"):
        assert same_tensors(state(broken)[part], state(whole)[part])
    assert same_tensors(*(torch.load(d.best, weights_only=True)["model"] for d in (broken, whole)))


def test_runs_of_one_process_do_not_touch_each_other(tmp_path: Path) -> None:
    config, first = small(tmp_path / "first", "norm=bn", "seed=1")
    train(config, first)
    other, elsewhere = small(tmp_path / "other", "norm=gn", "seed=2", "precision=bf16")
    run(other, elsewhere)
    config, again = small(tmp_path / "again", "norm=bn", "seed=1")
    run(config, again)
    assert same_tensors(state(first)["model"], state(again)["model"])
    assert not torch.are_deterministic_algorithms_enabled()


def test_max_steps_counts_steps_and_ends_within_an_epoch(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "max_steps=40", "norm=none")
    result = run(config, directory)
    assert (result["steps"], result["epochs"]) == (40, 2)
    assert [row["step"] for row in metrics(directory)] == ["27", "40"]


def test_without_validation_images_the_last_weights_are_tested(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "data.val_fraction=0")
    result = run(config, directory)
    assert result["val_acc"] is None
    assert result["tested_epoch"] == 2
    assert result["steps"] == 60


def test_divergence_is_a_result(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "norm=none", "optimizer=sgd", "optimizer.lr=1e12")
    result = run(config, directory)
    assert result["status"] == "diverged"
    assert result["test_acc"] is None
    assert str(result["steps"]) in result["reason"]
    assert 0 < result["steps"] < 54
    json.loads((directory.path / "result.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("share", ["0.1", "0"])
def test_a_last_step_that_breaks_the_weights_is_divergence(tmp_path: Path, share: str) -> None:
    """The loss of a step is known before its update: it shows in validation, or else in the test,
    and the weights that were kept are of no use."""
    config, directory = small(
        tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "max_steps=1", f"data.val_fraction={share}"
    )
    result = run(config, directory)
    assert result["status"] == "diverged"
    assert ("validation" if share != "0" else "test") in result["reason"]
    assert result["steps"] == 1
    assert "nan" not in (directory.path / "metrics.csv").read_text()
    if share == "0":
        with pytest.raises(UserError, match="not finite, the run diverged"):
            finished_run.load(directory.path).logits(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_error_is_recorded_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: object, *arguments: object) -> None:
        raise RuntimeError("the disk\nis on fire")

    monkeypatch.setattr(Trainer, "test", break_down)
    config, directory = small(tmp_path)
    with pytest.raises(RunFailed, match="RuntimeError: the disk is on fire"):
        run(config, directory)
    result = directory.result()
    assert result is not None
    assert (result["status"], result["reason"]) == ("failed", "RuntimeError: the disk is on fire")
    assert "Traceback" in directory.log.read_text()
    monkeypatch.undo()
    assert run(config, directory)["status"] == "completed"


def test_two_processes_do_not_train_the_same_run(tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    directory.create()
    with FileLock(directory.lock), pytest.raises(BusyElsewhere, match="another process"):
        run(config, directory)


def test_force_trains_again_from_the_start(tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    first = run(config, directory)
    config, directory = small(tmp_path, "force=true")
    (directory.path / "metrics.csv").write_text("stale")
    lock = directory.lock.stat().st_ino
    assert without_times(run(config, directory)) == without_times(first)
    assert "going on" not in directory.log.read_text()
    assert directory.lock.stat().st_ino == lock  # which its trainer held all the while


@pytest.mark.parametrize("damaged", [("last",), ("last", "previous")])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damaged: tuple[str, ...]
) -> None:
    config, whole = small(tmp_path / "whole", "epochs=3")
    expected = run(config, whole)
    config, directory = small(tmp_path / "broken", "epochs=3")
    with pytest.raises(Stopped):
        train(config, directory, after(100))
    for name in damaged:
        path = getattr(directory, name)
        path.write_bytes(path.read_bytes()[:1000])
    assert without_times(run(config, directory)) == without_times(expected)
    log = directory.log.read_text()
    assert "last.pt cannot be read" in log
    assert ("going on from step" in log) == (len(damaged) == 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "completed"}'])
def test_a_damaged_result_is_made_anew(tmp_path: Path, content: str) -> None:
    config, directory = small(tmp_path)
    expected = run(config, directory)
    (directory.path / "result.json").write_text(content)
    assert directory.answer() is None
    assert without_times(run(config, directory)) == without_times(expected)


def test_results_of_before_later_fields_came_still_count(tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    run(config, directory)
    path = directory.path / "result.json"
    result = json.loads(path.read_text())
    for later in RESULT_ADDED_SINCE:
        del result[later]
    path.write_text(json.dumps(result))
    answer = directory.answer()
    assert answer is not None
    assert (answer["fused"], answer["ranks"]) == (1, 1)
    runs = read_runs(tmp_path)
    assert not runs.unreadable
    assert runs.table["test_acc"].tolist() == [result["test_acc"]]


def test_what_was_lost_of_a_half_done_run_is_made_anew(tmp_path: Path) -> None:
    config, whole = small(tmp_path / "whole", "epochs=3")
    expected = run(config, whole)
    for lost in ("checkpoints/best.pt", "metrics.csv"):
        config, directory = small(tmp_path / lost, "epochs=3")
        with pytest.raises(Stopped):
            train(config, directory, after(100))
        (directory.path / lost).unlink()
        assert without_times(run(config, directory)) == without_times(expected)
        assert [without_times(row) for row in metrics(directory)] == [
            without_times(row) for row in metrics(whole)
        ]


def test_a_colour_that_is_the_same_everywhere_is_no_divergence(tmp_path: Path) -> None:
    for number in range(20):
        for part in ("train", "test"):
            folder = tmp_path / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 10 * number, 77)).save(folder / f"{number}.png")
    config, directory = small(
        tmp_path / "outputs", "data=image_folder", f"data.root={tmp_path}", "norm=none",
        f"data.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    assert run(config, directory)["status"] == "completed"


def test_results_are_as_readable_as_other_files(tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    run(config, directory)
    ordinary = directory.log.stat().st_mode
    for name in ("result.json", "metrics.csv", "config.yaml", "checkpoints/best.pt"):
        assert (directory.path / name).stat().st_mode == ordinary


def test_more_images_in_a_batch_than_there_are_is_refused(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "batch_size=271")
    with pytest.raises(UserError, match="270 training images"):
        run(config, directory)


def test_bf16_trains_and_keeps_weights_in_fp32(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "precision=bf16", "norm=gn", "epochs=4")
    result = run(config, directory)
    assert result["status"] == "completed"
    assert all(value.dtype is torch.float32 for value in state(directory)["model"].values())
    rows = metrics(directory)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_a_compiled_network_trains_as_the_plain_one(tmp_path: Path) -> None:
    settings = ("norm=bn", "model=mlp", "epochs=1")
    plain, compiled = [
        run(*small(tmp_path / choice, *settings, f"compile={choice}"))
        for choice in ("false", "true")
    ]
    assert compiled["run_id"] == plain["run_id"]
    assert compiled["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-4)
    assert compiled["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-3)


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"torch\.compile needs"):
        run(*small(tmp_path, "compile=true"))


def test_a_result_says_how_its_steps_were_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thread that has a processor for a quarter of the time.
    monkeypatch.setattr("time.thread_time", lambda: time.perf_counter() / 4)
    config, directory = small(tmp_path, "max_steps=5")
    assert run(config, directory)["cpu_share"] == pytest.approx(0.25, abs=0.02)
    monkeypatch.undo()
    config, directory = small(tmp_path, "max_steps=5", "seed=1")
    assert 0 < run(config, directory)["cpu_share"] <= 1.01
    # A checkpoint of before this was measured does not tell it.
    config, directory = small(tmp_path, "seed=2")
    with pytest.raises(Stopped):
        train(config, directory, after(12))
    last = state(directory)
    del last["progress"]["cpu_seconds"]
    torch.save(last, directory.last)
    assert run(config, directory)["cpu_share"] is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (120, "loss 1.500, acc 43.75 %, 1,234 images/s"),
        (80, "loss 1.500, acc 43.75 %"),
        (60, "loss 1.500"),
        (40, ""),
    ],
)
def test_a_bar_keeps_room_and_says_less_instead(
    columns: int, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    bars = console.Bars(67_500, 22_500, True)
    monkeypatch.setattr(bars.steps, "dynamic_ncols", lambda file: (columns, 24))
    bars.say(("loss 1.500", "acc 43.75 %", "1,234 images/s"))
    written = str(bars.steps)
    bars.close()
    assert len(written) <= columns
    assert written.endswith(f", {fields}]" if fields else "?]")
    assert len(written.split("|")[1]) >= 8


def test_a_line_says_less_where_the_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = ["a" * 85, "b" * 70, "c" * 50]
    assert console.fitting(forms) == forms[0]
    monkeypatch.setattr("sys.stdout", Terminal())
    for columns, form in ((85, 0), (80, 1), (60, 2), (40, 2)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert console.fitting(forms) == forms[form]


def test_an_evaluation_tells_how_far_it_is(tmp_path: Path) -> None:
    config, _ = small(
        tmp_path, "norm=bn", "evaluate.bn_stats=[running,precise,batch]", "evaluate.batch_size=7",
        "evaluate.precise_samples=50",
    )  # fmt: skip
    trainer = Trainer(config, [0], sources.load(config.data), CPU)
    # 60 test images, and seven batches of seven that precise statistics are of.
    for kind, expected in (("running", 60), ("precise", 109), ("batch", 60)):
        told: list[int] = []
        trainer.test(trainer.members[0], kind, lambda: False, told.append)
        assert sum(told) == trainer.passing(60, kind) == expected
        assert max(told) < 15


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """Plain SGD moves the weights by the rate times a gradient of the norm allowed, at most."""
    config, _ = small(
        tmp_path, "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1", "grad_clip=0.01",
    )  # fmt: skip
    trainer = Trainer(config, [config.seed], sources.load(config.data), CPU)
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    plan = trainer.batches.plan(0)
    trainer.interval(plan, 0, 1, 0, True, lambda: False, lambda taken: None)
    moved = [p.detach() - b for p, b in zip(trainer.network.parameters(), before, strict=True)]
    distance = torch.sqrt(sum((m.double() ** 2).sum() for m in moved))  # type: ignore[arg-type]
    assert distance.item() == pytest.approx(0.01, rel=1e-3)


def test_norms_start_from_the_same_weights_and_images(tmp_path: Path) -> None:
    """The first loss of `none` and of a norm that has been made to pass its input on are equal."""
    losses = {}
    for norm in ("none", "bn", "gn", "in"):
        config, _ = small(tmp_path, f"norm={norm}", "seed=5")
        trainer = Trainer(config, [config.seed], sources.load(config.data), CPU)
        for name, _ in trainer.network.named_children():
            if name.startswith("norm"):
                setattr(trainer.network, name, torch.nn.Identity())
        plan = trainer.batches.plan(0)
        part = trainer.interval(plan, 0, 1, 0, False, lambda: False, lambda taken: None)
        (losses[norm],) = part.losses
    assert len({tuple(values) for values in losses.values()}) == 1


def test_too_little_memory_is_said_with_what_would_need_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "free_memory", lambda device: None)  # as where nothing tells it
    config, directory = small(tmp_path, f"model.channels=[{2**20},{2**20}]")
    with pytest.raises(RunFailed, match=r"not enough memory .*use a smaller batch_size"):
        run(config, directory)
    result = directory.result()
    assert result is not None
    assert result["status"] == "failed"
    assert result["reason"].startswith("not enough memory")
    config, directory = small(tmp_path, f"data.train_images={10**16}")
    with pytest.raises(
        UserError, match=r"train_images=1000.* MiB of memory, .*use smaller or fewer"
    ):
        run(config, directory)


def test_errors_of_memory_are_told_from_others() -> None:
    for made in (lambda: torch.empty(2**60), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            made()
        assert process.out_of_memory(raised.value)
    assert not process.out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
