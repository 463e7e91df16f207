"""Images of more than 8 bits a channel: one black and white for all, found from the data."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_folders import config, png_of_16_bits, save, tiff
from PIL import Image
from refused_data import refusal

from normexp.data import decoding, sources
from normexp.data.levels import SIXTEEN_BITS, Extent, Levels, levels_of
from normexp.system.errors import UserError

TWELVE = Levels(0, 4096, integers=True)
VALUES = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), dtype=np.uint16)
"""12-bit pixels, as cameras put them into files of 16 bits."""


@pytest.fixture(autouse=True)
def _cache(own_cache: Path) -> None:
    """Packed images go to a folder of the test's own."""


@pytest.mark.parametrize(
    ("least", "greatest", "low", "high"),
    [
        (0, 3, 0, 256), (0, 255, 0, 256), (5, 256, 0, 1024), (0, 1023, 0, 1024),
        (0, 4095, 0, 4096), (700, 4096, 0, 16384), (0, 16384, 0, 65536), (0, 65535, 0, 65536),
        (0, 65536, 0, 2**17), (0, 2**32 - 1, 0, 2**32),
        (-1024, 3071, -1024, 4096), (-1025, 3071, -2048, 4096), (-1, 0, -1, 1), (-30, -5, -32, 1),
    ],
)  # fmt: skip
def test_integers_reach_to_the_bits_that_hold_all_of_them(
    least: int, greatest: int, low: float, high: float
) -> None:
    extents = [Extent(least, least, True), Extent(least, greatest, True)]
    assert levels_of(extents) == Levels(low, high, integers=True)


@pytest.mark.parametrize(
    ("least", "greatest", "expected"),
    [(0.2, 0.7, (0, 1)), (0, 1, (0, 1)), (-0.1, 1, (-0.1, 1)), (3.5, 90.25, (3.5, 90.25))],
)
def test_floating_point_values_reach_from_0_to_1_or_from_the_least_to_the_greatest(
    least: float, greatest: float, expected: tuple[float, float]
) -> None:
    found = levels_of([Extent(least, greatest, False)])
    assert (found.low, found.high) == expected


def test_steps_are_of_equal_width_and_what_was_8_bits_comes_back() -> None:
    eight = np.arange(256)
    for bits in (10, 12, 14, 16):
        levels = Levels(0, 2**bits, integers=True)
        every = levels.to_8_bit(np.arange(2**bits))
        np.testing.assert_array_equal(np.bincount(every), [2 ** (bits - 8)] * 256)
        # By shifting, and by scaling white to white.
        np.testing.assert_array_equal(levels.to_8_bit(eight << bits - 8), eight)
        scaled = np.rint(eight / 255 * (2**bits - 1)).astype(int)
        np.testing.assert_array_equal(levels.to_8_bit(scaled), eight)
    unit = Levels(0, 1, integers=False)
    np.testing.assert_array_equal(unit.to_8_bit((eight / 255).astype(np.float32)), eight)
    clipped = unit.to_8_bit(np.array([-3.0, 2.0]))
    assert clipped.tolist() == [0, 255]


def as_decoded(content: bytes, levels: Levels, tmp_path: Path) -> np.ndarray:
    (tmp_path / "image").write_bytes(content)
    return decoding.decode(tmp_path / "image", 8, lambda extent: levels).transpose(1, 2, 0)


COLOUR: dict[str, Callable[[], bytes]] = {
    "png": lambda: png_of_16_bits(VALUES),
    "ppm": lambda: b"P6 8 8 65535\n" + VALUES.astype(">u2").tobytes(),
    "little": lambda: tiff(VALUES),
    "big": lambda: tiff(VALUES, ">"),
    "packed little": lambda: tiff(VALUES, compressed=True),
    "packed big": lambda: tiff(VALUES, ">", compressed=True),
}


@pytest.mark.parametrize("form", list(COLOUR))
def test_colours_keep_the_bits_that_pillow_drops(form: str, tmp_path: Path) -> None:
    found = as_decoded(COLOUR[form](), TWELVE, tmp_path)
    np.testing.assert_array_equal(found, VALUES >> 4)


GREY: dict[str, Callable[[], bytes]] = {
    "png": lambda: png_of_16_bits(VALUES[..., :1]),
    "pgm": lambda: b"P5 8 8 65535\n" + VALUES[..., 0].astype(">u2").tobytes(),
    **{
        f"{kind} {order}": lambda kind=kind, order=order: tiff(VALUES[..., 0].astype(kind), order)
        for kind in ("u2", "i2", "i4") for order in "<>"
    },
    "u4": lambda: tiff(VALUES[..., 0].astype("u4")),
}  # fmt: skip


@pytest.mark.parametrize("form", list(GREY))
def test_grey_images_keep_their_bits(form: str, tmp_path: Path) -> None:
    found = as_decoded(GREY[form](), TWELVE, tmp_path)
    np.testing.assert_array_equal(found, np.stack([VALUES[..., 0] >> 4] * 3, axis=2))


def test_negative_and_large_and_fractional_values_keep_their_places(tmp_path: Path) -> None:
    ramp = np.arange(64).reshape(8, 8)
    for values, levels in (
        (tiff((ramp * 64 - 2048).astype("i2")), Levels(-2048, 2048, True)),
        (tiff((ramp * 4 - 128).astype("i1")), Levels(-128, 128, True)),
        (tiff((ramp * 2**26).astype("u4")), Levels(0, 2**32, True)),
        (tiff((ramp * 0.5).astype("f4")), Levels(0, 32, False)),
    ):
        found = as_decoded(values, levels, tmp_path)
        np.testing.assert_array_equal(found[..., 0], ramp * 4)


def test_transparency_and_turns_of_deep_images(tmp_path: Path) -> None:
    alpha = np.where(np.arange(64).reshape(8, 8, 1) < 16, 0, 65535).astype(np.uint16)
    expected = np.where(alpha == 0, 255, VALUES >> 4)
    coloured = png_of_16_bits(np.concatenate([VALUES, alpha], 2))
    np.testing.assert_array_equal(as_decoded(coloured, TWELVE, tmp_path), expected)
    grey = png_of_16_bits(np.concatenate([VALUES[..., :1], alpha], 2))
    found = as_decoded(grey, TWELVE, tmp_path)
    np.testing.assert_array_equal(found, expected[..., :1].repeat(3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(VALUES[..., 0]).save(tmp_path / "turned.png", exif=exif)
    found = decoding.decode(tmp_path / "turned.png", 8, lambda extent: TWELVE)
    np.testing.assert_array_equal(found[0], np.rot90(VALUES[..., 0] >> 4, k=-1))


def test_channels_that_lie_apart_are_refused_for_pillow_mistakes_them(tmp_path: Path) -> None:
    (tmp_path / "apart.tif").write_bytes(tiff(VALUES, planes=2))
    with pytest.raises(UserError, match=r"apart\.tif \(16 bits a channel, each channel apart"):
        decoding.decode(tmp_path / "apart.tif", 8, lambda extent: TWELVE)


def deep(root: Path, scale: int = 1, kind: str = "u2", count: int = 4) -> Path:
    """Training images that end at 1000 and test images that end at 800, times ``scale``."""
    generator = np.random.default_rng(0)
    for part, most in (("train", 1000), ("test", 800)):
        for name in "ab":
            for index in range(count):
                values = generator.integers(0, most + 1, (8, 8)) * scale
                values[0, 0] = most * scale
                path = root / part / name / f"{index}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tiff(values.astype(kind)))
    return root


def test_one_range_for_the_whole_set_is_that_of_the_training_images(tmp_path: Path) -> None:
    found = sources.load(config(deep(tmp_path / "data")))
    assert found.levels == Levels(0, 1024, True)
    assert found.train.images.max() == 1000 >> 2
    assert found.test.images.max() == 800 >> 2
    note = "16 images have more than 8 bits a channel: 0 to 1,023 is black to white"
    assert any(note in each for each in found.notes)
    again = sources.load(config(tmp_path / "data"))
    assert (again.levels, again.notes) == (found.levels, found.notes)


def test_16_bits_are_what_they_were(tmp_path: Path) -> None:
    """The upper eight bits, so that finished runs on such images keep their names."""
    root = deep(tmp_path / "data", scale=65)
    found = sources.load(config(root))
    with Image.open(root / "train" / "a" / "0.tif") as image:
        np.testing.assert_array_equal(found.train.images[0][0], np.asarray(image) >> 8)


def test_images_of_8_bits_among_them_stay_as_they_are(tmp_path: Path) -> None:
    root = deep(tmp_path / "data")
    grey = np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)
    save(root / "train" / "a" / "00.png", grey)
    found = sources.load(config(root)).train.images
    np.testing.assert_array_equal(found[1], np.stack([grey] * 3))


def test_values_beyond_the_training_images_are_counted(tmp_path: Path) -> None:
    root = deep(tmp_path / "data")
    (root / "test" / "a" / "0.tif").write_bytes(tiff(np.full((8, 8), 5000, dtype="u2")))
    found = sources.load(config(root))
    assert found.test.images[0].min() == 255
    assert any("beyond that become black or white in 1 of 8 such test" in x for x in found.notes)


def test_test_images_alone_of_16_bits_are_said_to_be_taken_so(tmp_path: Path) -> None:
    root = deep(tmp_path / "data")
    for path in (root / "train").rglob("*.tif"):
        save(path.with_suffix(".png"), np.zeros((8, 8), np.uint8))
        path.unlink()
    found = sources.load(config(root))
    assert found.levels == SIXTEEN_BITS
    assert found.test.images.max() == 800 >> 8
    assert any("0 to 65,535 is black to white, all of 16 bits" in each for each in found.notes)


def test_what_says_nothing_of_black_and_white_is_refused(tmp_path: Path) -> None:
    root = deep(tmp_path / "data", kind="f4")
    odd = root / "train" / "b" / "2.tif"
    for value in (np.nan, np.inf):
        odd.write_bytes(tiff(np.full((8, 8), value, dtype="f4")))
        message = refusal(config(root))
        assert f"{odd} (some of its values are infinite or no numbers (NaN))" in message
    odd.write_bytes(tiff(np.full((8, 8), 7, dtype="u2")))
    assert "integers and some floating-point values" in refusal(config(root))
    odd.unlink()
    odd = root / "test" / "b" / "2.tif"
    odd.write_bytes(tiff(np.full((8, 8), 7, dtype="u2")))
    assert f"{odd} (its pixels are integers" in refusal(config(root))
    for path in (root / "train").rglob("*.tif"):
        path.write_bytes(tiff(np.full((8, 8), 7.5, dtype="f4")))
    assert "are 7.5 everywhere" in refusal(config(root))


READ = """
import sys
from normexp.config.schema import DataConfig, DataName
from normexp.data import sources
sources.load(DataConfig(name=DataName.image_folder, root=sys.argv[1], image_size=8))
"""
KILLED = """
import json, os, signal
from normexp.data import image_folder
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
image_folder.mean_and_std = killed
"""


def test_packing_that_was_killed_at_its_end_knows_black_and_white_still(tmp_path: Path) -> None:
    root = deep(tmp_path / "data")
    ended = subprocess.run([sys.executable, "-c", KILLED + READ, str(root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = sources.load(config(root))
    assert found.levels == Levels(0, 1024, True)
    assert "found from the training images" in " ".join(found.notes)
    whole = sources.load(config(root, cache=str(tmp_path / "another cache")))
    np.testing.assert_array_equal(found.train.images, whole.train.images)
    (folder,) = [path for path in Path(os.environ["NORMEXP_CACHE"]).iterdir() if path.is_dir()]
    assert not (folder / "measured.json").exists()
