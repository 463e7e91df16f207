"""Folders as people have them: which files are images of which class, and what is said of them."""

import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import config, fill, pixels, save, tiff
from refused_data import refusal
from small_runs import SMALL

from normexp import evaluate, predict
from normexp.data import __main__ as data_command
from normexp.data import layout, listing, sources
from normexp.finished import evaluation_files, finished_run, picture_sheet
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.one_run import jobs_of
from normexp.runs.training import run
from normexp.system.errors import UserError

CAFE = "caf\u00e9"


@pytest.fixture(autouse=True)
def _cache(own_cache: Path) -> None:
    """Packed images go to a folder of the test's own."""


def counts(root: Path, **keys: Any) -> list[int]:
    """Images of train and test, and of validation where it has its own."""
    found = sources.load(config(root, **keys))
    sets = [found.train, found.test, *([found.val] if found.val else [])]
    return [len(each.labels) for each in sets]


def notes(root: Path, **keys: Any) -> str:
    return "\n".join(sources.load(config(root, **keys)).notes)


# --- What is an image ----------------------------------------------------------------------------


def test_images_below_a_class_folder_are_taken_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = fill(tmp_path / "data")
    for place, name in enumerate(("x/0", "x-y/0", "x/y/z/0", "aa/1", "aa/0", "z")):
        save(root / "train" / "b" / f"{name}.png", pixels(100 + place))
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "linked.png", pixels(200))
    (root / "train" / "a" / "link").symlink_to(tmp_path / "elsewhere")
    found = sources.load(config(root))
    reference = ImageFolder(str(root / "train"))
    assert found.train.labels.tolist() == reference.targets
    expected = np.stack([np.asarray(image) for image, _ in reference]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found.train.images, expected)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    (root / "train" / "a" / "again").symlink_to(root / "train" / "a")
    (root / "train" / "b" / "all").symlink_to(root / "train")
    found = sources.load(config(root))
    assert found.train.labels.tolist() == [0] * 3 + [1] * 6


def test_content_and_not_the_ending_tells_what_is_an_image(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    image = (root / "train" / "a" / "0.png").read_bytes()
    for name in ("no_ending", "odd.heic", "1.PNG.part"):
        (root / "train" / "a" / name).write_bytes(image)
    texts = {
        "notes.txt": b"P5 is how some images begin",
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "e": b"",
    }
    for name, content in texts.items():
        (root / "train" / "a" / name).write_bytes(content)
    os.mkfifo(root / "train" / "b" / "pipe.png")
    (root / "train" / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    (root / "train" / "a" / ".hidden.png").write_bytes(b"junk")
    (root / "train" / ".hidden").mkdir()
    (root / "test" / "labels.csv").write_text("a,b\n")
    assert counts(root) == [9, 6]
    said = "ignored what is no image or lies in no class, 6 in all: train/a/Thumbs.db, train/a/e, "
    assert f"{said}train/a/notes.txt and 3 more" in notes(root)


def test_folders_without_images_are_no_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    before = sources.fingerprint(config(root))
    (root / "train" / "__MACOSX" / "a").mkdir(parents=True)
    (root / "train" / "__MACOSX" / "a" / "._0.png").write_bytes(b"junk")
    save(root / "train" / "@eaDir" / "0.png" / "thumbnail.jpg", pixels(0))
    save(root / "train" / "a" / "@eaDir" / "0.png" / "thumbnail.jpg", pixels(0))
    (root / "train" / "empty").mkdir()
    found = sources.load(config(root))
    assert found.classes == ("a", "b")
    assert found.fingerprint == before
    said = "left out folders without images of a class: train/@eaDir, train/__MACOSX, "
    assert f"{said}train/a/@eaDir and 1 more" in notes(root)


# --- How sets fit together -----------------------------------------------------------------------


def test_the_same_folder_for_training_and_test_is_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    (root / "linked").symlink_to("train")
    (root / "classes").mkdir()
    (root / "classes" / "a").symlink_to(root / "train" / "a")
    shutil.copytree(root / "test" / "b", root / "classes" / "b")
    save(root / "inside" / "a" / "0.png", pixels(0))
    shutil.copytree(root / "train", root / "inside" / "test")
    same = [("train", "train"), ("linked", "train"), ("train", "./train"), ("classes", "train")]
    for test, train in [*same, ("inside/test", "inside"), ("inside", "inside/test")]:
        message = refusal(config(root, train_folder=train, test_folder=test))
        assert "hold the same folders" in message
        assert "give data.test_folder=NAME" in message
    assert counts(root, train_folder="train", test_folder="test") == [6, 6]
    message = refusal(config(root, val_folder="linked"))
    assert "data.val_folder=none" in message


def test_images_in_training_and_test_are_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    assert "among" not in notes(root)
    shutil.copy(root / "train" / "a" / "0.png", root / "test" / "a" / "copy.png")
    os.link(root / "train" / "b" / "1.png", root / "test" / "b" / "linked.png")
    shutil.copytree(root / "train", root / "val")
    for _ in range(2):  # when packed, and when mapped
        found = notes(root)
        assert "among the training images too: 2 of 8 test images" in found
        assert "among the training images too: 6 of 6 validation images" in found


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", classes="abcd")
    for name in "bd":
        shutil.rmtree(root / "test" / name)
    assert "no test images of 2 of 4 classes: b, d" in notes(root)
    shutil.rmtree(root / "train" / "a")
    assert f"{root / 'test' / 'a'} is a class that {root / 'train'} does not have" in refusal(
        config(root)
    )


def test_a_validation_folder_is_found_by_its_usual_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    for place, name in enumerate(("val", "Valid", "validation", "dev")):
        save(root / name / "a" / "0.png", pixels(300 + place))
        settled, ignored = sources.settle(config(root))
        assert (settled.val_folder, ignored) == (name, [])
        assert sources.settle(settled) == (settled, [])
        assert counts(root) == [6, 6, 1]
        assert f"the validation images are those of {root / name}" in notes(root)
        assert "no validation images of 1 of 2 classes: b" in notes(root)
        (root / name).rename(root / f"my {name}")
    assert counts(root) == [6, 6]
    assert counts(root, val_folder="my dev") == [6, 6, 1]
    alone = {sources.fingerprint(config(root, val_folder=f"my {name}")) for name in ("val", "dev")}
    assert len(alone | {sources.fingerprint(config(root))}) == 3


def test_a_validation_folder_takes_the_place_of_a_share(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    save(root / "val" / "a" / "0.png", pixels(300))
    settled, (note,) = sources.settle(config(root, val_fraction=0.5))
    assert note.startswith("data.val_fraction=0.5 is ignored: ")
    assert settled == sources.settle(config(root))[0]
    assert counts(root, val_fraction=0.0) == [6, 6]
    assert counts(root, val_folder="none") == [6, 6]
    assert counts(root, test_folder="val") == [6, 1]
    save(root / "dev" / "a" / "0.png", pixels(301))
    assert "data.val_folder=dev, or data.val_folder=none" in refusal(config(root))


def test_folders_of_classes_alone_are_split_alike_by_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", classes="abc", count=20)
    flat = (root / "train").rename(tmp_path / "flat")
    save(flat / "c" / "more" / "0.png", pixels(500))
    found = sources.load(config(flat))
    assert Counter(found.test.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert Counter(found.train.labels.tolist()) == {0: 16, 1: 16, 2: 17}
    every = np.concatenate([found.train.images, found.test.images]).reshape(61, -1)
    assert len(np.unique(every, axis=0)) == 61
    assert "data.test_fraction=0.2 is set aside for the test" in notes(flat)
    settled, _ = sources.settle(config(flat))
    assert (settled.train_folder, settled.test_fraction) == (".", 0.2)
    assert sources.settle(settled) == (settled, [])
    assert sources.fingerprint(settled) == found.fingerprint
    assert sources.fingerprint(config(flat, split_seed=1)) != found.fingerprint
    assert counts(flat, test_fraction=0.5) == [31, 30]


def test_a_share_for_the_test_where_there_is_a_training_folder(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", count=10)
    _, (note,) = sources.settle(config(root, test_fraction=0.3))
    assert "data.test_fraction=0.3 is ignored" in note
    shutil.rmtree(root / "test")
    assert "data.test_fraction=0.2 to test on a share" in refusal(config(root))
    assert counts(root, test_fraction=0.3) == [14, 6]
    assert "leaves no image of any class" in refusal(config(root, test_fraction=0.01))
    assert f"there is no {root / 'tset'}" in refusal(
        config(root, test_fraction=0.3, test_folder="tset")
    )


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("Training", "Testing"), "data.train_folder=NAME data.test_folder=NAME"),
        (("cat", "val"), "data.train_folder=NAME data.test_folder=NAME"),
        (("pets/train", "pets/test"), "data.root=ROOT/pets"),
    ],
)
def test_parts_of_a_data_set_are_not_taken_for_classes(
    tmp_path: Path, folders: tuple[str, str], says: str
) -> None:
    for folder in folders:
        fill(tmp_path, train=f"data/{folder}", test=f"data/{folder}")
    assert says.replace("ROOT", str(tmp_path / "data")) in refusal(config(tmp_path / "data"))


# --- Names ---------------------------------------------------------------------------------------


def renamed(root: Path, part: str, name: str) -> None:
    (root / part / "b").rename(root / part / name)


def test_spellings_of_one_name_are_one_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    other = unicodedata.normalize("NFD", CAFE)
    assert other != CAFE
    renamed(root, "train", CAFE)
    renamed(root, "test", other)
    found = sources.load(config(root))
    assert found.classes == ("a", CAFE)
    assert found.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    shutil.copytree(root / "train" / "a", root / "train" / other)
    message = refusal(config(root))
    assert r"'caf\xe9'" in message
    assert r"'cafe\u0301'" in message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    for part in ("train", "test"):
        renamed(root, part, os.fsdecode(b"caf\xe9"))
    message = refusal(config(root))
    assert rf"{root / 'train'}/caf\udce9: " in message
    message.encode()
    assert "rename" in message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_files_may_have_any_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    for name in (b"\xe9.png", b"\xe9.txt", b"a\nb.txt"):
        path = root / "train" / "a" / os.fsdecode(name)
        path.write_bytes((root / "train" / "a" / "0.png").read_bytes() if b"png" in name else b"")
    assert counts(root) == [7, 6]
    said = notes(root)
    assert r"train/a/a\nb.txt, train/a/\udce9.txt" in said
    said.encode()
    (root / "train" / "a" / os.fsdecode(b"\xe9.png")).write_bytes(b"junk")
    message = refusal(config(root))
    assert rf"{root}/train/a/\udce9.png" in message
    message.encode()


def test_letters_that_no_font_has_are_numbered(tmp_path: Path) -> None:
    """Any warning of matplotlib is an error here."""
    names = ["plain", "\U00012000", CAFE]  # of the second, cuneiform, matplotlib has no letter
    record = {"by_class": [{"class": name} for name in names]}
    evaluation_files.write(tmp_path, record, np.eye(3, dtype=np.int64))
    figure = evaluation_files._picture(names, np.eye(3, dtype=np.int64))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["plain", "class 2", CAFE]
    assert "row 1 of confusion.csv" in figure.axes[0].get_xlabel()
    shown = [("\U00012001.png", pixels(0).transpose(2, 0, 1), [(names[1], 0.9), (names[0], 0.1)])]
    unwritable = picture_sheet.draw(shown, names, tmp_path / "sheet.png")
    assert unwritable == {names[1]: "class 2"}
    assert (tmp_path / "sheet.png").stat().st_size > 0


# --- Runs ----------------------------------------------------------------------------------------


def trained(root: Path, output: Path, *more: str) -> RunDirectory:
    settings = (*SMALL, "data=image_folder", f"data.root={root}", f"output={output}", "norm=bn")
    (job,) = jobs_of(compose([*settings, "batch_size=4", "epochs=1", "max_steps=3", *more]))
    run([job], [])
    return job[1]


def test_every_run_says_what_it_left_out_and_every_command_uses_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path / "data", classes="abc", count=6)
    save(root / "val" / "a" / "0.png", pixels(300))
    (root / "train" / "a" / "Thumbs.db").write_bytes(b"junk")
    (root / "train" / "__MACOSX").mkdir()
    shutil.copy(root / "train" / "a" / "0.png", root / "test" / "a" / "copy.png")
    shutil.rmtree(root / "test" / "b")
    expected = (
        "ignored what is no image or lies in no class, 1 in all: train/a/Thumbs.db",
        "left out folders without images of a class: train/__MACOSX",
        "among the training images too: 1 of 13 test images",
        "no test images of 1 of 3 classes: b",
        f"the validation images are those of {root / 'val'}, data.val_folder=val",
    )
    first, second = (trained(root, tmp_path, f"seed={seed}") for seed in (0, 1))
    for directory in (first, second):
        log = directory.log.read_text()
        assert [note for note in expected if f"note: {note}" not in log] == []
        assert "18 training, 1 validation, 13 test images" in log
    capsys.readouterr()
    evaluate.main([str(first.path), "--json"])
    said = capsys.readouterr()
    assert [note for note in expected if note not in said.err] == []
    assert json.loads(said.out)[0]["images"] == 13
    result = first.result()
    assert result is not None
    assert json.loads(said.out)[0]["accuracy"] == result["test_acc"]
    data_command.main(["fetch", "data=image_folder", f"data.root={root}", "data.image_size=8"])
    said = capsys.readouterr()
    assert [note for note in expected if f"note: {note}" not in said.out] == []
    assert "18 train, 1 validation, 13 test" in said.out
    with pytest.raises(SystemExit):
        predict.main([str(first.path), str(root / "train"), "--json"])
    said = capsys.readouterr()
    assert said.out.count('"image"') == 18
    assert "ignored 1 files that are no images: a/Thumbs.db" in said.err


def test_validation_is_of_the_images_in_its_folder(tmp_path: Path) -> None:
    """Of one class, which a network that says always the other gets all wrong."""
    root = fill(tmp_path / "data")
    for index in range(7):
        save(root / "val" / "b" / f"{index}.png", pixels(400 + index))
    directory = trained(root, tmp_path, "optimizer.lr=1e-9", "evaluate.checkpoint=last")
    loaded = finished_run.load(directory.path)
    images = sources.load(loaded.config.data).val
    assert images is not None
    mean, std = (np.array(each).reshape(1, 3, 1, 1) for each in (loaded.mean, loaded.std))
    import torch

    with torch.no_grad():
        inputs = torch.from_numpy((images.images / 255 - mean) / std).float()
        guesses = loaded.network.eval()(inputs).argmax(1)
    result = directory.result()
    assert result is not None
    assert result["val_acc"] == pytest.approx((guesses == 1).double().mean().item())


def test_a_run_goes_by_the_validation_folder_and_the_share_it_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    settings = [*SMALL, "data=image_folder", f"data.root={root}"]

    def identity(*more: str) -> str:
        ((_, directory),) = jobs_of(compose([*settings, *more]))
        return directory.run_id

    before = identity()
    save(root / "val" / "a" / "0.png", pixels(300))
    found = identity()
    assert found == identity("data.val_folder=val") == identity("data.val_fraction=0.3")
    assert len({before, found, identity("data.val_folder=none")}) == 3
    flat = (root / "train").rename(tmp_path / "flat")
    settings[-1] = f"data.root={flat}"
    assert identity() == identity("data.test_fraction=0.2", "data.train_folder=.")
    assert identity() != identity("data.test_fraction=0.4")


def test_predict_and_evaluate_see_deep_images_as_training_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, generator = tmp_path / "data", np.random.default_rng(0)
    for part, name, index in np.ndindex(2, 2, 6):
        path = root / ("train", "test")[part] / "ab"[name] / f"{index}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 4096 >> 3 * part, (8, 8))  # test images are darker
        path.write_bytes(tiff(values.astype("u2")))
    directory = trained(root, tmp_path)
    capsys.readouterr()

    def shares(*images: Path) -> tuple[list[float], str]:
        with pytest.raises(SystemExit):
            predict.main([str(directory.path), *map(str, images), "--json", "--top", "1"])
        said = capsys.readouterr()
        found = [each["predictions"][0]["probability"] for each in json.loads(said.out)]
        return found, said.err

    tests = sorted((root / "test").rglob("*.tif"))
    found, error = shares(*tests)
    assert error == ""
    loaded = finished_run.load(directory.path)
    dataset = sources.load(loaded.config.data)
    import torch

    with loaded.for_single_images():
        logits = loaded.logits(torch.from_numpy(np.array(dataset.test.images)))
    expected = logits.double().softmax(1).amax(1).tolist()
    np.testing.assert_allclose(found, expected, atol=1e-6)

    # The test images alone, elsewhere, are shown as the run's and not by their own range.
    shutil.copytree(root / "test", tmp_path / "other" / "test")
    own, other = (
        json_of(directory, tmp_path, *settings)
        for settings in ((), ("data=image_folder", f"data.root={tmp_path / 'other'}"))
    )
    assert (own["loss"], own["by_class"]) == (other["loss"], other["by_class"])
    assert any("0 to 4,095 is black to white, as in training" in note for note in other["notes"])

    bright, small = tmp_path / "bright.tif", tmp_path / "float.tif"
    bright.write_bytes(tiff(np.full((8, 8), 50_000, "u2")))
    small.write_bytes(tiff(np.full((8, 8), 0.5, "f4")))
    capsys.readouterr()
    found, error = shares(bright, bright, small)
    assert len(found) == 2
    note, refused = error.splitlines()
    assert "values from 50000 to 50000: what is beyond 0 to 4,095 becomes black or white" in note
    assert "float.tif (its pixels are floating-point values" in refused


def json_of(directory: RunDirectory, tmp_path: Path, *settings: str) -> dict[str, Any]:
    evaluate.main([str(directory.path), *settings, "--out", str(tmp_path / "scores")])
    written = tmp_path / "scores" / directory.run_id / "evaluation.json"
    found: dict[str, Any] = json.loads(written.read_text())
    return found


def test_spellings_of_names_are_matched_in_another_test_set_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path / "data", count=6)
    for part in ("train", "test"):
        renamed(root, part, CAFE)
    directory = trained(root, tmp_path)
    shutil.copytree(root / "test", tmp_path / "other" / "test")
    (tmp_path / "other" / "test" / CAFE).rename(
        tmp_path / "other" / "test" / unicodedata.normalize("NFD", CAFE)
    )
    shutil.rmtree(tmp_path / "other" / "test" / "a")
    capsys.readouterr()
    found = json_of(directory, tmp_path, "data=image_folder", f"data.root={tmp_path / 'other'}")
    assert [each["images"] for each in found["by_class"]] == [0, 6]
    assert "no test images of 1 of 2 classes: a" in capsys.readouterr().err


def test_a_file_without_an_ending_is_looked_into_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "data")
    (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "no_ending")
    looked: list[str] = []

    def is_image(path: str) -> bool:
        looked.append(path)
        return True

    monkeypatch.setattr(listing, "is_image", is_image)
    for _ in range(3):
        layout.sets_of(config(root))
    assert looked == [str(root / "train" / "a" / "no_ending")]


def test_a_share_out_of_range_is_refused() -> None:
    for share in ("0", "1", "-0.5"):
        with pytest.raises(
            UserError, match=r"data\.test_fraction=.*greater than 0 and less than 1"
        ):
            compose(["data=image_folder", f"data.test_fraction={share}"])
