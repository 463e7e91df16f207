"""One image file as pixels: of any format, mode and size, made upright opaque RGB squares."""

import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from normexp.data.levels import Extent, Levels
from normexp.system.errors import UserError
from normexp.system.foreign_files import IMAGES, read_bytes, read_stream
from normexp.system.printable import printable

FORMATS = (
    *("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "QOI"),
    "TGA",  # the last, since it has no signature
)
"""What counts as an image, by content: formats of pixels that Pillow reads by itself."""

ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".jp2", ".j2k", ".mpo", ".qoi", ".tga"),
    )
)
"""Files that say they are images: not looked into before they are decoded."""

# Pillow refuses what is twice as large: that is the one limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_BITS, _PLANAR, _SAMPLES = 258, 284, 339  # Tags of TIFF: bits, planes apart, kind of numbers.
_SIGNED = 2


class UnreadableImage(UserError):
    """An image that cannot be read or decoded."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LevelsWanted(Exception):
    """Raised where levels are asked for that are not known yet: it passes through decoding."""


@dataclass(frozen=True)
class _Deep:
    """An upright image of more than 8 bits a channel."""

    values: np.ndarray
    """Integers or floating-point values [H, W] or [H, W, 3]."""
    alpha: np.ndarray | None = None
    """uint8 [H, W]."""

    @property
    def extent(self) -> Extent:
        """Raises ValueError where values are no numbers."""
        least, greatest = float(self.values.min()), float(self.values.max())
        if not np.isfinite([least, greatest]).all():
            raise ValueError("some of its values are infinite or no numbers (NaN)")
        return Extent(least, greatest, self.values.dtype.kind in "iu")

    def to_8_bit(self, levels: Levels) -> Image.Image:
        image = Image.fromarray(levels.to_8_bit(self.values))
        if self.alpha is not None:
            image = image.convert("RGB")
            image.putalpha(Image.fromarray(self.alpha))
        return image


def decode(
    file: Path | BinaryIO, size: int, levels: Callable[[Extent], Levels] | None = None
) -> np.ndarray:
    """One image, of any mode and size, as uint8 [3, size, size]: upright, resized, not cropped.

    What is transparent is laid on white.

    Args:
        levels: asked what is black and white in an image of more than 8 bits a channel; without it
            such an image is refused.

    Raises:
        UnreadableImage: it cannot be read or decoded.
    """
    path = printable(str(file)) if isinstance(file, Path) else "on standard input"
    try:
        content = read_bytes(file, IMAGES) if isinstance(file, Path) else read_stream(file, IMAGES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableImage(
            reason, f"cannot read image {path}: {reason}; name a file that can be read"
        ) from error
    try:
        image = _read(content)
        if isinstance(image, _Deep):
            if levels is None:
                raise ValueError("more than 8 bits a channel, without a scale; save it with 8")
            image = image.to_8_bit(levels(image.extent))
        upright = _on_white(image)
    except LevelsWanted:
        raise
    except Exception as error:  # Broken files make Pillow raise nearly anything.
        reason = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise UnreadableImage(
            reason, f"cannot read image {path} ({reason}); repair or remove it"
        ) from error
    if upright.size != (size, size):
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels: np.ndarray = np.asarray(upright).transpose(2, 0, 1)
    return pixels


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_image(path: str) -> bool:
    """Whether a file begins as an image does."""
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Foreign files make Pillow raise nearly anything.
        return False


def measure(path: Path) -> Extent | None:
    """Between what values an image of more than 8 bits a channel lies.

    Returns:
        None for other images, of which the header alone is read, and for what cannot be decoded.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            if not _is_deep(image):
                return None
        found = _read(read_bytes(path, IMAGES))
        return found.extent if isinstance(found, _Deep) else None
    except Exception:
        return None


# --- More than 8 bits ----------------------------------------------------------------------------


def _read(content: bytes) -> Image.Image | _Deep:
    """An upright image, with all of its bits.

    Raises:
        Exception: of nearly any kind, where it is broken.
    """
    image: Any = Image.open(io.BytesIO(content), formats=_formats())
    raw, tags, deep = _raw_mode(image), getattr(image, "tag_v2", {}), _is_deep(image)
    bits = tags.get(_BITS, (8,))
    if len(bits) > 1 and max(bits) > 8 and tags.get(_PLANAR) == 2:  # Pillow mistakes their bytes.
        raise ValueError("16 bits a channel, each channel apart; save it with 8, or interleaved")
    if not deep:
        return _upright(image)
    if image.format == "PPM" and image.mode == "RGB":
        count, begin = 3 * image.width * image.height, image.tile[0][2]
        samples = np.frombuffer(content, ">u2", count, begin)
        return _Deep(samples.reshape(image.height, image.width, 3))
    if raw == "LA;16B":  # Read as four bytes: the upper and the lower one of each.
        both = np.asarray(_upright(image, "RGBA")).astype(np.uint16)
        return _Deep(both[..., 0] << 8 | both[..., 1], both[..., 2].astype(np.uint8))
    if ";16" in raw and image.mode.startswith("RGB"):
        # Pillow keeps the upper bytes; read in the other order the lower ones lie in their place.
        again = Image.open(io.BytesIO(content), formats=_formats())
        lower = np.asarray(_upright(again, raw[:-1] + _other_order(raw[-1])))
        upper = np.asarray(_upright(image))
        values = upper[..., :3].astype(np.uint16) << 8 | lower[..., :3]
        alpha = upper[..., 3] if image.mode == "RGBA" else _opaque(image, values)
        return _Deep(values, alpha)
    values = np.asarray(_upright(image))
    if image.mode == "L":
        return _Deep(values.view(np.int8))
    if image.mode == "I" and bits == (32,) and tags.get(_SAMPLES) != (_SIGNED,):
        values = values.view(np.uint32)  # Pillow has no mode for it.
    return _Deep(values, _opaque(image, values))


def _is_deep(image: Any) -> bool:
    """Of an image that is not loaded yet."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.mode == "L":  # Signed ones would become bright where they are negative.
        return tuple(getattr(image, "tag_v2", {}).get(_SAMPLES, ())) == (_SIGNED,)
    if image.tile and image.tile[0][0] == "ppm" and image.tile[0][3] == ("RGB", 65535):
        return True
    return _raw_mode(image)[:-1] in ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")


def _raw_mode(image: Any) -> str:
    """How pixels lie in the file, in Pillow's words; known until the image is loaded."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _other_order(order: str) -> str:
    """Of bytes: L is the lower first, B the upper, N what the machine does."""
    return "B" if order == "L" or (order == "N" and sys.byteorder == "little") else "L"


def _upright(image: Any, raw: str | None = None) -> Image.Image:
    """The image loaded, its pixels read as another raw mode if one is given, and turned."""
    if raw is not None:
        for place, tile in enumerate(image.tile):
            arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
            named = hasattr(tile, "_replace")  # In newer Pillows.
            image.tile[place] = tile._replace(args=arguments) if named else (*tile[:3], arguments)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    turned: Image.Image = image
    return turned


def _opaque(image: Any, values: np.ndarray) -> np.ndarray | None:
    """Alpha where one value stands for transparency, uint8 [H, W]."""
    clear = image.info.get("transparency")
    if clear is None:
        return None
    same = values == np.asarray(clear)
    return np.where(same.all(-1) if same.ndim == 3 else same, 0, 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """As RGB. Below transparent pixels lies any colour, which is nothing a person ever sees."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
