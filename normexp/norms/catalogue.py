"""What is known of every norm without torch, which takes seconds to import.

The facts of a norm stand above its layer, as the decorator :class:`Facts`. They are literals, and
are read here from the files of the layers as they are written; nothing of these files is run.
tests/norms/test_catalogue.py holds the facts against the layers.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

FILES = (
    *("torch_layers", "group_norm", "batch_statistics", "position_statistics", "with_activation"),
    *("pointwise", "mixtures", "frozen"),
)
"""The modules here that hold norms, in the order in which norms are shown."""

KEPT = {
    "N,H,W": "C", "g,H,W": "C·N/g", "C,H,W": "N", "C/G,H,W": "N·G", "H,W": "N·C", "C": "N·H·W",
}  # fmt: skip
"""Axes that statistics may be over, and how many of each kind (a mean, a variance) that makes for N
images of C channels and H·W positions, in G groups of channels or ghost batches of g images."""

Builder = TypeVar("Builder")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one norm; written above the layer, or the function, that is called with
    (channels, dims, norm) to build it (see :func:`normexp.norms.factory.build_norm`).

    name: what the configuration calls it.
    title, paper: what it is called and where it comes from.
    when: people use it, as its paper and those who took it up say.
    formula: of one value x; ε is norm.eps, γ and β are one a channel.
    axes: of each of its statistics for (N,C,H,W), as in ``KEPT``. For (N,C) they are the same
        without H,W; a norm with one over H,W alone is undefined there.
    parameters: how many numbers it learns with norm.affine=true.
    reads: keys of norm.*, apart from weight_standardization.
    tokens: whether it takes (N,L,C) too, each token as a vector.
    contains_activation: it stands in the place of the network's ReLU too.
    all_processes: its batch is that of all processes that train together.
    refused: where it cannot work but for what follows from its axes (``rules``).
    """

    name: str
    title: str
    paper: str
    when: str
    formula: str
    axes: tuple[str, ...]
    parameters: str
    reads: str
    tokens: bool = False
    contains_activation: bool = False
    all_processes: bool = False
    refused: str = ""

    def __call__(self, builder: Builder) -> Builder:
        if self.contains_activation:
            builder.contains_activation = True  # type: ignore[attr-defined]
        return builder

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys of norm.* that it reads."""
        return tuple(self.reads.split())

    @property
    def vectors(self) -> tuple[str, ...] | None:
        """The axes for (N,C), or None where it is undefined."""
        return None if "H,W" in self.axes else tuple(a.removesuffix(",H,W") for a in self.axes)

    @property
    def keeps(self) -> str:
        """How many statistics of each kind it keeps for a batch."""
        return " + ".join(KEPT[axes] for axes in self.axes) or "0"

    @property
    def uses_batch(self) -> bool:
        """Whether an image's result in training depends on the other images of its batch."""
        return any(axes.startswith(("N", "g")) for axes in self.axes)

    @property
    def averages(self) -> bool:
        """Whether it keeps running averages for evaluation."""
        return "momentum" in self.settings

    @property
    def train_differs(self) -> bool:
        """Whether training differs from evaluation on the same batch."""
        return self.averages and self.uses_batch


def _read() -> Iterator[tuple[Facts, str]]:
    """The facts of each norm, and `module:name` of what is decorated with them."""
    for file in FILES:
        source = Path(__file__).with_name(f"{file}.py").read_text(encoding="utf-8")
        for statement in ast.parse(source).body:
            for call in getattr(statement, "decorator_list", []):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "Facts":
                    facts: Any = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
                    yield Facts(**facts), f"normexp.norms.{file}:{statement.name}"  # type: ignore[attr-defined]


_FOUND = [*_read()]
CATALOGUE = {facts.name: facts for facts, _ in _FOUND}
BUILDERS = {facts.name: builder for facts, builder in _FOUND}
"""Of each norm what builds it, by `module:name`, as one's own norms are named."""
BUILT_IN = tuple(CATALOGUE)
