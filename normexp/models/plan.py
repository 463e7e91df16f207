"""Where the norms of a network stand, told from its configuration alone, without torch."""

from normexp.config.schema import Architecture, ModelConfig, Stem
from normexp.norms.rules import Site

# Of residual networks: channels of each stage, and blocks in a stage.
WIDTHS = {Architecture.resnet18: (64, 128, 256, 512), Architecture.resnet20: (16, 32, 64)}
BLOCKS = {Architecture.resnet18: 2, Architecture.resnet20: 3}


def norm_sites(model: ModelConfig, image_size: int) -> list[Site]:
    """The sites of all norms, in order, for square images of ``image_size`` pixels."""
    if model.architecture is Architecture.mlp:
        return [Site(width, None) for width in model.hidden]
    if model.architecture in WIDTHS:
        return _residual_sites(model, image_size)
    sites = []
    for place, channels in enumerate(model.channels, start=1):
        sites.append(Site(channels, image_size * image_size))
        if place in model.pool_after:
            image_size //= 2
    return sites


def _residual_sites(model: ModelConfig, size: int) -> list[Site]:
    """Of a stem, and of blocks whose last norms stand before an addition."""
    widths = WIDTHS[model.architecture]
    projects = model.architecture is Architecture.resnet18
    halves = projects and model.stem is Stem.imagenet
    size = _half(size) if halves else size
    sites = [Site(widths[0], size * size)]
    size = _half(size) if halves else size
    for stage, width in enumerate(widths):
        size = _half(size) if stage else size
        for block in range(BLOCKS[model.architecture]):
            sites.append(Site(width, size * size))
            sites.append(Site(width, size * size, activated=False))
            if projects and stage and not block:  # the convolution in the shortcut has one too
                sites.append(Site(width, size * size, activated=False))
    return sites


def _half(size: int) -> int:
    """The side of a map after a stride of 2."""
    return (size + 1) // 2
