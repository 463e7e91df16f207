"""Weights that a network by name begins with."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from normexp.system.errors import UserError
from normexp.system.foreign_files import CHECKPOINT, open_regular


def read(path: Path) -> dict[str, Tensor]:
    """A state dict, of safetensors or of torch; nothing in it is executed.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    path = path.expanduser()
    given = f"model.weights={path}"
    try:
        if path.suffix == ".safetensors":
            if importlib.util.find_spec("safetensors") is None:
                raise UserError(f"{given}: install safetensors to read it")
            from safetensors.torch import load_file

            return load_file(path)
        with open_regular(path, CHECKPOINT) as file:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{given}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what is no such file fails in many ways
        kind = type(error).__name__
        raise UserError(f"{given}: holds no weights that can be read ({kind})") from error
    for name in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    found = found if isinstance(found, dict) else {}
    tensors = {str(name): one for name, one in found.items() if isinstance(one, Tensor)}
    if not tensors:
        raise UserError(f"{given}: holds no state dict; save network.state_dict()")
    return tensors


def load_matching(network: nn.Module, state: dict[str, Tensor]) -> str:
    """Load what has the name and the shape of something in the network.

    Returns:
        How much was kept, and what was dropped.

    Raises:
        UserError: nothing fits.
    """
    own = network.state_dict()
    kept = {
        name: one for name, one in state.items() if name in own and own[name].shape == one.shape
    }
    if not kept:
        raise UserError("model.weights, model.pretrained: nothing in them fits the network")
    network.load_state_dict(kept, strict=False)
    dropped = sorted(set(state) - set(kept))
    begun = sorted(name for name in set(own) - set(kept))
    words = f"{len(kept)} of {len(own)} tensors begin with the given weights"
    if begun:
        words += f"; drawn anew: {', '.join(begun[:4])}" + (", ..." if len(begun) > 4 else "")
    if dropped:
        words += f"; not used: {', '.join(dropped[:4])}" + (", ..." if len(dropped) > 4 else "")
    return words
