"""The norms of a model alone: forward and backward over a plain copy, and what they keep."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from math import isqrt
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from normexp.bench import pictures
from normexp.bench.cells import Cell
from normexp.bench.engine import Row, Take, Timer, repeat, spread
from normexp.config.schema import Config, Precision
from normexp.models.plan import norm_sites
from normexp.norms import rules
from normexp.norms.factory import build_norm
from normexp.runs.composing import image_size
from normexp.system.errors import UserError
from normexp.trainer import process

Context = AbstractContextManager[None]

COLUMNS = {
    "model": "model", "batch_size": "batch", "norm": "norm", "ms": "ms",
    "x_copy": "x copy", "x_copy_min": "min", "x_copy_max": "max", "kept_x_input": "kept x input",
    "also": "",
}  # fmt: skip


def rows(cells: Sequence[Cell], device: torch.device, timer: Timer) -> Iterator[Row]:
    """A row for each cell; neighbours that differ in nothing but the norm are timed in turn.

    Raises:
        UserError: a cell cannot be measured.
    """
    for _, group in itertools.groupby(cells, lambda cell: cell.others("norm")):
        alike = list(group)
        config = alike[0].config
        sites = norm_sites(config.model, image_size(config))
        if not sites:
            raise UserError(f"model={config.model.name}: has no norms to time")
        precision = process.autocast(config.precision, device)
        inputs = [_input(config, site, device) for site in sites]
        size = sum(x.nbytes for x in inputs)
        norms = [_layers(cell.config, sites, device) for cell in alike]
        takes: dict[Any, Take] = {"copy": _copies(inputs)}
        takes |= {number: _passes(each, inputs, precision) for number, each in enumerate(norms)}
        times = timer(takes)
        for number, cell in enumerate(alike):
            pairs = zip(norms[number], inputs, strict=True)
            kept = sum(kept_for_backward(layer, x, precision) for layer, x in pairs)
            yield cell.row() | {
                "rounds": len(times["copy"]), "precision": config.precision.value,
                **spread("ms", 1000 * times[number]), **spread("copy_ms", 1000 * times["copy"]),
                **spread("x_copy", times[number] / times["copy"]),
                "kept_bytes": kept, "input_bytes": size, "kept_x_input": kept / size,
            }  # fmt: skip


def draw(table: pd.DataFrame) -> Figure:
    """Time and memory over what the input itself takes."""
    shown = {"x_copy": "time over a plain copy's", "kept_x_input": "memory over the input's"}
    return pictures.dots(table, shown, "forward and backward over the least")


def _input(config: Config, site: rules.Site, device: torch.device) -> Tensor:
    """Random numbers as they come to a norm, in its shape, layout and precision."""
    side = [isqrt(site.positions or 1)] * 2 if site.dims == 4 else []
    shape = (site.positions, site.channels) if site.tokens else (site.channels, *side)
    x = torch.randn(config.batch_size, *shape, device=device)
    if config.precision is Precision.bf16:
        x = x.bfloat16()
    if side and config.channels_last:
        x = x.to(memory_format=torch.channels_last)
    return x.requires_grad_()


def _layers(config: Config, sites: Sequence[rules.Site], device: torch.device) -> list[nn.Module]:
    return [
        build_norm(site.channels, site.dims, own).to(device)
        for site, own in zip(sites, rules.at_sites(config.norm, len(sites)), strict=True)
    ]


def _copies(inputs: Sequence[Tensor]) -> Take:
    """The least that reading the inputs and writing as much can cost."""
    pairs = [(torch.empty_like(x.detach()), x.detach()) for x in inputs]
    return repeat(lambda: [to.copy_(x) for to, x in pairs])


def _passes(layers: Sequence[nn.Module], inputs: Sequence[Tensor], precision: Context) -> Take:
    """Forward and backward, to the input and the parameters, of one layer after the other."""
    with precision:
        outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    gradients = [torch.randn_like(y) for y in outputs]

    def passes() -> None:
        for layer, x, gradient in zip(layers, inputs, gradients, strict=True):
            with precision:
                y = layer(x)
            torch.autograd.grad(y, [x, *layer.parameters()], gradient)

    return repeat(passes)


def kept_for_backward(layer: nn.Module, x: Tensor, precision: Context) -> int:
    """Bytes of the memory that a forward pass keeps alive for backward.

    Each piece of memory counts once and whole. Parameters and buffers, which are there anyway, do
    not count; what a norm keeps past torch's saved tensors is not seen.
    """
    own = {p.untyped_storage().data_ptr() for p in (*layer.parameters(), *layer.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        found[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        output = layer(x)
    del output  # until here it kept the memory, so that no address was met twice
    return sum(size for place, size in found.items() if place not in own)
