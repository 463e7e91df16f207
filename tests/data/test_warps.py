"""Random resized crops and rotations: torchvision's, image by image; fair as every other draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import run, same_tensors, small, state
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from normexp.config.schema import DataConfig, DataName
from normexp.data import batches as batches_module
from normexp.data.batches import HostPixels, Pictures, TrainingBatches, plan_epoch
from normexp.data.images import Dataset, ImageSet
from normexp.data.warps import resized_crops, rotations
from normexp.runs.composing import compose
from normexp.system.errors import UserError

CPU = torch.device("cpu")
BILINEAR = InterpolationMode.BILINEAR


def noise(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def data_of(**keys: Any) -> DataConfig:
    return DataConfig(DataName.synthetic, **keys)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=st.integers(2, 40))
def test_a_window_of_whole_pixels_is_torchvisions_resized_crop(
    data: st.DataObject, size: int
) -> None:
    images, expected, windows = noise(3, size), [], []
    for image in images:
        height, width = data.draw(st.integers(1, size)), data.draw(st.integers(1, size))
        top, left = (
            data.draw(st.integers(0, size - height)),
            data.draw(st.integers(0, size - width)),
        )
        windows.append([top, left, height, width])
        crop = (top, left, height, width)
        expected.append(reference.resized_crop(image.float(), *crop, [size, size], BILINEAR))
    found = resized_crops(images.float(), torch.tensor(windows) / size)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(
    degrees=st.lists(st.floats(-180, 180, width=32), min_size=1, max_size=4),
    size=st.integers(2, 40),
)
def test_a_rotation_is_torchvisions(degrees: list[float], size: int) -> None:
    images = noise(len(degrees), size).float()
    expected = [
        reference.rotate(image, angle, BILINEAR)
        for image, angle in zip(images, degrees, strict=True)
    ]
    found = rotations(images, torch.tensor(degrees))
    # On the edge between image and nothing a rounding error decides the share of black.
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0.05)


def pictures_of(data: DataConfig, count: int = 60, size: int = 16) -> tuple[Pictures, Tensor]:
    images = noise(count, size)
    shown = ImageSet(images.numpy(), np.arange(count) % 5)
    dataset = Dataset(shown, shown, tuple("abcde"), (0.5,) * 3, (0.25,) * 3, "")
    return Pictures(shown, dataset, data, CPU, True), images


def test_a_batch_is_what_is_done_image_by_image() -> None:
    """Padded crop and mirror, then the window, then the rotation."""
    data = data_of(resized_crop=[0.2, 1.0], rotation=30.0, normalize=False, crop_padding=2)
    pictures, images = pictures_of(data)
    batches = TrainingBatches(pictures, torch.arange(60), data, 10, [3])
    plan = batches.plan(1)
    assert plan.warp is not None
    # Windows of whole pixels, which the reference has only.
    plan.warp[:, :4] = torch.tensor([2, 3, 9, 11]) / 16
    found = torch.cat([images for images, _ in batches.chunks(plan, 0, 6)]) * 255
    for place, (index, mirror, shift) in enumerate(
        zip(plan.order.tolist(), plan.flip.tolist(), plan.shift.tolist(), strict=True)
    ):
        image = reference.crop(reference.pad(images[index], [2] * 4), *shift, 16, 16)
        image = reference.hflip(image) if mirror else image
        image = reference.resized_crop(image.float(), 2, 3, 9, 11, [16, 16], BILINEAR)
        image = reference.rotate(image, float(plan.warp[place, 4]), BILINEAR)
        torch.testing.assert_close(found[place], image, rtol=0, atol=0.6)  # rounded to levels


def test_runs_without_them_see_what_they_saw() -> None:
    usual = plan_epoch(torch.arange(100), data_of(), 3, 2)
    other = plan_epoch(torch.arange(100), data_of(resized_crop=[0.1, 1.0], rotation=9.0), 3, 2)
    assert usual.warp is None
    for name in ("order", "flip", "shift"):
        assert torch.equal(getattr(usual, name), getattr(other, name))


def test_one_switch_leaves_the_other_draws_as_they_were() -> None:
    def warp(**keys: Any) -> Tensor:
        found = plan_epoch(torch.arange(100), data_of(**keys), 0, 0).warp
        assert found is not None
        return found

    both = warp(resized_crop=[0.1, 1.0], rotation=20.0)
    assert torch.equal(warp(resized_crop=[0.1, 1.0])[:, :4], both[:, :4])
    assert torch.equal(warp(rotation=20.0)[:, 4], both[:, 4])
    assert torch.equal(warp(rotation=20.0)[0, :4], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_windows_have_the_areas_and_sides_asked_for_and_lie_in_the_image() -> None:
    data = data_of(resized_crop=[0.2, 0.5], rotation=20.0)
    warp = plan_epoch(torch.arange(20_000), data, 0, 0).warp
    assert warp is not None
    top, left, height, width, degrees = warp.double().unbind(1)
    area, ratio = height * width, (width / height).log()
    for begin, side in ((top, height), (left, width)):
        assert begin.min() >= 0
        assert (begin + side).max() <= 1 + 1e-6
        where = begin / (1 - side)
        assert abs(float(where.mean()) - 0.5) < 5 / 12**0.5 / 20_000**0.5
    # Five standard errors of the mean of a uniform variable.
    for value, (least, greatest) in (
        (area, (0.2, 0.5)), (ratio, (-np.log(4 / 3), np.log(4 / 3))), (degrees, (-20, 20)),
    ):  # fmt: skip
        assert value.min() >= least - 1e-6
        assert value.max() <= greatest + 1e-6
        error = (greatest - least) / 12**0.5 / 20_000**0.5
        assert abs(float(value.mean()) - (greatest + least) / 2) < 5 * error


def test_a_window_wider_than_the_image_is_cut() -> None:
    warp = plan_epoch(torch.arange(1000), data_of(resized_crop=[1.0, 1.0]), 0, 0).warp
    assert warp is not None
    assert warp[:, 2:4].max() == 1
    assert warp[:, 2:4].min() == pytest.approx(0.75**0.5, abs=0.01)


def test_seeds_side_by_side_see_what_each_sees_alone() -> None:
    data = data_of(resized_crop=[0.2, 1.0], rotation=30.0)
    pictures, _ = pictures_of(data)
    indices = torch.arange(60)
    together = TrainingBatches(pictures, indices, data, 10, [3, 8])
    images = torch.cat([images for images, _ in together.chunks(together.plan(1), 0, 6)])
    for place, seed in enumerate((3, 8)):
        alone = TrainingBatches(pictures, indices, data, 10, [seed])
        own = torch.cat([images for images, _ in alone.chunks(alone.plan(1), 0, 6)])
        assert torch.equal(images[:, 3 * place : 3 * place + 3], own)


def test_large_images_are_prepared_fewer_at_a_time() -> None:
    data = data_of()
    assert pictures_of(data, 4, 32)[0].at_once == batches_module.CHUNK_IMAGES
    assert pictures_of(data, 4, 320)[0].at_once == batches_module.CHUNK_IMAGES // 100
    assert pictures_of(data, 1, 1280)[0].at_once == 1


def test_images_too_many_for_the_accelerator_stay_on_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = noise(20, 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.nbytes, 10**12))
    placed = batches_module._placed(images, torch.device("cuda"))
    assert isinstance(placed, HostPixels)
    assert placed.device.type == "cuda"
    assert placed.pixels is images


def test_images_left_on_the_host_are_the_same() -> None:
    images = noise(20, 8)
    order = torch.tensor([3, 19, 3])
    left = HostPixels(images, CPU)
    assert torch.equal(left.index_select(0, order), images[order])
    assert left.shape == images.shape


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    keys = ("data.resized_crop=[0.2,1]", "data.rotation=10", "epochs=1")
    states = []
    for folder in ("one", "other"):
        config, directory = small(tmp_path / folder, *keys)
        run(config, directory)
        states.append(state(directory)["model"])
    assert same_tensors(*states)


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("data.resized_crop=[0,1]", "data.resized_crop"),
        ("data.resized_crop=[0.5,0.4]", "data.resized_crop"),
        ("data.resized_crop=[0.5]", "data.resized_crop"),
        ("data.resized_crop=[0.5,2]", "data.resized_crop"),
        ("data.rotation=-1", "data.rotation"),
        ("data.rotation=181", "data.rotation"),
    ],
)
def test_what_cannot_be_drawn_is_refused(setting: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        compose(["data=synthetic", setting])
