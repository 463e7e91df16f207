"""Folders of small images for tests."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from normexp.config.schema import DataConfig, DataName


def config(root: Path, size: int = 8, **keys: Any) -> DataConfig:
    return DataConfig(name=DataName.image_folder, root=str(root), image_size=size, **keys)


def pixels(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def fill(root: Path, classes: str = "ab", count: int = 3, **folders: str) -> Path:
    """PNGs with seeds counting up, in the order of the files' paths: train first."""
    seed = 0
    for folder in (folders.get("train", "train"), folders.get("test", "test")):
        for name in classes:
            for index in range(count):
                save(root / folder / name / f"{index}.png", pixels(seed))
                seed += 1
    return root


def png_of_16_bits(values: np.ndarray) -> bytes:
    """As the format is specified; Pillow writes grey ones only.

    Args:
        values: uint16 (H,W,C); grey, grey and alpha, RGB or RGBA.
    """
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        checked = name + data
        content += struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
    return content


def tiff(values: np.ndarray, order: str = "<", compressed: bool = False, planes: int = 1) -> bytes:
    """As the format is specified.

    Args:
        values: (H,W) or (H,W,3) of any numbers.
        order: of bytes, < or >.
        planes: 1 if the channels of a pixel lie side by side, 2 if each channel lies apart.
    """
    height, width, channels = values.shape if values.ndim == 3 else (*values.shape, 1)
    ordered = values.transpose(2, 0, 1) if planes == 2 else values
    data = ordered.astype(values.dtype.newbyteorder(order)).tobytes()
    parts = np.array_split(np.frombuffer(data, np.uint8), channels if planes == 2 else 1)
    strips = [zlib.compress(part.tobytes()) if compressed else part.tobytes() for part in parts]
    sizes = [len(strip) for strip in strips]
    begins = np.cumsum([8, *sizes[:-1]]).tolist()
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, list[int]] = {
        256: [width], 257: [height], 258: [8 * values.dtype.itemsize] * channels,
        259: [8 if compressed else 1], 262: [2 if channels == 3 else 1], 273: begins,
        277: [channels], 278: [height], 279: sizes, 284: [planes], 339: [form] * channels,
    }  # fmt: skip
    body = b"".join(strips)
    longer = b""
    entries = b""
    begin = 8 + len(body)
    after = begin + 2 + 12 * len(tags) + 4
    for tag, numbers in tags.items():
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            place = struct.pack(f"{order}I", after + len(longer))
            longer += packed
            packed = place
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, begin)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + longer
