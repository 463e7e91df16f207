"""Random resized crops and rotations of whole batches: draws on the CPU, pixels on the device."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import DataConfig

WIDEST = 4 / 3
"""The longest side of a resized crop over the shortest, before the image cuts it."""


def draw_warps(count: int, data: DataConfig, generator: torch.Generator) -> Tensor | None:
    """Draw a window and an angle for each of ``count`` images.

    The area of a window is uniform in ``data.resized_crop``, the logarithm of its sides' ratio in
    ±log 4/3 and its place among those where it lies within the image; a side longer than the
    image's becomes that. The angle is uniform in ±``data.rotation``.

    Returns:
        fp32 (count,5): top, left, height and width in sides of the image, and degrees
        counter-clockwise; None if no image is warped.
    """
    if data.resized_crop is None and not data.rotation:
        return None
    # All are drawn whether used or not, so that switching one leaves the other as it was.
    area, ratio, down, right, turn = torch.rand(count, 5, generator=generator).unbind(1)
    least, greatest = data.resized_crop or (1.0, 1.0)
    area = least + (greatest - least) * area
    ratio = (math.log(WIDEST) * (2 * ratio - 1)).exp() if data.resized_crop else ratio.new_ones(())
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    degrees = data.rotation * (2 * turn - 1)
    return torch.stack([down * (1 - height), right * (1 - width), height, width, degrees], 1)


def warped(pixels: Tensor, warps: Tensor, data: DataConfig) -> Tensor:
    """Images (N,C,S,S) cropped, resized to what they were, and turned as drawn, uint8."""
    values = pixels.to(torch.float32)
    if data.resized_crop is not None:
        values = resized_crops(values, warps[:, :4])
    if data.rotation:
        values = rotations(values, warps[:, 4])
    return values.round().to(torch.uint8)


def resized_crops(images: Tensor, windows: Tensor) -> Tensor:
    """A window of each image, resized to the whole by bilinear interpolation within the window.

    Args:
        images: fp32 (N,C,S,S).
        windows: (N,4), top, left, height and width in sides of the image; as of S pixels and at
            least one.
    """
    size = images.shape[-1]
    centres = (torch.arange(size, device=images.device) + 0.5) / size
    begin, side = windows[:, :2, None] * size, (windows[:, 2:, None] * size).clamp(min=1)
    places = begin + centres * side - 0.5  # (N,2,S): rows and columns in pixels
    places = places.maximum(begin).minimum(begin + side - 1)
    rows, columns = ((2 * places + 1) / size - 1).unbind(1)
    shape = (len(images), size, size)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def rotations(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image turned about its centre, bilinear; what comes from outside is black.

    Args:
        images: fp32 (N,C,S,S).
        degrees: (N,), counter-clockwise.
    """
    angle = torch.deg2rad(degrees)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turns = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
