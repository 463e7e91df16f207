"""Batches of images on the device, ordered, augmented and normalized many steps at a time.

What a seed decides of the images (their order, mirrors and crops) is a function of the seed and the
epoch alone, drawn on the CPU: it does not depend on the norm, the device, or where a run was
interrupted. Several seeds that are trained together get their images side by side, each its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import DataConfig
from normexp.data.sources import Dataset, ImageSet
from normexp.data.warps import draw_warps, warped
from normexp.system.seeds import stream_seed

# Images prepared at a time where a batch is smaller: enough to make the cost of a call vanish,
# few enough, of large ones too, to stay within a few tens of megabytes.
CHUNK_IMAGES = 1024
CHUNK_VALUES = CHUNK_IMAGES * 3 * 32 * 32

# Of the accelerator's free memory, what images may take: networks need some too.
SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class EpochPlan:
    """What each place in an epoch shows: n images in order, each with its mirror and crop."""

    order: Tensor
    """Indices into the images, int64 (n,)."""
    flip: Tensor
    """Whether it is mirrored, bool (n,)."""
    shift: Tensor
    """Row and column at which the crop begins in the padded image, int64 (n, 2)."""
    warp: Tensor | None
    """Windows and angles, fp32 (n, 5), as :func:`normexp.data.warps.draw_warps` says; or None."""


def plan_epoch(indices: Tensor, data: DataConfig, seed: int, epoch: int) -> EpochPlan:
    """Draw an epoch from the order stream and the augmentation stream of a seed.

    Args:
        indices: the training images, int64 (n,), on the CPU.
    """
    order = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    augmentation = torch.Generator().manual_seed(stream_seed(seed, "augmentation", epoch))
    count = len(indices)
    shuffled = indices[torch.randperm(count, generator=order)]
    # Both are drawn whether used or not, so that switching one leaves the other as it was.
    flip = torch.rand(count, generator=augmentation) < 0.5
    shift = torch.randint(0, 2 * data.crop_padding + 1, (count, 2), generator=augmentation)
    # Last, so that runs without it see what they saw before there was such a thing.
    warp = draw_warps(count, data, augmentation)
    return EpochPlan(shuffled, flip if data.flip else torch.zeros_like(flip), shift, warp)


class HostPixels:
    """Images that stay in the host's memory, or on its disk if they are mapped from a file; those
    that are asked for come to the device."""

    def __init__(self, pixels: Tensor, device: torch.device) -> None:
        self.pixels, self.device, self.shape = pixels, device, pixels.shape

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """As a tensor's on the device."""
        return self.pixels.index_select(dim, index.to(self.pixels.device)).to(self.device)


def _placed(pixels: Tensor, device: torch.device) -> Tensor | HostPixels:
    """The images on the device, unless they are too many for it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if pixels.nbytes > SHARE_OF_MEMORY * free:
            return HostPixels(pixels, device)
    return pixels.to(device)


class Pictures:
    """A set of images as uint8, on the device if they fit, and what turns some of them into network
    input there."""

    def __init__(
        self, images: ImageSet, dataset: Dataset, data: DataConfig, device: torch.device,
        channels_last: bool,
    ) -> None:  # fmt: skip
        self.pixels = _placed(torch.from_numpy(images.images), device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.channels_last = channels_last
        self.data, self.padding = data, data.crop_padding
        mean = torch.tensor(dataset.mean if data.normalize else (0.0, 0.0, 0.0))
        std = torch.tensor(dataset.std if data.normalize else (1.0, 1.0, 1.0))
        std[std == 0] = 1.0  # a channel that is the same everywhere becomes 0
        size = self.pixels.shape[2] * self.pixels.shape[3]
        self.at_once = max(1, min(CHUNK_IMAGES, CHUNK_VALUES // (3 * size)))
        scale, offset = 1 / (255 * std), -mean / std
        # One number a pixel in the order of memory: one multiply-add normalizes whole rows.
        self.scale = self._in_memory_order(scale, size).to(device)
        self.offset = self._in_memory_order(offset, size).to(device)

    def _in_memory_order(self, values: Tensor, size: int) -> Tensor:
        return values.repeat(size) if self.channels_last else values.repeat_interleave(size)

    def normalized(self, pixels: Tensor) -> Tensor:
        """uint8 (N,S*3,H,W) to fp32 (N,S*3,H,W) in the run's memory layout."""
        count, channels, height, width = pixels.shape
        numbers = len(self.scale)  # of one image; S images side by side repeat them S times
        if not self.channels_last:
            rows = pixels.reshape(-1, numbers).to(torch.float32)
            return torch.addcmul(self.offset, rows, self.scale, out=rows).view(pixels.shape)
        rows = pixels.permute(0, 2, 3, 1).reshape(-1, numbers).to(torch.float32)
        torch.addcmul(self.offset, rows, self.scale, out=rows)
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)

    def augmented(self, plan: EpochPlan, part: slice) -> Tensor:
        """The images of a part of an epoch as it shows them, uint8 (n,3,H,W)."""
        data, order = self.data, plan.order[part]
        if data.flip or data.crop_padding > 0:
            pixels = self._cropped_and_mirrored(order, plan.flip[part], plan.shift[part])
        else:
            pixels = self.pixels.index_select(0, order)
        return pixels if plan.warp is None else warped(pixels, plan.warp[part], data)

    def _cropped_and_mirrored(self, order: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
        """The images at ``order`` (n,), padded, cropped and mirrored, uint8 (n,3,H,W)."""
        pixels = self.pixels.index_select(0, order)
        count, channels, height, width = pixels.shape
        padding = self.padding
        if padding:
            pixels = F.pad(pixels, (padding,) * 4)
        both = torch.stack((pixels, pixels.flip(3)))
        # A row of a crop is a run of bytes, so that rows are copied and not single pixels.
        runs = both.view(-1).as_strided((both.numel() - width + 1, width), (1, 1))
        stride, device = width + 2 * padding, both.device
        plane = stride * (height + 2 * padding)
        image = torch.arange(count, device=device) + flip * count
        column = torch.where(flip, 2 * padding - shift[:, 1], shift[:, 1])
        corner = image * (channels * plane) + shift[:, 0] * stride + column
        rows = torch.arange(channels, device=device)[:, None] * plane
        rows = rows + torch.arange(height, device=device) * stride
        return runs.index_select(0, (corner[:, None, None] + rows).view(-1)).view(
            count, channels, height, width
        )


class TrainingBatches:
    """The steps of an epoch as ready batches."""

    def __init__(
        self, pictures: Pictures, indices: Tensor, data: DataConfig, step_size: int,
        seeds: Sequence[int], share: Callable[[Tensor], Tensor] = lambda values: values,
        ranks: int = 1,
    ) -> None:  # fmt: skip
        """
        Args:
            indices: the training images, int64 (n,), on the CPU.
            step_size: images in a step, of all processes that train together.
            seeds: those that are trained together; each sees its own order, mirrors and crops.
            share: picks this process's part of each step out of an epoch.
            ranks: how many processes there are.
        """
        self.pictures = pictures
        self.indices = indices
        self.data = data
        self.step_size = step_size // ranks
        self.seeds = list(seeds)
        self.share = share
        # What does not fill a step is dropped for every norm: BN could not take a single image.
        self.steps = len(indices) // step_size

    def plan(self, epoch: int) -> EpochPlan:
        """What is shown at each place of an epoch, to one seed after the other: n*S rows."""
        plans = [plan_epoch(self.indices, self.data, seed, epoch) for seed in self.seeds]
        warps = [plan.warp for plan in plans if plan.warp is not None]
        return EpochPlan(
            self._side_by_side([plan.order for plan in plans]),
            self._side_by_side([plan.flip for plan in plans]),
            self._side_by_side([plan.shift for plan in plans]),
            self._side_by_side(warps) if warps else None,
        )

    def _side_by_side(self, values: list[Tensor]) -> Tensor:
        shared = [self.share(each) for each in values]
        return torch.stack(shared, 1).flatten(0, 1).to(self.pictures.pixels.device)

    def chunks(self, plan: EpochPlan, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Steps ``first`` to ``last`` (exclusive) of an epoch, some at a time.

        Yields:
            Images, fp32 (k*step_size,S*3,H,W), and labels, int64 (k*step_size*S,), of k steps;
            the labels of the S seeds' images at one place follow each other.
        """
        together = self.step_size * len(self.seeds)
        at_once = max(1, self.pictures.at_once // together)
        for begin in range(first, last, at_once):
            end = min(begin + at_once, last)
            part = slice(begin * together, end * together)
            pixels = self.pictures.augmented(plan, part)
            side_by_side = pixels.unflatten(0, (-1, len(self.seeds))).flatten(1, 2)
            yield self.pictures.normalized(side_by_side), self.pictures.labels[plan.order[part]]


def evaluation_batches(
    pictures: Pictures, indices: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All the images at ``indices`` in order, never augmented, none dropped."""
    for part in indices.to(pictures.pixels.device).split(batch_size):
        yield pictures.normalized(pictures.pixels.index_select(0, part)), pictures.labels[part]
