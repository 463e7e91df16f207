"""One image file as pixels: of any format, mode and size, made upright opaque RGB squares."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from normexp.errors import UserError
from normexp.foreign_files import IMAGES, read_bytes, read_stream

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)

# Pillow refuses what is twice as large: that is the one limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadableImage(UserError):
    """An image that cannot be read or decoded."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(file: Path | BinaryIO, size: int) -> np.ndarray:
    """One image, of any mode and size, as uint8 [3, size, size]: upright, resized, not cropped.

    What is transparent is laid on white.

    Raises:
        UnreadableImage: it cannot be read or decoded.
    """
    path = file if isinstance(file, Path) else "on standard input"
    try:
        content = read_bytes(file, IMAGES) if isinstance(file, Path) else read_stream(file, IMAGES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableImage(
            reason, f"cannot read image {path}: {reason}; name a file that can be read"
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format == "EPS":  # Pillow would start an interpreter for it
                raise ValueError("PostScript is a program and no image")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            upright = _on_white(_to_8_bit(image))
    except Exception as error:  # Broken files make Pillow raise nearly anything.
        reason = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise UnreadableImage(
            reason, f"cannot read image {path} ({reason}); repair or remove it"
        ) from error
    if upright.size != (size, size):
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels: np.ndarray = np.asarray(upright).transpose(2, 0, 1)
    return pixels


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip at 255.

    Raises:
        ValueError: the image has 32 bits a channel, of which nothing says what is white.
    """
    # Grey of 16 bits in PGM has 32 in older Pillows.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel, without a scale; save it with 8 or 16")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """As RGB. Below transparent pixels lies any colour, which is nothing a person ever sees."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
