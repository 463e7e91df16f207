"""Where the norms of a network stand, told from its configuration alone, without torch."""

from normexp.config import Architecture, ModelConfig
from normexp.norms.rules import Site


def norm_sites(model: ModelConfig, image_size: int) -> list[Site]:
    """The sites of all norms, in order, for square images of ``image_size`` pixels."""
    if model.architecture is Architecture.mlp:
        return [Site(width, None) for width in model.hidden]
    sites = []
    for place, channels in enumerate(model.channels, start=1):
        sites.append(Site(channels, image_size * image_size))
        if place in model.pool_after:
            image_size //= 2
    return sites
