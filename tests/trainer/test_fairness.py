"""What a comparison rests on: the same images for every norm, a clean validation set, an exact
evaluation."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normexp.config.schema import Config, DataConfig, DataName
from normexp.data import batches as batches_module
from normexp.data.batches import Pictures, TrainingBatches, evaluation_batches, plan_epoch
from normexp.data.images import Dataset, ImageSet
from normexp.data.split import split
from normexp.runs.composing import compose
from normexp.system.errors import UserError
from normexp.system.seeds import stream_seed
from normexp.trainer.evaluation import evaluate
from normexp.trainer.steps import Trainer

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
EVERY_NORM = ["none", "bn", "ln", "in", "gn"]

# Without a deadline: how long an example takes is no behaviour.
many = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**63 - 1)


def settings_of(**keys: object) -> DataConfig:
    return DataConfig(name=DataName.synthetic, **keys)  # type: ignore[arg-type]


@cache
def dataset(size: int = 8, count: int = 240, height: int | None = None) -> Dataset:
    """Images of noise: no two are alike, so an image tells which it is."""
    rng = np.random.default_rng(0)

    def images(number: int) -> ImageSet:
        shape = (number, 3, height or size, size)
        labels = rng.permutation(np.arange(number, dtype=np.int64) % 10)
        return ImageSet(rng.integers(0, 256, shape, dtype=np.uint8), labels)

    return Dataset(images(count), images(50), tuple("0123456789"), MEAN, STD, "noise")


def trainer(*overrides: str) -> Trainer:
    config: Config = compose(["data=synthetic", "data.image_size=8", *overrides])
    return Trainer(config, [config.seed], dataset(), CPU)


def epoch_of(batches: TrainingBatches, epoch: int) -> tuple[Tensor, Tensor]:
    """All the images and labels of an epoch, one after the other."""
    parts = list(batches.chunks(batches.plan(epoch), 0, batches.steps))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


# --- The order of the images, their mirrors and their crops


@pytest.mark.parametrize("epoch", [0, 3])
def test_every_norm_sees_the_same_images(epoch: int) -> None:
    first, *others = (
        epoch_of(trainer(f"norm={norm}", "batch_size=4").batches, epoch) for norm in EVERY_NORM
    )
    for images, labels in others:
        assert torch.equal(images, first[0])
        assert torch.equal(labels, first[1])


def test_every_batch_size_sees_the_same_images() -> None:
    # Of 24 images a class 2 are kept for validation, and these sizes divide the rest.
    first, *others = (
        epoch_of(trainer(f"batch_size={size}").batches, 1) for size in (1, 2, 5, 44, 220)
    )
    assert len(first[1]) == 220
    for images, labels in others:
        assert torch.equal(images, first[0])
        assert torch.equal(labels, first[1])


def test_models_and_optimizers_see_the_same_images() -> None:
    first, other = (
        epoch_of(trainer("channels_last=false", *keys).batches, 0)
        for keys in ([], ["model=mlp", "optimizer=sgd", "optimizer.lr=3"])
    )
    assert torch.equal(first[0], other[0])


def test_seeds_and_epochs_see_different_images() -> None:
    seen = [
        epoch_of(trainer(f"seed={seed}").batches, epoch)[0] for seed in (0, 1) for epoch in (0, 1)
    ]
    for place, one in enumerate(seen):
        for other in seen[place + 1 :]:
            assert not torch.equal(one, other)


@many
@given(count=st.integers(1, 60), seed=seeds, epoch=st.integers(0, 1000))
def test_an_epoch_shows_every_image_once(count: int, seed: int, epoch: int) -> None:
    indices = torch.arange(count) * 3 + 1
    plan = plan_epoch(indices, settings_of(), seed, epoch)
    assert sorted(plan.order.tolist()) == indices.tolist()
    assert plan.flip.shape == (count,)
    assert plan.shift.shape == (count, 2)


@many
@given(seed=seeds, epoch=st.integers(0, 1000), padding=st.integers(0, 8))
def test_one_switch_leaves_the_other_draws_as_they_were(
    seed: int, epoch: int, padding: int
) -> None:
    indices = torch.arange(100)
    usual = plan_epoch(indices, settings_of(), seed, epoch)
    unflipped = plan_epoch(indices, settings_of(flip=False), seed, epoch)
    assert not unflipped.flip.any()
    assert torch.equal(unflipped.order, usual.order)
    assert torch.equal(unflipped.shift, usual.shift)
    padded = plan_epoch(indices, settings_of(crop_padding=padding), seed, epoch)
    assert torch.equal(padded.order, usual.order)
    assert torch.equal(padded.flip, usual.flip)


@pytest.mark.parametrize("stream", ["order", "augmentation"])
def test_order_and_augmentation_are_streams_apart(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = torch.arange(100)
    usual = plan_epoch(indices, settings_of(), 0, 0)
    monkeypatch.setattr(
        batches_module, "stream_seed",
        lambda seed, name, epoch: stream_seed(seed + (name == stream), name, epoch),
    )  # fmt: skip
    other = plan_epoch(indices, settings_of(), 0, 0)
    assert torch.equal(other.order, usual.order) is (stream != "order")
    assert torch.equal(other.flip, usual.flip) is (stream != "augmentation")
    assert torch.equal(other.shift, usual.shift) is (stream != "augmentation")


@many
@given(seed=st.integers(0, 2**62), epoch=st.integers(0, 1000), later=st.integers(1, 1000))
def test_every_seed_and_epoch_draws_anew(seed: int, epoch: int, later: int) -> None:
    indices = torch.arange(100)
    one = plan_epoch(indices, settings_of(), seed, epoch)
    for other in (
        plan_epoch(indices, settings_of(), seed, epoch + later),
        plan_epoch(indices, settings_of(), seed + later, epoch),
    ):
        assert not torch.equal(one.order, other.order)
        assert not torch.equal(one.flip, other.flip)
        assert not torch.equal(one.shift, other.shift)


def test_a_run_draws_its_images_without_the_global_stream() -> None:
    def plan(seed: int) -> Tensor:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found = plan_epoch(torch.arange(50), settings_of(), 3, 2)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.stack([found.order, found.flip.long(), *found.shift.T])

    assert torch.equal(plan(1), plan(2))


def test_draws_are_spread_evenly() -> None:
    count = 20_000
    plan = plan_epoch(torch.arange(count), settings_of(crop_padding=2), 0, 0)
    # Five standard deviations of a binomial; the draw itself is fixed.
    assert abs(int(plan.flip.sum()) - count / 2) < 5 * np.sqrt(count / 4)
    for row in range(5):
        for column in range(5):
            hits = int((plan.shift == torch.tensor([row, column])).all(1).sum())
            assert abs(hits - count / 25) < 5 * np.sqrt(count / 25)
    for value in (plan.shift[:, 0], plan.shift[:, 1], plan.order):
        together = np.corrcoef(plan.flip.numpy(), value.numpy())[0, 1]
        assert abs(together) < 5 / np.sqrt(count)


@many
@given(st.lists(st.tuples(seeds, st.integers(0, 10**6)), min_size=2, unique=True))
def test_streams_of_a_run_have_seeds_of_their_own(runs: list[tuple[int, int]]) -> None:
    streams = ("weights", "order", "augmentation")
    found = {stream_seed(seed, stream, epoch) for seed, epoch in runs for stream in streams}
    assert len(found) == 3 * len(runs)
    assert all(0 <= value < 2**63 for value in found)


# --- What augmentation and normalization do to an image


def shown(image: np.ndarray, flip: bool, shift: tuple[int, int], padding: int) -> np.ndarray:
    """One image framed in black, cropped, and mirrored left to right."""
    _, height, width = image.shape
    framed = np.zeros((3, height + 2 * padding, width + 2 * padding), np.uint8)
    framed[:, padding : padding + height, padding : padding + width] = image
    row, column = shift
    crop = framed[:, row : row + height, column : column + width]
    return crop[:, :, ::-1] if flip else crop


def scaled(images: np.ndarray, normalize: bool) -> np.ndarray:
    """Levels 0..255 as numbers 0..1, less the mean and over the std of their channel."""
    values = images.astype(np.float64) / 255
    if not normalize:
        return values
    return (values - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))


@pytest.mark.parametrize("height", [6, 8])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("flip", "padding"), [(True, 4), (True, 0), (False, 2), (False, 0)])
def test_batches_are_what_is_done_image_by_image(
    flip: bool, padding: int, normalize: bool, channels_last: bool, height: int
) -> None:
    found_in = dataset(8, 60, height)
    data = settings_of(flip=flip, crop_padding=padding, normalize=normalize)
    pictures = Pictures(found_in.train, found_in, data, CPU, channels_last)
    batches = TrainingBatches(pictures, torch.arange(7, 60), data, 5, [4])
    plan = batches.plan(2)
    images, labels = epoch_of(batches, 2)
    rows = zip(plan.order.tolist(), plan.flip.tolist(), plan.shift.tolist(), strict=True)
    pixels = np.stack(
        [shown(found_in.train.images[k], mirror, tuple(at), padding) for k, mirror, at in rows]
    )
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), scaled(pixels, normalize)[:50], atol=2e-6)
    assert labels.tolist() == found_in.train.labels[plan.order[:50]].tolist()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)


# --- Steps of an epoch


@many
@given(count=st.integers(1, 60), batch_size=st.integers(1, 20), seed=seeds)
def test_a_short_last_batch_is_dropped(count: int, batch_size: int, seed: int) -> None:
    data = settings_of()
    pictures = Pictures(dataset().train, dataset(), data, CPU, True)
    batches = TrainingBatches(pictures, torch.arange(count), data, batch_size, [seed])
    assert batches.steps == count // batch_size
    sizes = [len(labels) for _, labels in batches.chunks(batches.plan(0), 0, batches.steps)]
    assert sum(sizes) == count - count % batch_size
    assert all(size % batch_size == 0 for size in sizes)


@pytest.mark.parametrize("cut", [1, 100, 1023, 1024, 2000])
def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_images(cut: int) -> None:
    many = dataset(4, 2400)
    data = settings_of()
    pictures = Pictures(many.train, many, data, CPU, True)
    batches = TrainingBatches(pictures, torch.arange(2400), data, 1, [0])
    plan = batches.plan(5)
    whole = torch.cat([images for images, _ in batches.chunks(plan, 0, 2400)])
    halves = [*batches.chunks(plan, 0, cut), *batches.chunks(plan, cut, 2400)]
    assert torch.equal(torch.cat([images for images, _ in halves]), whole)


# --- The split

label_counts = st.lists(st.integers(0, 25), min_size=1, max_size=5).filter(any)


def shuffled_labels(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return np.random.default_rng(seed).permutation(labels)


def per_class(labels: np.ndarray, chosen: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels[chosen], minlength=classes)


@many
@given(counts=label_counts, fraction=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_validation_is_apart_and_balanced(counts: list[int], fraction: float, seed: int) -> None:
    labels = shuffled_labels(counts)
    assume(all(count * fraction != 0.5 for count in counts))
    if fraction > 0 and all(count * fraction < 0.5 for count in counts):
        with pytest.raises(UserError, match=r"^data\.val_fraction="):
            split(labels, fraction, None, seed)
        return
    train, val = split(labels, fraction, None, seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    held = per_class(labels, val, len(counts))
    # The nearest whole number of each class.
    assert np.abs(held - fraction * np.array(counts)).max() <= 0.5 + 1e-9


@many
@given(counts=label_counts, data=st.data(), seed=st.integers(0, 1000))
def test_subsets_are_nested_and_do_not_touch_validation(
    counts: list[int], data: st.DataObject, seed: int
) -> None:
    labels = shuffled_labels(counts)
    small, large = sorted(data.draw(st.integers(1, len(labels))) for _ in range(2))
    all_train, _ = split(labels, 0.0, None, seed)
    one, other = (split(labels, 0.0, size, seed)[0] for size in (small, large))
    assert (len(one), len(other)) == (small, large)
    assert set(one) <= set(other) <= set(all_train)


@many
@given(counts=label_counts, data=st.data(), seed=st.integers(0, 1000))
def test_a_subset_takes_evenly_from_the_classes(
    counts: list[int], data: st.DataObject, seed: int
) -> None:
    labels = shuffled_labels(counts)
    size = data.draw(st.integers(1, len(labels)))
    chosen, _ = split(labels, 0.0, size, seed)
    taken = per_class(labels, chosen, len(counts))
    assert (taken <= counts).all()
    # A class that has more to give is at most one image behind the largest.
    more = taken < np.array(counts)
    assert (taken[more] >= taken.max() - 1).all()


@many
@given(size=st.integers(1, 160), seed=st.integers(0, 1000))
def test_subset_and_all_have_the_same_validation(size: int, seed: int) -> None:
    labels = shuffled_labels([50, 50, 50, 50])
    train, val = split(labels, 0.2, size, seed)
    _, whole = split(labels, 0.2, None, seed)
    assert val.tolist() == whole.tolist()
    assert len(train) == size
    assert not set(train) & set(val)


def test_a_subset_larger_than_what_is_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.train_size=161: .* at most 160"):
        split(shuffled_labels([50, 50, 50, 50]), 0.2, 161, 0)


def test_a_split_that_leaves_nothing_to_train_on_names_the_share_to_change() -> None:
    # Of 24 images a class all are kept for validation.
    with pytest.raises(UserError, match=r"data\.val_fraction=0\.99"):
        trainer("data.val_fraction=0.99")


def test_the_split_follows_its_own_seed_only() -> None:
    def indices(*overrides: str) -> tuple[list[int], list[int]]:
        made = trainer(*overrides)
        return made.train_indices.tolist(), made.val_indices.tolist()

    first = indices()
    for same in (["seed=1"], ["norm=gn"], ["batch_size=2"], ["model=mlp"]):
        assert indices(*same) == first
    assert indices("data.split_seed=1") != first


# --- Evaluation


def seen_by(network: nn.Module) -> list[Tensor]:
    """Collects what the network is given from now on."""
    inputs: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    return inputs


@pytest.mark.parametrize("batch_size", [5, 128])
def test_validation_and_test_images_are_never_augmented(batch_size: int) -> None:
    made = trainer("data.flip=true", "data.crop_padding=4", f"evaluate.batch_size={batch_size}")
    inputs = seen_by(made.network)
    made.validate(made.members[0])
    validation = torch.cat(inputs)
    inputs.clear()
    made.test(made.members[0], "running")
    expected = scaled(dataset().train.images[made.val_indices.numpy()], True)
    np.testing.assert_allclose(validation.numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(
        torch.cat(inputs).numpy(), scaled(dataset().test.images, True), atol=2e-6
    )


@many
@given(indices=st.lists(st.integers(0, 239), min_size=1), batch_size=st.integers(1, 300))
def test_evaluation_shows_every_image_in_order(indices: list[int], batch_size: int) -> None:
    pictures = Pictures(dataset().train, dataset(), settings_of(), CPU, False)
    parts = list(evaluation_batches(pictures, torch.tensor(indices), batch_size))
    assert all(len(labels) == batch_size for _, labels in parts[:-1])
    images = torch.cat([images for images, _ in parts])
    np.testing.assert_allclose(
        images.numpy(), scaled(dataset().train.images[indices], True), atol=2e-6
    )
    found = torch.cat([labels for _, labels in parts])
    assert found.tolist() == dataset().train.labels[indices].tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 240, 1000])
def test_scores_are_those_of_float64_whatever_the_batch(batch_size: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    pictures = Pictures(dataset().train, dataset(), settings_of(), CPU, False)
    everything = torch.arange(240)
    score = evaluate(
        network, pictures, everything, batch_size, torch.autocast("cpu", enabled=False)
    )

    inputs = scaled(dataset().train.images, True).reshape(240, -1)
    weight, bias = (value.detach().double().numpy() for value in network.parameters())
    logits = inputs @ weight.T + bias
    labels = dataset().train.labels
    right = logits[np.arange(240), labels]
    losses = np.log(np.exp(logits).sum(axis=1)) - right
    assert score.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert score.accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean(), abs=1e-12)


@pytest.mark.parametrize("norm", EVERY_NORM)
def test_scores_of_every_norm_are_independent_of_the_batch(norm: str) -> None:
    made = trainer(f"norm={norm}", "batch_size=8")
    images, labels = next(made.batches.chunks(made.batches.plan(0), 0, 4))
    for batch, target in zip(images.split(8), labels.split(8), strict=True):
        made.step(batch, target)
    buffers = [buffer.clone() for buffer in made.network.buffers()]
    scores = []
    for size in (1, 7, 128):
        made.config.evaluate.batch_size = size
        scores.append(made.validate(made.members[0]))
    first = scores[0]
    assert first is not None
    for score in scores:
        assert score is not None
        assert score.accuracy == first.accuracy
        assert score.loss == pytest.approx(first.loss, rel=1e-6)
    # Scoring leaves no trace.
    assert made.network.training
    for before, after in zip(buffers, made.network.buffers(), strict=True):
        assert torch.equal(before, after)
