"""What norms with running averages may use instead in evaluation, told without torch."""

from collections.abc import Sequence
from typing import Any

from normexp.config.schema import Config, EvaluateConfig
from normexp.norms.catalogue import CATALOGUE
from normexp.norms.rules import Site
from normexp.system.errors import UserError

KINDS = ("running", "precise", "batch")


def settle(config: Config) -> list[str]:
    """Make a single choice a list of one, and reset what this norm does not read.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    evaluate, defaults, notes = config.evaluate, EvaluateConfig(), []
    if isinstance(evaluate.bn_stats, str):
        evaluate.bn_stats = [evaluate.bn_stats]
    if not has_averages(config) and evaluate.bn_stats != defaults.bn_stats and _known(evaluate):
        notes.append(
            f"evaluate.bn_stats={_shown(evaluate.bn_stats)} is ignored: {config.norm.name} has no "
            "running averages"
        )
        evaluate.bn_stats = defaults.bn_stats
    uses_samples = isinstance(evaluate.bn_stats, list) and "precise" in evaluate.bn_stats
    if not uses_samples and evaluate.precise_samples != defaults.precise_samples:
        notes.append(
            f"evaluate.precise_samples={evaluate.precise_samples} is ignored: "
            f"evaluate.bn_stats={_shown(evaluate.bn_stats)} does not read it"
        )
        evaluate.precise_samples = defaults.precise_samples
    return notes


def has_averages(config: Config) -> bool:
    """Whether the norm keeps running averages for evaluation; one of one's own may."""
    facts = CATALOGUE.get(config.norm.name)
    return facts is None or facts.averages


def check(config: Config, sites: Sequence[Site], ranks: int = 1) -> None:
    """Refuse a choice of statistics that cannot work.

    Args:
        sites: where the norms stand.
        ranks: how many processes train together.

    Raises:
        UserError: one line that names the key and the fix.
    """
    evaluate, norm = config.evaluate, config.norm.name
    shown = f"evaluate.bn_stats={_shown(evaluate.bn_stats)}"
    if not _known(evaluate):
        raise UserError(
            f"{shown}: must be one of {', '.join(KINDS)}, or a list of different ones such as "
            "[running,precise]"
        )
    if evaluate.bn_stats == ["running"]:
        return
    if norm == "syncbn" and ranks > 1:
        raise UserError(
            f"norm=syncbn {shown}: one of several processes evaluates, and cannot ask the others "
            "for their batches; leave it out, and use python -m normexp.evaluate afterwards"
        )
    vectors = any((site.positions or 1) == 1 for site in sites)
    for key, value in (
        ("batch_size", evaluate.batch_size),
        ("precise_samples", evaluate.precise_samples),
    ):
        if vectors and value == 1:
            raise UserError(
                f"{shown} evaluate.{key}=1: one value a channel has no variance; use "
                f"evaluate.{key}=2 or more"
            )


def _known(evaluate: EvaluateConfig) -> bool:
    given: Any = evaluate.bn_stats
    good = isinstance(given, list) and len(given) > 0 and len(set(map(str, given))) == len(given)
    return good and all(kind in KINDS for kind in given)


def _shown(given: Any) -> str:
    if not isinstance(given, list):
        return str(given)
    return str(given[0]) if len(given) == 1 else f"[{','.join(map(str, given))}]"
