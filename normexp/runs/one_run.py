"""Runs as a person asks for them, one seed or several: found where they are done, refused where
they cannot work, else trained."""

import statistics
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from normexp.config.checks import check_name, rates_of, seeds_of
from normexp.config.schema import Config, DataName
from normexp.data import sources
from normexp.data.enough_images import refuse_unseen
from normexp.data.sources import MADE_UP
from normexp.models.source import source_digest as model_source
from normexp.norms.rules import normalizes_share, source_digest
from normexp.runs import console
from normexp.runs.composing import check, settle
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import BesideConfig, run_id
from normexp.system import torchrun
from normexp.system.openmp import wait_briefly


@dataclass(frozen=True)
class Answer:
    """How a run ended."""

    result: dict[str, Any]
    """The contents of its result.json."""
    trained: bool
    """Whether that took training, or stood there already."""


def train_unless_done(
    composed: DictConfig, place_in_sweep: str | None = None, wait: bool = False
) -> list[Answer]:
    """Train what a configuration asks for, a run for each seed, or find that it is done.

    Args:
        place_in_sweep: which run of how many; printed first, and of the run itself less.
        wait: for another process that trains the same run.

    Raises:
        UserError, RunFailed, BusyElsewhere, KeyboardInterrupt: as normexp.runs.training.run.
    """
    config, notes = settle(composed)
    check(config, torchrun.world_size())
    config.data, ignored = sources.settle(config.data)
    notes += ignored
    jobs = jobs_of(config)
    answers = {}
    if not config.force:
        found = [(directory, directory.answer()) for _, directory in jobs]
        answers = {directory.run_id: answer for directory, answer in found if answer is not None}
    pending = [job for job in jobs if job[1].run_id not in answers]
    if torchrun.rank() == 0 and not config.log.quiet:
        _tell(jobs, answers, place_in_sweep)
    trained: dict[str, dict[str, Any]] = {}
    if pending:
        refuse_unseen(config)
        wait_briefly()
        # torch takes seconds to import: only a run that trains needs it.
        from normexp.runs.training import run

        results = run(pending, notes, brief=place_in_sweep is not None, wait=wait)
        trained = {job[1].run_id: result for job, result in zip(pending, results, strict=True)}
    identities = [directory.run_id for _, directory in jobs]
    all_answers = [Answer((answers | trained)[name], name in trained) for name in identities]
    if config.log.quiet:
        return all_answers
    if trained and len(all_answers) > 1 and torchrun.rank() == 0:
        rates = [own.optimizer.lr for own, _ in jobs]
        lines = _table([answer.result for answer in all_answers], rates)
        last = len(set(rates))
        print("\n".join(lines if place_in_sweep is None else lines[-last:]), flush=True)
    made_up = config.data.name is DataName.synthetic
    if trained and made_up and place_in_sweep is None and torchrun.rank() == 0:
        print(MADE_UP, flush=True)
    return all_answers


def _tell(
    jobs: list[tuple[Config, RunDirectory]], answers: dict[str, dict[str, Any]],
    place_in_sweep: str | None,
) -> None:  # fmt: skip
    """Print where in the sweep this is, and which runs are done."""
    if place_in_sweep is not None:
        done = "done" if len(answers) == len(jobs) else f"{len(answers)} of {len(jobs)} done"
        print(place_in_sweep + (f": {done} before" if answers else ""), flush=True)
    elif answers and len(jobs) == 1:
        (answer,) = answers.values()
        print(f"{answer['status']} in {jobs[0][1].path}; force=true trains again", flush=True)
    elif answers:
        total = f"{len(answers)} of {len(jobs)} runs are done"
        if len({own.optimizer.lr for own, _ in jobs}) == 1:
            total += f" (seeds {', '.join(str(answer['seed']) for answer in answers.values())})"
        print(f"{total}; force=true trains them again", flush=True)


def jobs_of(config: Config) -> list[tuple[Config, RunDirectory]]:
    """The run of each seed at each rate, and where it is, or will be, answered.

    Raises:
        UserError: the images or a norm of one's own cannot be read.
    """
    check_name(config.name)
    config = replace(config, data=sources.settle(config.data)[0])
    beside = BesideConfig(
        sources.fingerprint(config.data), source_digest(config.norm),
        torchrun.world_size() if normalizes_share(config.norm) else 1, model_source(config.model),
    )  # fmt: skip
    jobs = []
    for rate in rates_of(config):
        optimizer = replace(config.optimizer, lr=rate)
        for seed in seeds_of(config):
            # As if it had been asked for alone: a run knows nothing of its siblings.
            own = replace(config, seed=seed, seeds=None, optimizer=optimizer, rates=None)
            jobs.append((own, RunDirectory(own, run_id(own, beside), beside)))
    return jobs


def labels(cell: str, config: Config) -> list[str]:
    """What tells the cell of each run of :func:`jobs_of` from others, in their order.

    Args:
        cell: what tells those of ``config`` from others.
    """
    if config.rates is None:
        return [cell] * len(seeds_of(config))
    each = [f"{cell} optimizer.lr={rate}".lstrip() for rate in rates_of(config)]
    return [one for one in each for _ in seeds_of(config)]


def accuracy(results: list[dict[str, Any]]) -> float | None:
    """What a sweeper may optimize: accuracy on the validation images, the mean over the seeds."""
    found = [result["val_acc"] for result in results if result.get("val_acc") is not None]
    return float(sum(found) / len(found)) if found and len(found) == len(results) else None


def _table(results: list[dict[str, Any]], rates: list[float]) -> list[str]:
    """What several runs came to, in lines; the last are the means over the seeds of each rate.

    Args:
        rates: of each run.
    """
    several = len(set(rates)) > 1
    head = "  learning rate" if several else ""
    lines = [f"{head}  seed  status       val acc    test acc   ms a step  time"]
    for result, rate in zip(results, rates, strict=True):
        lead = f"{rate:>15g}" if several else ""
        accuracies = [console.percent(result[name]) for name in ("val_acc", "test_acc")]
        lines.append(
            f"{lead}{result['seed']:>6}  {result['status']:<10}"
            f"  {accuracies[0]:>8}  {accuracies[1]:>10}"
            f"  {console.number(result['ms_per_step'], '.3f'):>10}  {result['seconds']:.1f} s"
        )
    for rate in dict.fromkeys(rates):
        own = [one for one, its in zip(results, rates, strict=True) if its == rate]
        lines += _means(own, f"  learning rate {rate:g}:" if several else " ")
    return lines


def _means(results: list[dict[str, Any]], head: str) -> list[str]:
    """Over seeds."""
    lines = []
    tested = [result for result in results if result["test_acc"] is not None]
    if len(tested) > 1:
        kinds = tested[0]["test_acc_by_bn_stats"] or {}
        if len(kinds) > 1:
            each = [
                f"{kind} {_spread([result['test_acc_by_bn_stats'][kind] for result in tested])}"
                for kind in kinds
            ]
            lines.append(f"{head} test accuracy by statistics: {', '.join(each)}")
        spread = _spread([result["test_acc"] for result in tested])
        lines.append(f"{head} test accuracy {spread} (n = {len(tested)})")
    return lines


def _spread(fractions: list[float]) -> str:
    """Mean and standard deviation of accuracies, in percent."""
    mean, std = statistics.mean(fractions), statistics.stdev(fractions)
    return f"{100 * mean:.2f} ± {100 * std:.2f} %"
