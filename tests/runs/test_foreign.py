"""Runs, images and places of anyone: nothing foreign is run, waited for, overwritten or obeyed."""

import csv
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
import torch
import yaml
from fake_runs import write_run
from PIL import Image
from small_runs import run, small

from normexp import evaluate, export, predict
from normexp.bench.engine import keep
from normexp.config.schema import DataConfig, DataName
from normexp.data import cifar
from normexp.data.cifar_versions import CIFAR10
from normexp.data.decoding import UnreadableImage, decode
from normexp.finished import finished_run
from normexp.finished.evaluation_files import write as write_evaluation
from normexp.report.__main__ import main as report
from normexp.system.errors import UserError
from normexp.system.foreign_files import IMAGES, read_json
from normexp.system.printable import csv_cell, printable, to_json
from normexp.system.writing import refuse_unwritable, replacing

Change = Callable[[dict[str, Any]], object]
ODD = "=cmd|\x1b[31m$\\frac|<b>[x](y)\nnext"
SHOWN = "=cmd|\\x1b[31m$\\frac|<b>[x](y)\\nnext"

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")


@pytest.fixture(autouse=True)
def _hangs_end() -> Iterator[None]:
    """What waits for a FIFO or reads a device is stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, directory = small(
        tmp_path_factory.mktemp("runs"), "norm=bn", "data.image_size=32", "max_steps=2"
    )
    run(config, directory)
    return directory.path


def stranger(trained: Path, folder: Path, change: Change) -> Path:
    """A run whose best.pt somebody made."""
    path = shutil.copytree(trained, folder / "stranger")
    best = path / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    change(state)
    torch.save(state, best)
    return path


def refused(main: Callable[[list[str]], None], *arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in arguments])
    assert left.value.code == 2


# --- code


def of_norm(name: str, source: str = "") -> Change:
    def change(state: dict[str, Any]) -> None:
        state["config"]["norm"]["name"] = name
        state["beside_config"]["norm_source"] = source

    return change


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("command", [evaluate, predict, export])
@pytest.mark.parametrize("known", [True, False])
def test_a_run_may_not_choose_a_part_of_python_as_its_norm(
    command: ModuleType, known: bool, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    spec = importlib.util.find_spec("antigravity")  # opens a browser where it is imported
    assert spec is not None
    assert spec.origin is not None
    source = digest(Path(spec.origin)) if known else ""
    path = stranger(trained, tmp_path, of_norm("antigravity:geohash", source))
    refused(command.main, path, *([tmp_path] if command is predict else []))
    (line,) = capsys.readouterr().err.splitlines()
    assert spec.origin in line
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["normexp.runs.sweep:this_run", "torch.nn.functional:relu"])
def test_nor_an_installed_package(name: str, trained: Path, tmp_path: Path) -> None:
    spec = importlib.util.find_spec(name.partition(":")[0])
    assert spec is not None
    assert spec.origin is not None
    path = stranger(trained, tmp_path, of_norm(name, digest(Path(spec.origin))))
    with pytest.raises(UserError, match="installed package"):
        finished_run.load(path)


@pytest.mark.parametrize("name", ["evil_mod:build", "evil_package.inner:build"])
def test_a_module_is_run_only_if_it_is_known_to_be_the_runs(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And before that no package around it."""
    monkeypatch.syspath_prepend(tmp_path)
    module = name.partition(":")[0]
    file = tmp_path / f"{module.replace('.', '/')}.py"
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "evil_package").mkdir(exist_ok=True)
    (tmp_path / "evil_package" / "__init__.py").touch()
    file.write_text(
        "from torch import nn\ndef build(channels, dims, norm): return nn.BatchNorm2d(channels)\n"
    )
    loaded = {module, module.partition(".")[0]}
    for source, says in (("", f"ask for it: --norm {name}"), ("0" * 64, "not what it was")):
        path = stranger(trained, tmp_path / (source or "none"), of_norm(name, source))
        with pytest.raises(UserError, match=says):
            finished_run.load(path)
        assert loaded.isdisjoint(sys.modules)
    finished_run.load(stranger(trained, tmp_path / "good", of_norm(name, digest(file))))
    assert f"its norm {name} is the code of {file}" in capsys.readouterr().err
    for each in loaded:
        monkeypatch.delitem(sys.modules, each)


# --- places


def test_places_and_addresses_are_the_persons(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMEXP_DATA", str(tmp_path / "mine"))
    theirs = {"name": "cifar10", "root": str(tmp_path / "theirs")}
    theirs |= {"url": "http://localhost:9/x", "cache": str(tmp_path / "cache")}
    path = stranger(trained, tmp_path, lambda state: state["config"]["data"].update(theirs))
    data = finished_run.load(path).config.data
    assert (data.url, data.cache) == (None, None)
    # Where it is not there to be read, it would be fetched.
    assert data.root == str(tmp_path / "mine")
    files = tmp_path / "theirs" / CIFAR10.folder
    files.mkdir(parents=True)
    for name in CIFAR10.md5:
        (files / name).touch()
    assert finished_run.load(path).config.data.root == str(tmp_path / "theirs")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(run_id="../../elsewhere"),
        lambda state: state.update(run_id="/elsewhere"),
        lambda state: state.update(run_id=".."),
        lambda state: state.pop("run_id"),
        lambda state: state["config"]["model"].update(name="${oc.env:HOME}"),
        lambda state: state.update(classes=[3] * 10),
        lambda state: state.update(mean=None),
        lambda state: state.update(epoch=torch.zeros(3)),
        lambda state: state.update(mean=[math.nan] * 3),
        lambda state: state.update(std=[0.2, 0.2, math.nan]),
        lambda state: state.update(std=[0.0, 0.2, 0.2]),
        lambda state: state.update(std=[0.2, 0.2, 0.6]),
        lambda state: state.update(levels={"low": "0", "high": 1, "integers": True}),
        lambda state: state.update(levels={"low": 1.0, "high": 1.0, "integers": True}),
        lambda state: state.update(config="none"),
    ],
)
def test_a_checkpoint_that_no_run_would_write_is_refused(
    change: Change, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no run of normexp wrote it"):
        finished_run.load(stranger(trained, tmp_path, change))


def test_weights_of_another_kind_are_refused(trained: Path, tmp_path: Path) -> None:
    """torch would take them, rounded."""

    def change(state: dict[str, Any]) -> None:
        state["model"] = {name: value.half() for name, value in state["model"].items()}

    with pytest.raises(UserError, match="do not fit"):
        finished_run.load(stranger(trained, tmp_path, change))


# --- what is overwritten


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with a FIFO, a folder, a link to a device, and links to a file and to none."""
    folder = tmp_path / "odd"
    (folder / "folder.png").mkdir(parents=True)
    os.mkfifo(folder / "fifo.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "file").write_text("old")
    (folder / "link.png").symlink_to("file")
    (folder / "new.png").symlink_to("none yet")
    return folder


@pytest.mark.parametrize("name", ["fifo.png", "folder.png", "device.png", "loop.png", "file/x.png"])
def test_only_files_are_replaced_and_that_is_said_before_any_work(
    name: str, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = odd / name
    refused(export.main, "nowhere", "--format", "pt2", "--out", there)
    refused(predict.main, "nowhere", "image", "--figure", there)
    with pytest.raises(UserError, match="--csv"):
        keep(iter(()), {}, there)
    with pytest.raises(UserError, match="--csv"):
        keep(iter(()), {}, there.with_suffix(".csv"))
    if name != "folder.png":
        write_run(tmp_path)
        refused(evaluate.main, "nowhere", "--out", there)
        refused(report, tmp_path, "--out", there)
        assert not (tmp_path / "report").exists()
    every = capsys.readouterr().err.splitlines()
    assert len(every) == (2 if name == "folder.png" else 4)
    assert all(str(there) in line and "choose another place" in line for line in every)
    assert there.is_fifo() or there.is_dir() or there.is_symlink() or name == "file/x.png"


@pytest.mark.parametrize("name", ["link.png", "new.png"])
def test_a_link_that_a_person_names_is_followed(name: str, odd: Path) -> None:
    target = (odd / name).readlink()
    refuse_unwritable(odd / name, "--figure")
    with replacing(odd / name, follow=True) as file:
        file.write(b"new")
    assert (odd / name).readlink() == target
    assert (odd / target).read_bytes() == b"new"


def test_a_link_in_a_run_leads_nowhere_else(odd: Path) -> None:
    """Whoever made the folder would choose what is overwritten."""
    record = {"by_class": [{"class": "a"}, {"class": ODD}]}
    for name in ("evaluation.json", "confusion.csv", "confusion.png"):
        (odd / name).symlink_to("file")
    write_evaluation(odd, record, torch.eye(2, dtype=torch.int64).numpy())
    assert (odd / "file").read_text() == "old"
    rows = list(csv.reader(io.StringIO((odd / "confusion.csv").read_text())))
    assert [row[0] for row in rows[1:]] == rows[0][1:] == ["a", f"'{SHOWN}"]


@pytest.mark.parametrize("name", ["result.json", "train.log", ".lock", "checkpoints/last.pt"])
def test_training_refuses_what_is_in_the_place_of_its_files(name: str, tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    there = directory.path / name
    there.parent.mkdir(parents=True)
    for make in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to(tmp_path / "precious")):
        make(there)
        assert directory.answer() is None
        with pytest.raises(UserError, match="remove it, or choose output"):
            run(config, directory)
        there.rmdir() if there.is_dir() else there.unlink()
    assert not (tmp_path / "precious").exists()


# --- what is read


def test_images_are_files_of_a_size(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (odd / "sparse.png").open("wb") as file:
        file.truncate(60 * 10**9)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (odd / "program.png").write_bytes(postscript)  # for which an interpreter would be started
    for name, says in (
        ("fifo.png", "a FIFO and no file"), ("device.png", "a device and no file"),
        ("sparse.png", "larger than the 1,024 MiB"), ("program.png", "cannot identify"),
        ("folder.png", "a folder and no file"),
    ):  # fmt: skip
        with pytest.raises(UnreadableImage, match=says) as caught:
            decode(odd / name, 8)
        assert str(odd / name) in str(caught.value)
    # As /dev/zero on standard input, which has no size.
    monkeypatch.setattr("normexp.data.decoding.IMAGES", 2**21)
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(UnreadableImage, match="larger"):
        decode(zeros, 8)
    picture = io.BytesIO()
    Image.new("RGB", (3, 3)).save(picture, "png")
    picture.seek(0)
    assert decode(picture, 8).shape == (3, 8, 8)


NESTED = "[" * 10**5 + "]" * 10**5
LAUGHS = "x0: &x0 [1, 1]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        *((name, None, "a FIFO and no file") for name in
          ("result.json", "config.yaml", "metrics.csv", "diagnostics.csv")),
        *((name, 60 * 10**9, "larger than the ") for name in
          ("result.json", "config.yaml", "metrics.csv")),
        ("result.json", NESTED, "nested too deeply"),
        ("config.yaml", "a: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("config.yaml", LAUGHS, "has aliases"),
        ("result.json", '{"test_acc": 1' + "0" * 400 + "}", "too large"),
    ],
)  # fmt: skip
def test_the_report_skips_what_no_run_would_write(
    name: str, content: str | int | None, says: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    broken = write_run(tmp_path, seed=1)
    file = broken.path / name
    file.unlink(missing_ok=True)
    if content is None:
        os.mkfifo(file)
    elif isinstance(content, int):
        with file.open("wb") as empty:
            empty.truncate(content)
    else:
        file.write_text(content)
    if name == "diagnostics.csv":  # of which a run may have none
        report([str(broken.path)])
    else:
        refused(report, broken.path)
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert says in line
    if name == "result.json":
        assert broken.answer() is None


@pytest.mark.parametrize("name", ["result.json", "checkpoints/best.pt"])
def test_a_finished_run_is_read_without_waiting(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(trained, tmp_path / "copy")
    (path / name).rename(path / "away")
    os.mkfifo(path / name)
    if name == "result.json":
        finished_run.load(path)
        assert "its result.json cannot be read" in capsys.readouterr().err
        return
    with pytest.raises(UserError, match=r"best\.pt"):
        finished_run.load(path)
    (path / name).unlink()
    with (path / name).open("wb") as file:
        file.truncate(60 * 10**9)
    with pytest.raises(UserError, match=r"best\.pt cannot be read: larger than"):
        finished_run.load(path)


def test_a_file_of_cifar10_is_one(tmp_path: Path) -> None:
    folder = tmp_path / CIFAR10.folder
    folder.mkdir()
    for name in CIFAR10.md5:
        with (folder / name).open("wb") as file:
            file.truncate(60 * 10**9)
    data = DataConfig(DataName.cifar10, str(tmp_path), verify=False)
    with pytest.raises(UserError, match="data_batch_1: larger than the 1,024 MiB"):
        cifar.load(data)


# --- what is shown


def test_names_are_shown_and_not_obeyed() -> None:
    assert printable(ODD) == SHOWN
    for plain in ("gn", "naïve café", "猫", "क्‍ष", "a\u00a0b"):
        assert printable(plain) == plain
    assert printable("a\u202eb\udce9") == "a\\u202eb\\udce9"
    assert str(UserError(f"{ODD}: no class")) == f"{SHOWN}: no class"
    assert json.loads(to_json(["猫", ODD, "\x9b"])) == ["猫", ODD, "\x9b"]
    assert "\x9b" not in to_json(["\x9b"])
    assert "猫" in to_json(["猫"])


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_name_is_no_formula_and_a_number_stays_one(sign: str) -> None:
    assert csv_cell(f"{sign}SUM(A1)") == f"'{sign}SUM(A1)"
    for number in ("-0.5", "+3", "-1e-05", -0.5, None, "1+1", "a=b"):
        assert csv_cell(number) == number


def test_predictions_show_names_of_classes_and_files_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stranger(trained, tmp_path, lambda state: state.update(classes=[ODD] * 10))
    folder = tmp_path / "images" / ODD.replace("/", "")
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "b\x1b.png").touch()
    sheet = tmp_path / "sheet.svg"
    with pytest.raises(SystemExit):
        predict.main([str(path), str(tmp_path / "images"), "--top", "1", "--figure", str(sheet)])
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path}/images/{SHOWN}/a.png  {SHOWN} ")
    assert len(said.out.splitlines()) == 1
    assert f"{SHOWN}/b\\x1b.png" in said.err
    assert "\x1b" not in said.err + sheet.read_text()


def test_a_report_obeys_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_run(tmp_path, "norm=bn", seed=seed)
        other = write_run(tmp_path, "norm=gn", seed=seed, norm=ODD)
        config = yaml.safe_load((other.path / "config.yaml").read_text())
        config["norm"]["name"] = ODD
        (other.path / "config.yaml").write_text(yaml.safe_dump(config))
    failed = write_run(tmp_path, "norm=ln", status="failed", reason=f"@{ODD}", run_id=ODD)
    failed.path.rename(failed.path.with_name(ODD))
    report([str(tmp_path), "--format", "latex"])
    report([str(tmp_path)])
    texts = [capsys.readouterr().out]
    files = [file for file in (tmp_path / "report").rglob("*") if file.suffix not in ("", ".png")]
    texts += [file.read_text() for file in files]
    assert not any("\x1b" in text for text in texts)
    assert SHOWN in texts[0]
    page, summary = (
        (tmp_path / "report" / name).read_text() for name in ("index.html", "summary.md")
    )
    assert "<b>[x]" not in page
    assert "&lt;b>[x]\\(y)" in summary
    for name in ("runs.csv", "summary.csv"):
        with (tmp_path / "report" / name).open(newline="") as file:
            rows = list(csv.reader(file))
        cells = [cell for row in rows for cell in row]
        assert f"'{SHOWN}" in cells
        odd = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
        assert all(float(cell) < 0 for cell in odd)
    assert f"'@{SHOWN}" in cells or f"'@{SHOWN}" in (tmp_path / "report/runs.csv").read_text()


def test_deep_json_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(NESTED)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "a.json")
    assert IMAGES == 2**30
