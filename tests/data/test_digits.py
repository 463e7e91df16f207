"""The digits of scikit-learn: which images they are, how they are split, and that all commands take
them."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from small_runs import run

from normexp import predict
from normexp.config.schema import DataConfig, DataName
from normexp.data import digits, sources
from normexp.data.enough_images import refuse_unseen
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import BesideConfig, run_id
from normexp.system.errors import UserError


def test_all_images_are_there_once_in_grey() -> None:
    found = sources.load(DataConfig(name=DataName.digits, image_size=8))
    assert found.classes == tuple("0123456789")
    assert (len(found.train.images), len(found.test.images)) == (1438, 359)
    whole = np.concatenate([found.train.images, found.test.images])
    assert whole.shape[1:] == (3, 8, 8)
    assert (whole == whole[:, :1]).all()
    # 17 greys from black to white: a sixteenth of 255 apart, rounded.
    expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    sort = [np.sort(images.reshape(1797, -1).view("V64").ravel()) for images in
            (np.ascontiguousarray(whole[:, 0]), expected)]  # fmt: skip
    assert (sort[0] == sort[1]).all()


def test_each_class_gives_a_fifth_to_a_test_set_that_is_always_the_same() -> None:
    one, other = (
        sources.load(DataConfig(name=DataName.digits, image_size=8, split_seed=seed))
        for seed in (0, 5)
    )
    np.testing.assert_array_equal(one.test.images, other.test.images)
    counts = np.bincount(one.test.labels) / np.bincount(load_digits().target)
    assert abs(counts - 0.2).max() < 0.01
    np.testing.assert_array_equal(np.bincount(one.train.labels), np.bincount(digits.train_labels()))


def test_other_sizes_are_resized() -> None:
    found = sources.load(DataConfig(name=DataName.digits, image_size=16))
    assert found.train.images.shape == (1438, 3, 16, 16)


def test_digits_that_are_not_those_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(UserError, match="not those known"):
        sources.load(DataConfig(name=DataName.digits, image_size=8))


def test_too_large_a_batch_is_refused_before_images_are_read() -> None:
    with pytest.raises(UserError, match=r"there are 129\d training images"):
        refuse_unseen(compose(["data=digits", "batch_size=1400"]))


def test_a_digit_is_trained_on_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose([
        "data=digits", "norm=bn", "batch_size=16", "epochs=3", f"output={tmp_path}", "threads=1",
        "device=cpu", "log.tensorboard=false",
    ])  # fmt: skip
    directory = RunDirectory(config, run_id(config, BesideConfig("")))
    assert run(config, directory)["test_acc"] > 0.5  # by chance a tenth
    test = digits.load(config.data).test
    Image.fromarray(test.images[0, 0]).save(tmp_path / "digit.png")
    with contextlib.suppress(SystemExit):
        predict.main([str(directory.path), str(tmp_path / "digit.png")])
    assert "digit.png" in capsys.readouterr().out


def test_a_smaller_test_set_is_fixed_balanced_and_within_larger_ones() -> None:
    def tested(size: int, **keys: int) -> np.ndarray:
        data = DataConfig(name=DataName.digits, image_size=8, test_size=size, **keys)
        found = sources.load(data).test
        assert np.ptp(np.bincount(found.labels, minlength=10)) <= 1
        assert len(found.images) == size
        return found.images.reshape(size, -1)

    small, large = tested(30), tested(100)
    assert all((large == one).all(axis=1).any() for one in small)
    assert (tested(30) == small).all()
    assert (tested(30, split_seed=1) != small).any()
    with pytest.raises(UserError, match=r"data.test_size=999: there are 359 test images"):
        tested(999)
