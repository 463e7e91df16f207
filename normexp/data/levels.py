"""What is black and what is white in images of more than 8 bits a channel, which no file says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normexp.system.errors import UserError

_BITS = (8, 10, 12, 14, 16)
"""What cameras and scanners give, in files of 16 bits."""


@dataclass(frozen=True)
class Extent:
    """The least and the greatest value of an image."""

    least: float
    greatest: float
    integers: bool


@dataclass(frozen=True)
class Levels:
    """The range of values that becomes 0 to 255, in 256 steps of equal width."""

    low: float
    high: float
    """Of integers the first that is too large; white itself of floating-point values."""
    integers: bool

    def __str__(self) -> str:
        return f"{self.low:,.6g} to {self.high - 1 if self.integers else self.high:,.6g}"

    @staticmethod
    def valid(fields: Any) -> bool:
        """Whether these are the fields of levels, or None: a file of others may hold anything."""
        names = {"low": int | float, "high": int | float, "integers": bool}
        if fields is None:
            return True
        return (
            isinstance(fields, dict)
            and fields.keys() == names.keys()
            and all(isinstance(fields[name], kind) for name, kind in names.items())
            and bool(np.isfinite([fields["low"], fields["high"]]).all())
            and fields["low"] < fields["high"]
        )

    def to_8_bit(self, values: np.ndarray) -> np.ndarray:
        """Integers or floating-point values as uint8; what lies outside becomes black or white.

        Raises:
            ValueError: the levels are of the other kind of numbers.
        """
        kinds = ("floating-point values", "integers")
        integers = values.dtype.kind in "iu"
        if integers is not self.integers:
            raise ValueError(
                f"its pixels are {kinds[integers]}, and those of the training images are "
                f"{kinds[self.integers]}, {self}; save it with 8 bits a channel"
            )
        steps = (values.astype(np.float64) - self.low) * (256 / (self.high - self.low))
        return np.clip(np.floor(steps), 0, 255).astype(np.uint8)

    def exceeded_by(self, extent: Extent) -> bool:
        """Whether an image has values outside, by more than a hundredth of the range."""
        margin = 0.01 * (self.high - self.low)
        return extent.least < self.low - margin or extent.greatest > self.high + margin


SIXTEEN_BITS = Levels(0, 65536, integers=True)
"""Where the training images, of 8 bits, say nothing of images that have more."""


def levels_of(images: Sequence[Extent]) -> Levels:
    """One range that holds all of these images.

    Of integers black is 0 and white the greatest number of 8, 10, 12, 14, 16 or more bits; with
    negative ones both are powers of two. Of floating-point values they are 0 and 1 if all lie
    within, and else the least and the greatest.

    Raises:
        UserError: all values are the same, or only some are integers.
    """
    least = min(image.least for image in images)
    greatest = max(image.greatest for image in images)
    if len({image.integers for image in images}) > 1:
        raise UserError(
            "some training images of more than 8 bits a channel have integers and some "
            "floating-point values, which have no common black and white; save them alike"
        )
    if images[0].integers:
        bits = int(greatest).bit_length() if greatest > 0 else 0
        if least < 0:
            return Levels(-(2.0 ** int(-least - 1).bit_length()), 2.0**bits, integers=True)
        return Levels(0.0, 2.0 ** next((each for each in _BITS if bits <= each), bits), True)
    if least >= 0 and greatest <= 1:
        return Levels(0.0, 1.0, integers=False)
    if least == greatest:
        raise UserError(
            f"all training images of more than 8 bits a channel are {least:g} everywhere, which "
            "says nothing of black and white; save them with 8 bits"
        )
    return Levels(least, greatest, integers=False)
