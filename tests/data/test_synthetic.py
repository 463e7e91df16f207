"""Synthetic images: what a seed gives, and that they are learnable but not trivial."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from normexp.config.schema import DataConfig, DataName
from normexp.data import sources
from normexp.data.sources import Dataset


def make(**keys: Any) -> Dataset:
    given = {"train_images": 1000, "test_images": 500, **keys}
    return sources.load(DataConfig(name=DataName.synthetic, **given))


def test_shapes_and_types_are_those_asked_for() -> None:
    found = make(train_images=300, test_images=70, image_size=20)
    assert found.train.images.shape == (300, 3, 20, 20)
    assert found.test.images.shape == (70, 3, 20, 20)
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.dtype == np.int64
    assert found.train.images.flags.c_contiguous
    assert len(set(found.classes)) == 10


@pytest.mark.parametrize("count", [1, 9, 10, 257, 513])
def test_classes_are_balanced(count: int) -> None:
    found = make(train_images=count, image_size=4)
    counts = np.bincount(found.train.labels, minlength=10)
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_any_size_works(size: int) -> None:
    found = make(train_images=20, test_images=10, image_size=size)
    assert found.train.images.shape == (20, 3, size, size)
    assert np.isfinite([*found.mean, *found.std]).all()


def test_a_seed_gives_the_same_images_and_another_seed_others() -> None:
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    for part in ("train", "test"):
        one, two, three = (getattr(found, part) for found in (first, again, other))
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert (one.images != three.images).mean() > 0.9


def test_large_seeds_work() -> None:
    big, bigger = make(seed=2**63 - 2), make(seed=2**63 - 1)
    assert (big.train.images != bigger.train.images).mean() > 0.9


def test_number_of_training_images_does_not_change_the_test_set() -> None:
    few, many = make(train_images=10), make(train_images=1000)
    np.testing.assert_array_equal(few.test.images, many.test.images)


def test_statistics_are_those_of_the_training_pixels() -> None:
    found = make()
    scaled = found.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_configuration_says_it_all() -> None:
    assert make().fingerprint == ""
    assert sources.fingerprint(DataConfig(name=DataName.synthetic)) == ""


def test_train_and_test_are_of_one_distribution_without_common_images() -> None:
    found = make(train_images=2000, test_images=2000)
    train, test = (
        part.images.reshape(2000, -1).astype(float) for part in (found.train, found.test)
    )
    assert abs(train.mean() - test.mean()) < 3
    assert abs(train.std() - test.std()) < 3
    seen = {image.tobytes() for image in found.train.images}
    assert seen.isdisjoint(image.tobytes() for image in found.test.images)


def test_colour_and_contrast_tell_nothing() -> None:
    """What norms can remove is no help: classes agree in each channel's level and contrast."""
    found = make(train_images=5000)
    images = found.train.images.astype(np.float32)
    for measure in (images.mean(axis=(2, 3)), images.std(axis=(2, 3))):
        by_class = [measure[found.train.labels == index].mean(axis=0) for index in range(10)]
        spread = np.ptp(by_class, axis=0)
        assert (spread < 0.5 * measure.std(axis=0)).all()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more, above all beside other programs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_learnable_but_not_trivial_and_norms_differ() -> None:
    """Convolutions learn it within a few epochs, and a norm an image does so sooner."""
    import torch
    from torch import nn
    from torch.nn import functional

    found = make(train_images=3000, test_images=1000)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (found.mean, found.std))
    train, test = (
        ((torch.from_numpy(part.images) / 255 - mean) / std, torch.from_numpy(part.labels))
        for part in (found.train, found.test)
    )

    def accuracy(network: nn.Module) -> float:
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            for chosen in torch.randperm(3000, generator=generator).split(32):
                optimizer.zero_grad()
                functional.cross_entropy(network(train[0][chosen]), train[1][chosen]).backward()
                optimizer.step()
        with torch.no_grad():
            return (network(test[0]).argmax(1) == test[1]).float().mean().item()

    def cnn(norm: type[nn.Module] | None) -> nn.Module:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for channels in (3, 16):
            layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            if norm is not None:
                layers.insert(-2, norm(16))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))

    torch.manual_seed(0)
    linear = accuracy(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    plain = accuracy(cnn(None))
    by_image = accuracy(cnn(nn.InstanceNorm2d))
    assert 0.2 < linear < 0.65
    assert 0.3 < plain < 0.75
    assert max(linear, plain) + 0.1 < by_image < 0.95
