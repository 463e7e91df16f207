"""Folders of images: what becomes of pixels and classes, the cache, and what is refused."""

import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import config, fill, pixels, save
from PIL import Image
from refused_data import refusal

from normexp.data import decoders, decoding, image_folder, packing, sources
from normexp.data.__main__ import main
from normexp.data.levels import Extent, Levels


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


def test_images_of_the_right_size_keep_their_pixels(tmp_path: Path) -> None:
    found = sources.load(config(fill(tmp_path / "data")))
    assert found.classes == ("a", "b")
    assert found.train.labels.tolist() == found.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.stack([pixels(seed) for seed in range(12)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found.train.images, expected[:6])
    np.testing.assert_array_equal(found.test.images, expected[6:])
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.dtype == np.int64
    assert found.train.images.flags.c_contiguous
    scaled = expected[:6] / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_more_images_than_a_chunk_stay_in_order(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", count=150)
    found = sources.load(config(root))
    names = sorted(f"{index}.png" for index in range(150))
    expected = np.stack([pixels(int(name[:-4])) for name in names]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found.train.images[:150], expected)


def test_large_images_are_resized_bilinearly(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    # Above 16 kB on average, so that several threads decode.
    for name in ("a", "b"):
        for index in range(3):
            save(root / "train" / name / f"{index}.bmp", pixels(index, size=200))
    found = sources.load(config(root, size=16))
    large = Image.fromarray(pixels(1, size=200)).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.train.images[2].transpose(1, 2, 0), np.asarray(large))


def test_writing_to_the_images_leaves_the_files_alone(tmp_path: Path) -> None:
    data = config(fill(tmp_path / "data"))
    sources.load(data).train.images[:] = 0
    assert sources.load(data).train.images.any()


@pytest.mark.parametrize(
    "extension", ["jfif", "jp2", "tga", "png", "BMP", "ppm", "tif", "TIFF", "gif", "webp", "Jpeg"]
)
def test_formats_are_read_whatever_the_case_of_their_endings(
    tmp_path: Path, extension: str
) -> None:
    root = fill(tmp_path / "data", count=1)
    flat = np.full((8, 8, 3), 120, dtype=np.uint8)
    save(root / "train" / "a" / f"new.{extension}", flat)
    found = sources.load(config(root))
    assert len(found.train.images) == 3
    # Index 1: after 0.png in the class a.
    assert np.abs(found.train.images[1].astype(int) - 120).max() <= 4


def test_grey_palette_alpha_and_16_bit_images_become_rgb(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", count=1)
    grey = pixels(5)[:, :, 0]
    colour = Image.fromarray(pixels(6))
    folder = root / "train" / "a"
    save(folder / "1grey.png", grey)
    save(folder / "2deep.png", grey.astype(np.uint16) * 257)
    palette = colour.convert("P")
    palette.save(folder / "3palette.png")
    colour.convert("RGBA").save(folder / "4alpha.png")
    images = sources.load(config(root)).train.images.transpose(0, 2, 3, 1)
    for index in (1, 2):
        np.testing.assert_array_equal(images[index], np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(images[3], np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(images[4], pixels(6))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    """Of every mode that files have it in; below it lies a colour that nobody should see."""
    colour, alpha = pixels(6), pixels(7)[:, :, 0]
    alpha[0] = 0
    alpha[1] = 255
    share = alpha[:, :, None] / 255
    grey = colour[:, :, 0]
    image = Image.fromarray(np.dstack([colour, alpha]))
    image.save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([grey, alpha])).save(tmp_path / "la.png")
    clear = np.where(alpha[:, :, None] == 0, 255, colour)
    hidden = np.where(alpha[:, :, None] == 0, np.uint8([1, 2, 3]), colour)
    Image.fromarray(hidden).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    places = np.arange(64, dtype=np.uint8).reshape(8, 8)
    palette = Image.frombytes("P", (8, 8), places.tobytes())
    palette.putpalette(colour.reshape(-1))
    palette.save(tmp_path / "palette.png", transparency=bytes(alpha.reshape(-1)))
    palette.save(tmp_path / "palette.gif", transparency=5)
    on_white = share * colour + (1 - share) * 255
    expected = {
        "rgba.png": on_white, "palette.png": on_white, "rgb.png": clear,
        "la.png": (share * grey[:, :, None] + (1 - share) * 255).repeat(3, axis=2),
        "palette.gif": np.where(places[:, :, None] == 5, 255, colour),
    }  # fmt: skip
    for name, values in expected.items():
        found = decoding.decode(tmp_path / name, 8).transpose(1, 2, 0)
        np.testing.assert_allclose(found, values, atol=1, err_msg=name)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", count=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise.
    save(root / "train" / "a" / "turned.png", pixels(7), exif=exif)
    found = sources.load(config(root)).train.images[1].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, np.rot90(pixels(7), k=-1))


def test_names_of_the_folders_are_configurable(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", train="training", test="val")
    found = sources.load(config(root, train_folder="training", test_folder="val"))
    assert len(found.train.images) == len(found.test.images) == 6


def test_test_may_lack_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", classes="abc")
    (root / "test" / "a").rename(tmp_path / "gone")
    assert set(sources.load(config(root)).test.labels.tolist()) == {1, 2}


def test_refusals_name_the_folder_and_the_fix(tmp_path: Path) -> None:
    root = tmp_path / "data"
    message = refusal(config(root))
    assert str(root / "train") in message
    assert "data.root=" in message
    assert "data.train_folder=" in message

    (root / "train" / "a").mkdir(parents=True)
    assert f"{root / 'train'} holds no images" in refusal(config(root))

    save(root / "train" / "a" / "0.png", pixels(0))
    message = refusal(config(root))
    assert str(root / "test") in message
    assert "data.test_folder=" in message

    save(root / "test" / "a" / "0.png", pixels(0))
    message = refusal(config(root))
    assert "single class, a" in message
    assert str(root / "train") in message

    save(root / "train" / "b" / "0.png", pixels(0))
    save(root / "test" / "c" / "0.png", pixels(0))
    assert str(root / "test" / "c") in refusal(config(root))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_broken_image_is_named(tmp_path: Path, cache: Path, content: bytes | None) -> None:
    root = fill(tmp_path / "data")
    broken = root / "test" / "b" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = refusal(config(root))
    assert str(broken) in message
    assert "remove it" in message
    broken.unlink()
    assert len(sources.load(config(root)).test.images) == 5


def test_broken_images_are_named_together_and_the_others_are_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "data", count=70)
    names = [
        "train/a/3.png",
        "train/a/65.png",
        "train/b/1.png",
        *(f"test/b/{n}.png" for n in "2468"),
    ]
    whole = {root / name: (root / name).read_bytes() for name in names}
    for path in whole:
        path.write_bytes(b"no image")
    message = refusal(config(root))
    assert message.startswith("cannot read 7 of 280 images: ")
    paths = sorted(map(str, whole))
    assert [path for path in paths if path in message] == paths[:5]
    (listed,) = cache.glob("*/unreadable.txt")
    assert f"and 2 more, all listed in {listed}; repair or remove them" in message
    assert listed.read_text().splitlines() == paths

    # Two are removed, the others repaired but for one; what was decoded is not decoded again.
    decoded: list[str] = []

    def counted(path: Path, size: int, levels: Callable[[Extent], Levels]) -> np.ndarray:
        decoded.append(str(path))
        return decoding.decode(path, size, levels)

    monkeypatch.setattr(decoders, "decode", counted)
    for name in names[:2]:
        (root / name).unlink()
    for name in names[2:-1]:
        (root / name).write_bytes(whole[root / name])
    message = refusal(config(root))
    assert message.startswith(f"cannot read 1 of 278 images: {root / names[-1]} (")
    assert "unreadable.txt" not in message
    assert sorted(decoded) == sorted(str(root / name) for name in names[2:])
    (root / names[-1]).write_bytes(whole[root / names[-1]])
    os.utime(root / names[-1], ns=(1, 1))
    decoded.clear()
    # Of what was kept the last blocks of train are damaged: 138 images in blocks of 64.
    (kept,) = cache.glob("*.salvage/train_images.npy")
    flip(kept)
    found = sources.load(config(root))
    assert decoded[-1] == str(root / names[-1])
    assert len(decoded) == 1 + 138 - 128
    anew = sources.load(config(root, cache=str(tmp_path / "another cache")))
    np.testing.assert_array_equal(found.train.images, anew.train.images)
    np.testing.assert_array_equal(found.test.images, anew.test.images)
    assert (found.mean, found.std, found.fingerprint) == (anew.mean, anew.std, anew.fingerprint)
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [""]


def test_a_block_that_is_not_whole_is_asked_for_again(tmp_path: Path) -> None:
    """As where packing was killed after it had met an image that cannot be read."""
    shape = (3 * packing.BLOCK, 2)
    expected = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    asked: list[int] = []

    def blocks(first: int) -> Iterator[tuple[np.ndarray, bool]]:
        asked.append(first)
        for start in range(first, len(expected), packing.BLOCK):
            repaired = len(asked) > 1
            block = expected[start : start + packing.BLOCK]
            yield (block, True) if start != packing.BLOCK or repaired else (0 * block, False)

    for _ in range(2):
        found = list(packing.pack(tmp_path / "images.npy", shape, blocks))
    assert asked == [0, packing.BLOCK]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), expected)


# --- The cache -----------------------------------------------------------------------------------


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was opened again")

    monkeypatch.setattr(Image, "open", fail)


def test_later_runs_decode_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = config(fill(tmp_path / "data"))
    first = sources.load(data)
    forbid_decoding(monkeypatch)
    second = sources.load(data)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    assert (first.classes, first.mean, first.std) == (second.classes, second.mean, second.std)
    assert first.fingerprint == second.fingerprint == sources.fingerprint(data)


def test_a_changed_image_and_another_size_are_packed_anew(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    first = sources.load(config(root))
    save(root / "train" / "a" / "0.png", pixels(99))
    os.utime(root / "train" / "a" / "0.png", ns=(1, 1))
    second = sources.load(config(root))
    np.testing.assert_array_equal(second.train.images[0].transpose(1, 2, 0), pixels(99))
    assert second.fingerprint != first.fingerprint
    assert sources.load(config(root, size=4)).train.images.shape == (6, 3, 4, 4)


def test_equal_names_sizes_and_times_elsewhere_are_not_taken_for_the_same(tmp_path: Path) -> None:
    found = []
    for index, name in enumerate(("one", "two")):
        for folder in ("train", "test"):
            for label in ("a", "b"):
                path = save(tmp_path / name / folder / label / "0.bmp", pixels(index))
                os.utime(path, ns=(1, 1))
        found.append(sources.load(config(tmp_path / name)))
    np.testing.assert_array_equal(found[1].train.images[0].transpose(1, 2, 0), pixels(1))
    assert found[0].fingerprint != found[1].fingerprint


def test_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one"), fill(tmp_path / "two", train="x", test="y")
    first = sources.fingerprint(config(one))
    assert first == sources.fingerprint(config(two, train_folder="x", test_folder="y"))
    assert first != sources.fingerprint(config(one, size=4))
    (one / "train" / "a").rename(one / "train" / "a new name")
    (one / "test" / "a").rename(one / "test" / "a new name")
    image_folder._known_fingerprints.clear()
    assert first != sources.fingerprint(config(one))


@pytest.mark.parametrize(
    "damage", ["cut", "meta", "missing", "shape", "labels", "pixel", "label", "mean", "name"]
)
def test_broken_cache_is_packed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    data = config(fill(tmp_path / "data"))
    first = sources.load(data)
    expected, folder = first.train.images.copy(), sources.place(data)
    assert folder is not None
    images, labels = folder / "train_images.npy", folder / "train_labels.npy"
    if damage == "cut":
        content = images.read_bytes()
        images.unlink()  # The first data set still maps the old file.
        images.write_bytes(content[:-1])
    elif damage == "meta":
        (folder / "meta.json").write_text('{"schema_version": 1,')
    elif damage == "missing":
        images.unlink()
    elif damage == "shape":
        images.unlink()
        np.save(images, np.zeros((6, 3, 4, 4), dtype=np.uint8))
    elif damage == "labels":
        np.save(labels, np.full(6, 2))
    elif damage == "pixel":
        flip(images)
    elif damage == "label":
        np.save(labels, np.array([0, 0, 1, 1, 1, 1]))
    else:
        meta = json.loads((folder / "meta.json").read_text())
        meta |= {"mean": [0.5, 0.5, 0.5]} if damage == "mean" else {"classes": ["a", "c"]}
        (folder / "meta.json").write_text(json.dumps(meta))
    again = sources.load(data)
    lines = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert [line.endswith("packing anew") for line in lines] == [True] * (damage != "missing")
    assert (again.classes, again.mean, again.std) == (first.classes, first.mean, first.std)
    np.testing.assert_array_equal(again.train.images, expected)
    assert again.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert json.loads((folder / "meta.json").read_text())["train_images"] == 6


def flip(images: Path, place: int = -1) -> None:
    """A bit of a byte, in a file of its own: others still map the old one."""
    content = bytearray(images.read_bytes())
    content[place] ^= 4
    images.unlink()
    images.write_bytes(content)


def test_a_sample_of_large_images_is_checked_and_all_of_them_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path / "data", count=70)
    data = config(root)
    expected, folder = sources.load(data).train.images.copy(), sources.place(data)
    assert folder is not None
    monkeypatch.setattr(packing, "SAMPLE", 1)  # one block of three
    asked: list[int] = []
    whole = packing.is_block
    monkeypatch.setattr(packing, "is_block", lambda *of: asked.append(of[1]) or whole(*of))
    sources.load(data)
    assert len(asked) == 2  # of train and of test
    flip(folder / "train_images.npy")
    fetch = ["fetch", "--verify", "data=image_folder", f"data.root={root}", "data.image_size=8"]
    main(fetch)
    assert "checked  every image" in capsys.readouterr().out
    np.testing.assert_array_equal(sources.load(data).train.images, expected)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_damage_that_is_drawn_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    data = config(fill(tmp_path / "data", count=70))
    expected, folder = sources.load(data).train.images.copy(), sources.place(data)
    assert folder is not None
    flip(folder / "train_images.npy", 128 + 192 * 64 * block)
    monkeypatch.setattr(packing, "SAMPLE", 1)
    monkeypatch.setattr("random.SystemRandom.sample", lambda *_: [block])
    np.testing.assert_array_equal(sources.load(data).train.images, expected)


def test_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "data")

    def parent(**keys: Any) -> Path:
        place = sources.place(config(root, **keys))
        assert place is not None
        return place.parent

    assert parent(cache=str(tmp_path / "given")) == tmp_path / "given"
    assert parent() == tmp_path / "cache"
    monkeypatch.delenv("NORMEXP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert parent() == tmp_path / "xdg" / "normexp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parent() == tmp_path / "home" / ".cache" / "normexp"


def test_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    message = refusal(config(root, cache=str(tmp_path / "file" / "cache")))
    assert str(tmp_path / "file" / "cache") in message
    assert "data.cache=" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "data")
    write_header = np.lib.format.write_array_header_1_0

    def onto_a_full_disk(file: Any, header: dict[str, Any]) -> None:
        write_header(file, header)
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", onto_a_full_disk)
    message = refusal(config(root))
    assert str(tmp_path / "cache") in message
    assert "No space left on device" in message
    assert "data.cache=" in message


READ = """
import logging, sys
from normexp.config.schema import DataConfig, DataName
from normexp.data import sources
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
data = DataConfig(name=DataName.image_folder, root=sys.argv[1], image_size=8)
found = sources.load(data)
assert "torch" not in sys.modules
print("found", len(found.train.images), found.fingerprint)
"""


def test_processes_that_pack_at_once_pack_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", count=40)
    command = [sys.executable, "-c", READ, str(root)]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert [error for _, error in outputs] == ["", "", ""]  # No bar without a terminal.
    lines = Counter(line for output, _ in outputs for line in output.splitlines())
    assert lines[f"packing 80 images of {root / 'train'}"] == 1
    assert sorted(count for line, count in lines.items() if line.startswith("found 80 ")) == [3]


KILLED = """
import os, signal, sys
from normexp.data import image_folder
count_levels, calls = image_folder.count_levels, []
def killed(images):
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return count_levels(images)
image_folder.count_levels = killed
"""


@pytest.mark.parametrize("damage", ["none", "byte", "cut", "sums", "sum", "all"])
def test_packing_that_was_killed_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """From the first block on that is not whole; written were five of train, two of test."""
    root = fill(tmp_path / "data", count=150)
    ended = subprocess.run([sys.executable, "-c", KILLED + READ, str(root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (part,) = cache.glob("*.part")
    images, sums = part / "train_images.npy", part / "train_images.sums"
    assert len(sums.read_text().split()) == 5
    content = bytearray(images.read_bytes())
    if damage == "byte":
        content[-300 * 192 + 130 * 192] ^= 1  # of image 130, in the third block
        images.write_bytes(content)
    elif damage == "cut":
        images.write_bytes(content[:-1])
    elif damage == "sums":
        sums.unlink()
    elif damage == "sum":
        sums.write_text(sums.read_text()[:-10])  # of the last block
    elif damage == "all":
        images.unlink()
    decoded: list[Path] = []

    def counted(path: Path, size: int, levels: Callable[[Extent], Levels]) -> np.ndarray:
        decoded.append(path)
        return decoding.decode(path, size, levels)

    monkeypatch.setattr(decoders, "decode", counted)
    found = sources.load(config(root))
    missing = {"none": 0, "byte": 300 - 128, "cut": 44, "sums": 300, "sum": 44, "all": 300}
    assert len(decoded) == missing[damage] + 300 - 128
    whole = sources.load(config(root, cache=str(tmp_path / "another cache")))
    np.testing.assert_array_equal(found.train.images, whole.train.images)
    np.testing.assert_array_equal(found.test.images, whole.test.images)
    assert (found.mean, found.std, found.fingerprint) == (whole.mean, whole.std, whole.fingerprint)
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [""]


# --- Real images ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_images(shared_cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 20 images of each class, of train and of test."""
    root = tmp_path_factory.mktemp("jpeg")
    taken: Counter[str] = Counter()
    with tarfile.open(shared_cifar10 / "cifar10-jpeg.tar.xz", "r|xz") as tar:
        for member in tar:
            folder = os.path.dirname(member.name)
            if member.isfile() and taken[folder] < 20:
                taken[folder] += 1
                source = tar.extractfile(member)
                assert source is not None
                (root / folder).mkdir(parents=True, exist_ok=True)
                (root / member.name).write_bytes(source.read())
    return root


def test_real_images_agree_with_torchvision(real_images: Path) -> None:
    from torchvision.datasets import ImageFolder

    found = sources.load(config(real_images, size=32))
    for part, images in (("train", found.train), ("test", found.test)):
        reference = ImageFolder(str(real_images / part))
        assert found.classes == tuple(reference.classes)
        assert images.labels.tolist() == reference.targets
        expected = np.stack([np.asarray(image) for image, _ in reference]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(images.images, expected)
    assert len(found.train.images) == len(found.test.images) == 200
