"""The facts of every norm: paper, formula, statistics, parameters; read without torch.

tests/norms/test_catalogue.py holds them against the layers.
"""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

COMMON = ("eps", "affine")
GROUPS = ("num_groups", "channels_per_group")
AVERAGES = (*COMMON, "momentum")
RENORM = ("rmax", "dmax", "renorm_from", "rmax_at", "dmax_at")


@dataclass(frozen=True)
class Entry:
    """One norm, as `python -m normexp.norms` shows it.

    name: what the configuration calls it.
    title, paper: what it is called and where it comes from.
    when: people use it, as its paper and those who took it up say.
    formula: of one value x; ε is norm.eps, γ and β are one a channel.
    maps, vectors: axes of its statistics for (N,C,H,W) and (N,C); "" for none at all, and
        None where the norm is undefined.
    keeps: how many statistics of each kind (a mean, a variance) it keeps for N images of
        C channels and H·W positions (1 for vectors), in G groups or ghost batches of g images.
    parameters: how many numbers it learns with norm.affine=true.
    settings: keys of norm.* that it reads, apart from weight_standardization.
    train_differs: from evaluation, on the same batch.
    uses_batch: whether an image's result in training depends on the other images of its batch.
    contains_activation: it stands in the place of the network's ReLU too.
    refused: where it cannot work.
    """

    name: str
    title: str
    paper: str
    when: str
    formula: str
    maps: str
    vectors: str | None
    keeps: str
    parameters: str
    settings: tuple[str, ...] = COMMON
    train_differs: bool = False
    uses_batch: bool = False
    contains_activation: bool = False
    refused: str = ""


ONE_VALUE = "one value a channel (an MLP at batch_size=1)"
NO_POSITIONS = "an MLP; maps of 1x1"
ONE_IN_GROUP = "groups that do not divide C, or hold one value"
ONE_CHANNEL = "1 channel"

ENTRIES = (
    Entry(
        "none", "no normalization", "the control",
        "to see what a norm is worth",
        "y = x",
        "", "", "0", "0", (),
    ),
    Entry(
        "bn", "BatchNorm", "Ioffe & Szegedy 2015, arXiv 1502.03167",
        "CNNs with batches of 16 and more",
        "y = γ (x - μ) / √(σ² + ε) + β;  in evaluation μ and σ² are running averages",
        "N,H,W", "N", "C", "2C", AVERAGES,
        train_differs=True, uses_batch=True, refused=ONE_VALUE,
    ),
    Entry(
        "syncbn", "BatchNorm over all processes", "Peng et al. 2018, arXiv 1711.07240",
        "CNNs with few images on each of many GPUs",
        "as bn, over the images of all processes that train together",
        "N,H,W", "N", "C", "2C", AVERAGES,
        train_differs=True, uses_batch=True, refused=f"CPUs; {ONE_VALUE}",
    ),
    Entry(
        "ln", "LayerNorm", "Ba et al. 2016, arXiv 1607.06450",
        "recurrent networks, MLPs; any batch size",
        "y = γ (x - μ) / √(σ² + ε) + β",
        "C,H,W", "C", "N", "2C", refused="one value an image",
    ),
    Entry(
        "in", "InstanceNorm", "Ulyanov et al. 2016, arXiv 1607.08022",
        "style transfer, image generation",
        "y = γ (x - μ) / √(σ² + ε) + β",
        "H,W", None, "N·C", "2C", refused=NO_POSITIONS,
    ),
    Entry(
        "gn", "GroupNorm", "Wu & He 2018, arXiv 1803.08494",
        "CNNs with small batches, as in detection",
        "y = γ (x - μ) / √(σ² + ε) + β",
        "C/G,H,W", "C/G", "N·G", "2C", (*COMMON, *GROUPS), refused=ONE_IN_GROUP,
    ),
    Entry(
        "ghost_bn", "Ghost BatchNorm", "Hoffer et al. 2017, arXiv 1705.08741",
        "large batches that lose accuracy with bn",
        "as bn, over each g = norm.ghost_batch_size images of the batch in turn",
        "g,H,W", "g", "C·N/g", "2C", (*AVERAGES, "ghost_batch_size"),
        train_differs=True, uses_batch=True,
        refused=f"batch_size no multiple of g; {ONE_VALUE}",
    ),
    Entry(
        "batch_renorm", "Batch Renormalization", "Ioffe 2017, arXiv 1702.03275",
        "as bn, for small or non-i.i.d. batches",
        "y = γ ((x - μB) / σB · r + d) + β,  r = σB/σ within 1/rmax..rmax, d = (μB - μ)/σ within "
        "±dmax, both held constant in the gradient;  μB and σB are the batch's, σB² with ε added, "
        "μ and σ their running averages;  in evaluation y = γ (x - μ) / σ + β",
        "N,H,W", "N", "C", "2C", (*AVERAGES, *RENORM),
        train_differs=True, uses_batch=True, refused=ONE_VALUE,
    ),
    Entry(
        "ln2d", "LayerNorm at each position", "Ba et al. 2016; Liu et al. 2022, arXiv 2201.03545",
        "transformers, ConvNeXt",
        "y = γ (x - μ) / √(σ² + ε) + β",
        "C", "C", "N·H·W", "2C", refused=ONE_CHANNEL,
    ),
    Entry(
        "rms", "RMSNorm at each position", "Zhang & Sennrich 2019, arXiv 1910.07467",
        "language models, as a cheaper ln",
        "y = γ x / √(mean x² + ε)",
        "C", "C", "N·H·W", "C", refused=ONE_CHANNEL,
    ),
    Entry(
        "frn", "Filter Response Normalization with TLU", "Singh & Krishnan 2019, arXiv 1911.09737",
        "CNNs with batches down to one image",
        "y = max(γ x / √(mean x² + ε) + β, τ),  τ one a channel",
        "H,W", None, "N·C", "3C", contains_activation=True, refused=NO_POSITIONS,
    ),
    Entry(
        "evonorm_s0", "EvoNorm-S0", "Liu et al. 2020, arXiv 2004.02967",
        "small batches; norm and activation in one",
        "y = γ x sigmoid(v x) / √(σ² + ε) + β,  v one a channel",
        "C/G,H,W", "C/G", "N·G", "3C", (*COMMON, *GROUPS),
        contains_activation=True, refused=ONE_IN_GROUP,
    ),
    Entry(
        "evonorm_b0", "EvoNorm-B0", "Liu et al. 2020, arXiv 2004.02967",
        "large batches; norm and activation in one",
        "y = γ x / max(√(σ²(N,H,W) + ε), v x + √(σ²(H,W) + ε)) + β,  v one a channel;  in "
        "evaluation σ²(N,H,W) is a running average",
        "N,H,W and H,W", None, "C + N·C", "3C", AVERAGES,
        train_differs=True, uses_batch=True, contains_activation=True, refused=NO_POSITIONS,
    ),
    Entry(
        "dyt", "Dynamic Tanh", "Zhu et al. 2025, arXiv 2503.10622",
        "transformers without any statistics",
        "y = γ tanh(α x) + β,  α one a layer",
        "", "", "0", "2C + 1", ("affine", "alpha_init"),
    ),
    Entry(
        "derf", "Dynamic erf", "Chen et al. 2025, arXiv 2512.10938",
        "as dyt, with better results reported",
        "y = γ erf(α x + s) + β,  α and s one a layer",
        "", "", "0", "2C + 2", ("affine", "alpha_init"),
    ),
    Entry(
        "switchable", "Switchable Normalization", "Luo et al. 2018, arXiv 1806.10779",
        "CNNs that learn to mix in, ln and bn",
        "y = γ (x - Σ w μ) / √(Σ w' σ² + ε) + β,  over the statistics of in, ln and bn, with "
        "w and w' each the softmax of three weights;  in evaluation bn's are running averages",
        "H,W; C,H,W; N,H,W", None, "N·C + N + C", "2C + 6", AVERAGES,
        train_differs=True, uses_batch=True, refused=NO_POSITIONS,
    ),
    Entry(
        "batch_instance", "Batch-Instance Normalization", "Nam & Kim 2018, arXiv 1805.07925",
        "classifying images of varying style",
        "y = γ (ρ bn(x) + (1 - ρ) in(x)) + β,  ρ one a channel, within 0..1",
        "N,H,W and H,W", None, "C + N·C", "3C", AVERAGES,
        train_differs=True, uses_batch=True, refused=NO_POSITIONS,
    ),
)  # fmt: skip

CATALOGUE = {entry.name: entry for entry in ENTRIES}

NOTES = (
    "keeps: statistics of a kind for N images, C channels, G groups, H·W positions.",
    "uses batch: an image's result depends on its batch in training, and not in evaluation.",
    "norm.weight_standardization=true with any norm but none (Qiao et al. 2019, arXiv 1903.10520): "
    "convolutions use Ŵ = (W - μ) / √(σ² + 1e-6), over the weights of each output channel.",
    "python -m normexp.norms NAME shows one norm with its formula, settings and where it is "
    "refused.",
)
WIDTH = 80

Row = tuple[str, ...]


def table() -> str:
    """All norms, one a line: what they are for, and below that what they do."""
    uses: list[Row] = [("name", "paper", "used in")]
    facts: list[Row] = [("name", "(N,C,H,W)", "(N,C)", "keeps", "learns", "uses batch")]
    for entry in ENTRIES:
        uses.append((entry.name, re.split("[,;]", entry.paper)[0], entry.when))
        facts.append(
            (
                *(entry.name, entry.maps or "-", _vectors(entry)),
                *(entry.keeps, entry.parameters, _yes(entry.uses_batch)),
            )
        )
    notes = (textwrap.fill(note, WIDTH, break_on_hyphens=False) for note in NOTES)
    return "\n".join([*_aligned(uses), "", *_aligned(facts), "", *notes])


def card(entry: Entry) -> str:
    """One norm, a fact a line."""
    activation = "contained: it takes the place of the ReLU" if entry.contains_activation else "-"
    facts = {
        "norm": f"{entry.name}: {entry.title}",
        "paper": entry.paper,
        "used in": entry.when,
        "formula": entry.formula,
        "(N,C,H,W)": f"statistics over {entry.maps}" if entry.maps else "no statistics",
        "(N,C)": _vectors(entry) if not entry.vectors else f"statistics over {entry.vectors}",
        "keeps": f"{entry.keeps} statistics of a kind for N images, C channels"
        + (", G groups" if "G" in entry.keeps else ""),
        "learns": f"{entry.parameters} numbers",
        "activation": activation,
        "train≠eval": _yes(entry.train_differs),
        "uses batch": _yes(entry.uses_batch),
        "refused": entry.refused or "-",
        "settings": " ".join(f"norm.{key}" for key in entry.settings) or "-",
    }
    return "\n".join(
        textwrap.fill(f"{name:<10}  {fact}", WIDTH, subsequent_indent=" " * 12)
        for name, fact in facts.items()
    )


def _vectors(entry: Entry) -> str:
    return "refused" if entry.vectors is None else entry.vectors or "-"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _aligned(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return list(padded)
