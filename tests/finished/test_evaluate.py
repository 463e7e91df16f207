"""python -m normexp.evaluate: what a finished run is worth, on its own images and on others."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SMALL, run, small

from normexp import evaluate, export, predict
from normexp.data import synthetic
from normexp.finished import exporting, finished_run
from normexp.finished.scores import calibration, expected_calibration_error
from normexp.runs.composing import compose
from normexp.system.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every kind of statistics; its directory."""
    config, directory = small(
        tmp_path_factory.mktemp("runs"), "norm=bn", "epochs=3", "optimizer.lr=0.01",
        "evaluate.bn_stats=[running,precise,batch]", "evaluate.precise_samples=90",
    )  # fmt: skip
    run(config, directory)
    return directory.path


def result(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "result.json").read_text())
    return found


def evaluated(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def by_hand(
    path: Path, change: Callable[[np.ndarray], np.ndarray] = lambda images: images
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of the run's test images, by a network that is fed without normexp.

    Args:
        change: what becomes of the images (N,3,S,S) before.
    """
    run = finished_run.load(path)
    images = synthetic.load(run.config.data).test
    mean, std = (np.array(each).reshape(1, 3, 1, 1) for each in (run.mean, run.std))
    inputs = torch.from_numpy((change(images.images) / 255 - mean) / std).float()
    with torch.no_grad():
        return run.network.eval()(inputs).double().numpy(), images.labels


def test_the_runs_own_scores_come_out_again(trained: Path, tmp_path: Path) -> None:
    evaluate.main([str(trained), "--out", str(tmp_path)])
    found, own = evaluated(tmp_path / trained.name), result(trained)
    assert found["accuracy"] == own["test_acc"]
    assert found["loss"] == pytest.approx(own["test_loss"], rel=1e-6)
    each = {kind: scores["accuracy"] for kind, scores in found["by_bn_stats"].items()}
    assert each == own["test_acc_by_bn_stats"]
    assert found["epoch"] == own["tested_epoch"]


def test_confusion_and_calibration_are_those_counted_by_hand(trained: Path, tmp_path: Path) -> None:
    evaluate.main([str(trained), "--out", str(tmp_path)])
    logits, labels = by_hand(trained)
    guesses = logits.argmax(1)
    counted = [[0] * 10 for _ in range(10)]
    for label, guess in zip(labels, guesses, strict=True):
        counted[label][guess] += 1
    with (tmp_path / trained.name / "confusion.csv").open() as file:
        heading, *rows = csv.reader(file)
    assert heading[1:] == [f"pattern {index}" for index in range(10)]
    assert [[int(number) for number in row[1:]] for row in rows] == counted
    found = evaluated(tmp_path / trained.name)
    for index, each in enumerate(found["by_class"]):
        assert each["images"] == sum(counted[index])
        assert each["accuracy"] == pytest.approx(counted[index][index] / sum(counted[index]))
    # ECE: |accuracy - confidence| of each fifteenth of confidence, by its share of the images
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sure, right = shares.max(1), guesses == labels
    error = 0.0
    for index in range(15):
        inside = (sure > index / 15) & (sure <= (index + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found["ece"] == pytest.approx(error, abs=1e-6)
    with Image.open(tmp_path / trained.name / "confusion.png") as picture:
        picture.load()


def test_calibration_of_a_handful_of_images() -> None:
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    bins = calibration(shares, np.array([0, 1, 1, 0]))
    assert [count for count in bins["images"] if count] == [1, 2, 1]
    # two at 0.9 of which one is right, one right at 0.6, one right at 1
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.4 + 0.4 + 0) / 4)
    assert bins.loc[0, "accuracy"] is None
    assert bins.loc[8, ["low", "high", "confidence"]].tolist() == pytest.approx(
        [8 / 15, 9 / 15, 0.6]
    )


def test_runs_are_only_read_and_several_make_one_table(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, directory = small(tmp_path, "norm=gn", "epochs=1", "max_steps=5")
    run(config, directory)
    capsys.readouterr()

    def contents() -> dict[Path, str]:
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = contents()
    evaluate.main([str(directory.path), str(trained), "evaluate.bn_stats=batch"])
    after = contents()
    assert {file: after[file] for file in before} == before
    written = {file.relative_to(directory.path).as_posix() for file in after.keys() - before.keys()}
    assert written == {f"evaluation/{name}" for name in
                       ("evaluation.json", "confusion.csv", "confusion.png")}  # fmt: skip
    shown = capsys.readouterr()
    heading, first, second = shown.out.splitlines()
    assert heading.split() == ["accuracy", "loss", "ECE", "images", "norms", "by", "run"]
    assert first.split()[-3:] == ["60", "running", directory.run_id]
    assert second.split()[-3:] == ["60", "batch", trained.name]
    assert max(map(len, (heading, first, second))) <= 80
    assert "gn has no running averages" in shown.err


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The run's test images of two of the classes, in folders, twice as large."""
    made = synthetic.load(finished_data())
    for name, index in (("pattern 7", 7), ("pattern 2", 2)):
        folder = tmp_path / "others" / "test" / name
        folder.mkdir(parents=True)
        for place in np.flatnonzero(made.test.labels == index):
            Image.fromarray(doubled(made.test.images[place])).save(folder / f"{place}.png")
    return tmp_path / "others"


def doubled(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)


def scaled_back(images: np.ndarray) -> np.ndarray:
    """What a bilinear filter, which mixes neighbours, makes of doubled images."""
    size, bilinear = images.shape[2:], Image.Resampling.BILINEAR
    found = [Image.fromarray(doubled(image)).resize(size, bilinear) for image in images]
    return np.stack(found).transpose(0, 3, 1, 2)


def finished_data() -> Any:
    return compose(list(SMALL)).data


def test_another_test_set_is_matched_by_the_names_of_classes(
    trained: Path, tmp_path: Path, others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["data=image_folder", f"data.root={others}", f"data.cache={tmp_path / 'cache'}"]
    evaluate.main([str(trained), *settings, "--json", "--out", str(tmp_path / "out")])
    (found,) = json.loads(capsys.readouterr().out)
    assert found == evaluated(tmp_path / "out" / trained.name)
    assert found["images"] == 12
    logits, labels = by_hand(trained, scaled_back)
    for index, each in enumerate(found["by_class"]):
        shown = labels == index
        assert each["images"] == (shown.sum() if index in (2, 7) else 0)
        expected = (logits[shown].argmax(1) == index).mean() if index in (2, 7) else None
        assert each["accuracy"] == expected
    (others / "test" / "pattern 2").rename(others / "test" / "zebra")
    with pytest.raises(SystemExit):
        evaluate.main([str(trained), *settings])
    assert "zebra is none of the 10 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["RUN", "optimizer.lr=1"], "optimizer.lr: evaluation does not read it"),
        (["RUN", "data.flip=false"], "data.flip: evaluation does not read it"),
        (["RUN", "evaluate.batch_size=none"], "evaluate.batch_size"),
        (["RUN", "data=cifar10"], "the network takes 8x8"),
        (["RUN", "data=synthetic", "data.test_images=0"], "data.test_images=0: must be greater"),
        (["RUN", "data=image_folder", "data.root=/nowhere"], "give data.root=FOLDER"),
        (["RUN", "evaluate.bn_stats=best"], "must be one of running, precise, batch"),
        (["RUN", "evaluate.bn_stats=running,batch"], "a list is [a,b]"),
        (["device=cpu"], "no RUN_DIR is given"),
        (["nowhere"], "nowhere: no such directory"),
        (["RUN", "--all"], "--help lists"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    trained: Path, given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        evaluate.main([str(trained) if text == "RUN" else text for text in given])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_runs_that_cannot_be_used_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoints/best\.pt"):
        finished_run.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"best\.pt cannot be read"):
        finished_run.load(tmp_path)


def test_of_several_runs_the_others_are_done_where_one_cannot_be(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        evaluate.main([str(tmp_path), str(trained), "--json", "--out", str(tmp_path)])
    assert left.value.code == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert f"{tmp_path}: no finished run" in line
    assert [each["run_id"] for each in json.loads(said.out)] == [trained.name]


def test_a_run_that_has_not_completed_is_said_to_be_so(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    finished_run.load(copy)
    assert capsys.readouterr().err == ""
    record = result(copy) | {"status": "interrupted", "reason": "at step 4 of 9"}
    (copy / "result.json").write_text(json.dumps(record))
    finished_run.load(copy)
    assert "the run is interrupted (at step 4 of 9)" in capsys.readouterr().err
    (copy / "result.json").unlink()
    finished_run.load(copy)
    assert "the run is not finished" in capsys.readouterr().err


def test_precise_statistics_are_of_the_runs_own_training_images(
    trained: Path, tmp_path: Path
) -> None:
    loaded = finished_run.load(trained)
    loaded.training_samples(loaded.config.data, "FIX")
    others = replace(loaded.config.data, seed=1)
    with pytest.raises(UserError, match=r"not the images that .* was trained on.*FIX"):
        loaded.training_samples(others, "FIX")
    gone = compose([*SMALL, "data=image_folder", f"data.root={tmp_path}"]).data
    with pytest.raises(UserError, match=r"precise statistics.*No such file or directory; FIX"):
        loaded.training_samples(gone, "FIX")


def test_notes_are_of_what_was_given_and_not_of_what_the_run_has(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [str(trained), "--out", str(tmp_path), "evaluate.bn_stats=running"]
    evaluate.main(settings)
    assert capsys.readouterr().err == ""
    evaluate.main([*settings, "evaluate.precise_samples=30"])
    assert "evaluate.precise_samples=30 is ignored" in capsys.readouterr().err


def test_a_norm_of_ones_own_has_to_be_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "norm_that_moves_away.py").write_text(
        "from torch import nn\ndef build(channels, dims, norm): return nn.Identity()\n"
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        config, directory = small(tmp_path, "norm.name=norm_that_moves_away:build", "max_steps=2")
        run(config, directory)
        assert finished_run.load(directory.path).config == config
    del sys.modules["norm_that_moves_away"]
    with pytest.raises(UserError, match="no module norm_that_moves_away on the path"):
        finished_run.load(directory.path)


def test_the_last_weights_are_used_where_those_met_the_test_set(tmp_path: Path) -> None:
    config, directory = small(
        tmp_path, "norm=gn", "evaluate.checkpoint=last", "optimizer.lr=0.3", "epochs=3"
    )
    own = run(config, directory)
    evaluate.main([str(directory.path)])
    found = evaluated(directory.path / "evaluation")
    assert found["epoch"] == 3
    assert found["loss"] == pytest.approx(own["test_loss"], rel=1e-6)


def test_help_answers_without_torch() -> None:
    code = (
        "import sys\n"
        "from normexp import evaluate, export, predict\n"
        "for command in (evaluate, export, predict):\n"
        "    try:\n"
        "        command.main(['--help'])\n"
        "    except SystemExit as left:\n"
        "        assert left.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("RUN_DIR") >= 6


def test_the_reports_folder_beside_a_run_is_passed_over(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As `outputs/NAME/*` names both."""
    run_only = shutil.copytree(trained, tmp_path / "simple_cnn")
    picture = tmp_path / "report" / "figures" / "error.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture)
    every = [str(path) for path in sorted(tmp_path.iterdir())]
    assert len(every) == 2
    evaluate.main(every)
    assert evaluated(run_only / "evaluation")["run_id"] == trained.name
    out, exported = tmp_path / "run.pt2", []

    def instead(run: finished_run.FinishedRun, form: str, path: Path) -> float:
        exported.append(run.path)
        path.touch()
        return 0.0

    monkeypatch.setattr(exporting, "export", instead)
    export.main([*every, "--out", str(out)])
    assert exported == [run_only]
    with pytest.raises(SystemExit) as left:
        predict.main([*every, str(picture), "--json"])
    assert left.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count('"image"') == 1
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path / "report")])
    assert "no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main([*every, str(trained)])
    assert "one run at a time" in capsys.readouterr().err


def test_the_images_it_was_trained_on_are_no_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels + (part == "test")).save(folder / f"{number}.png")
    pets = ("data=image_folder", f"data.root={tmp_path / 'pets'}", "data.image_size=8")
    settings = [*pets, f"data.cache={tmp_path / 'cache'}", "data.val_fraction=0", "batch_size=4"]
    _, directory = small(tmp_path, *settings)
    run(*small(tmp_path, *settings))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "test").symlink_to(tmp_path / "pets" / "train")
    for given in (
        ["data=image_folder", f"data.root={tmp_path / 'pets'}", "data.test_folder=train"],
        ["data=image_folder", f"data.root={tmp_path / 'again'}"],
    ):
        with pytest.raises(SystemExit):
            evaluate.main([str(directory.path), *given])
        assert "the images that the run was trained on" in capsys.readouterr().err
