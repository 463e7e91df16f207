"""Where the norms of a network stand, told from its configuration alone, without torch."""

from normexp.config.schema import Architecture, ModelConfig, Order, Stem
from normexp.norms.rules import Site

# Of residual networks: channels of each stage, and blocks in a stage.
WIDTHS = {Architecture.resnet18: (64, 128, 256, 512), Architecture.resnet20: (16, 32, 64)}
BLOCKS = {Architecture.resnet18: 2, Architecture.resnet20: 3}


def norm_sites(model: ModelConfig, image_size: int) -> list[Site]:
    """The sites of all norms, in order, for square images of ``image_size`` pixels."""
    if model.architecture is Architecture.mlp:
        return [Site(f"norm{place}", width, None) for place, width in enumerate(model.hidden, 1)]
    if model.architecture in WIDTHS:
        return _residual_sites(model, image_size)
    sites = []
    followed = model.order is Order.conv_norm_relu
    for place, channels in enumerate(model.channels, start=1):
        if place >= model.norm_from:
            sites.append(Site(f"norm{place}", channels, image_size * image_size, followed))
        if place in model.pool_after:
            image_size //= 2
    return sites


def _residual_sites(model: ModelConfig, size: int) -> list[Site]:
    """Of a stem, and of blocks whose last norms stand before an addition."""
    widths = WIDTHS[model.architecture]
    projects = model.architecture is Architecture.resnet18
    halves = projects and model.stem is Stem.imagenet
    size = _half(size) if halves else size
    sites = [Site("bn1" if projects else "norm1", widths[0], size * size)]
    size = _half(size) if halves else size
    for stage, width in enumerate(widths):
        size = _half(size) if stage else size
        for block in range(BLOCKS[model.architecture]):
            at = (
                f"layer{stage + 1}.{block}.bn" if projects else f"block{stage + 1}_{block + 1}.norm"
            )
            sites.append(Site(f"{at}1", width, size * size))
            sites.append(Site(f"{at}2", width, size * size, activated=False))
            if projects and stage and not block:  # the convolution in the shortcut has one too
                shortcut = f"layer{stage + 1}.{block}.downsample.1"
                sites.append(Site(shortcut, width, size * size, activated=False))
    return sites


def _half(size: int) -> int:
    """The side of a map after a stride of 2."""
    return (size + 1) // 2
