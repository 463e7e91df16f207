"""Networks by name: torchvision's, timm's, and those of one's own."""

import difflib
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from normexp.config import own_code
from normexp.config.schema import DataConfig, ModelConfig, side
from normexp.models.source import is_own
from normexp.system.errors import UserError

TORCHVISION, TIMM = "torchvision", "timm"

NOT_ARGUMENTS = frozenset({
    *("weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
    *("checkpoint_path", "cache_dir", "num_classes", "classes", "progress"),
})  # fmt: skip
"""What ``model.args`` may not hold: the data and keys of their own say it, and what a run of
others names must fetch and read nothing."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""torchvision's two networks with a second classifier that is there in training only."""


def build(model: ModelConfig, image_size: int, classes: int) -> nn.Module:
    """The network as its author made it, weights drawn from torch's global stream.

    Raises:
        UserError: there is none of that name, or it cannot be made so.
    """
    library, _, name = model.name.partition(":")
    args = arguments(model)
    if library == TORCHVISION:
        return _made(model, _torchvision(name), {"num_classes": classes, **args})
    if library == TIMM:
        return _made(model, _timm(name), {"num_classes": classes, **args})
    return _own(model, image_size, classes, args)


def arguments(model: ModelConfig) -> dict[str, Any]:
    """What else the network takes.

    Raises:
        UserError: it is no table, or holds what other keys say.
    """
    if model.args is None:
        return {}
    try:
        found = json.loads(model.args)
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"model.args={model.args}: write a table, such as 'model.args={{image_size: 32}}'"
        )
    if taken := sorted(NOT_ARGUMENTS.intersection(found)):
        raise UserError(
            f"model.args: {taken[0]} is not for the network; classes are those of the images, and "
            "weights are model.pretrained=true or model.weights=FILE"
        )
    return found


def _made(model: ModelConfig, builder: Callable[..., Any], args: dict[str, Any]) -> nn.Module:
    try:
        made = builder(**args)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"model={model.name}: cannot be made ({why}); see model.args") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"model={model.name}: gives {type(made).__name__} and no torch.nn.Module")
    return made


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import models  # takes seconds

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(TORCHVISION, name, known)
    given = DEFAULTS.get(name, {})
    return lambda **args: models.get_model(name, weights=None, **{**given, **args})


def _timm(name: str) -> Callable[..., Any]:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"model=timm:{name}: timm is not installed; install normexp[timm] or timm itself"
        ) from error
    known = timm.list_models()
    if name not in known:
        raise _unknown(TIMM, name, known)
    return lambda **args: timm.create_model(name, pretrained=False, **args)


def _unknown(library: str, name: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return UserError(
        f"model={library}:{name}: no such network; {hint}{library} has {len(known)}, such as "
        f"{', '.join(known[:3])}"
    )


def _own(model: ModelConfig, image_size: int, classes: int, args: dict[str, Any]) -> nn.Module:
    """A function or class of one's own: it takes `classes`, and `image_size` if it wants it."""
    found = own_code.load("model", model.name)
    if not callable(found):
        raise UserError(f"model={model.name}: is {type(found).__name__}, no function or class")
    given = {"classes": classes, "image_size": image_size}
    try:
        takes = inspect.signature(found).parameters
    except ValueError:
        takes = inspect.signature(lambda classes: None).parameters
    if "classes" not in takes and all(one.kind is not one.VAR_KEYWORD for one in takes.values()):
        raise UserError(f"model={model.name}: it must take `classes`, how many there are")
    if "image_size" not in takes:
        del given["image_size"]
    return _made(model, found, {**given, **args})


class Expected(NamedTuple):
    """What images pretrained weights were trained with."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def expected(model: ModelConfig) -> Expected | None:
    """What torchvision or timm say of the images that their weights of a network want; None where
    they say nothing."""
    library, _, name = model.name.partition(":")
    if library == TIMM:
        import timm

        if (found := timm.get_pretrained_cfg(name)) is None:
            return None
        return Expected(found.input_size[-1], tuple(found.mean), tuple(found.std))
    from torchvision import models

    transforms: Any = models.get_model_weights(name).DEFAULT.transforms()
    return Expected(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))


def unlike(model: ModelConfig, data: DataConfig) -> list[str]:
    """What to say where the images of a run are not like those that its pretrained weights want."""
    if not model.pretrained or (want := expected(model)) is None:
        return []
    size = side(data.name, data.image_size)
    parts = [] if size == want.size else [f"data.image_size={want.size} (yours are {size})"]
    for key, own, their in (("mean", data.mean, want.mean), ("std", data.std, want.std)):
        if own is None or any(abs(a - b) > 1e-3 for a, b in zip(own, their, strict=True)):
            parts.append(f"'data.{key}=[{','.join(f'{each:g}' for each in their)}]'")
    return [f"the weights were trained with {' '.join(parts)}"] if parts else []


def pretrained(model: ModelConfig) -> dict[str, torch.Tensor]:
    """The weights that torchvision or timm have for a network, from their caches or the net.

    Raises:
        UserError: they have none, or they cannot be had.
    """
    library, _, name = model.name.partition(":")
    given = f"model={model.name} model.pretrained=true"
    if is_own(model):
        raise UserError(f"{given}: there are no weights of a network of one's own; model.weights=")
    try:
        if library == TIMM:
            import timm

            state: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
            return state
        from torchvision import models

        weights = models.get_model_weights(name).DEFAULT
        found: dict[str, torch.Tensor] = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True
        )
        return found
    except Exception as error:  # the net, the disk and what lies there fail in many ways
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{given}: its weights cannot be had ({why}); put the file into the cache of "
            f"{library}, or give model.weights=FILE"
        ) from error
