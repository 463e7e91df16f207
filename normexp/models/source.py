"""What a network by name is made from, told without torch."""

import hashlib
from pathlib import Path

from normexp.config import own_code
from normexp.config.schema import Architecture, ModelConfig
from normexp.system.errors import UserError
from normexp.system.foreign_files import CHECKPOINT, open_regular

LIBRARIES = ("torchvision", "timm")


def is_own(model: ModelConfig) -> bool:
    """Whether a network is code of one's own."""
    named = model.architecture is Architecture.named
    return named and model.name.partition(":")[0] not in LIBRARIES


def source_digest(model: ModelConfig) -> str:
    """A hash of the file of a network of one's own, and of the weights it begins with, so that a
    change of either is another run; empty where there is neither.

    Raises:
        UserError: one cannot be read.
    """
    parts = [own_code.digest("model", model.name)] if is_own(model) else []
    if model.weights is not None:
        parts.append(_of_file(Path(model.weights).expanduser()))
    return "-".join(parts)


def _of_file(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        with open_regular(path, CHECKPOINT) as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"model.weights={path}: cannot be read: {error.strerror}") from error
