"""Of which networks of torchvision and timm can several seeds be trained as one? Each family is
tried with one small member, as `seeds=` does before it trains (normexp/models/proof.py); prints
the table of docs/models-and-images.md. Takes a few minutes; timm is an extra: `pip install timm`.

    python scripts/fusable.py
    python scripts/fusable.py torchvision:resnet18 timm:convnext_atto --size 64
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from normexp.models.fuse import CannotFuse
from normexp.models.proof import prove

CLASSES = 10

TORCHVISION = (
    "alexnet vgg11_bn resnet18 resnext50_32x4d squeezenet1_1 densenet121 googlenet mobilenet_v2 "
    "mobilenet_v3_small mnasnet0_5 shufflenet_v2_x0_5 efficientnet_b0 regnet_x_400mf "
    "regnet_y_400mf convnext_tiny swin_t vit_b_16"
)
TIMM = (
    "resnet10t seresnext26d_32x4d ecaresnet26t skresnet18 resnetv2_18 res2net50_26w_4s "
    "regnetx_002 regnety_002 mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035 "
    "efficientnet_lite0 mixnet_s fbnetc_100 lcnet_035 tinynet_e ghostnet_050 rexnet_100 "
    "repvgg_a0 mobileone_s0 convnext_atto convnextv2_atto inception_next_atto poolformer_s12 "
    "vit_tiny_patch16_224 starnet_s1 mambaout_femto edgenext_xx_small mobilevit_xxs "
    "mixer_s16_224 resmlp_12_224 densenet121 fastvit_t8 dla34 nfnet_l0 levit_128s"
)

# What a family wants beside the number of classes.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "vit_b_16": {"image_size": 32},
    "vit_tiny_patch16_224": {"img_size": 32},
    "mixer_s16_224": {"img_size": 32},
    "resmlp_12_224": {"img_size": 32},
}
SIZES = {"alexnet": 64, "levit_128s": 224}  # those that take no smaller ones


def builder(network: str) -> Callable[[], nn.Module]:
    """Makes networks of that name, such as ``timm:convnext_atto``, with weights of their own."""
    source, _, name = network.partition(":")
    arguments = {"num_classes": CLASSES, **ARGUMENTS.get(name, {})}
    if source == "torchvision":
        from torchvision.models import get_model

        return lambda: get_model(name, weights=None, **arguments)
    import timm

    return lambda: timm.create_model(name, pretrained=False, **arguments)


def verdict(network: str, size: int) -> tuple[str, str]:
    """Whether several can be trained as one: ``together`` or ``in turn``, and why."""
    make = builder(network)
    try:
        prove([make(), make()], size, channels_last=True)
    except CannotFuse as reason:
        return "in turn", str(reason)
    return "together", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("networks", nargs="*", help="torchvision:NAME or timm:NAME; all if none")
    parser.add_argument("--size", type=int, default=32, help="of the images (default: 32)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    families = [
        *(f"torchvision:{name}" for name in TORCHVISION.split()),
        *(f"timm:{name}" for name in TIMM.split()),
    ]
    print("| network | several seeds are trained | why |\n|---|---|---|")
    for network in arguments.networks or families:
        size = SIZES.get(network.partition(":")[2], arguments.size)
        print(f"| {network} | {' | '.join(verdict(network, size))} |", flush=True)


if __name__ == "__main__":
    main()
