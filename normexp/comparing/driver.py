"""The way of a comparison: plan, tune, look, decide; every step of it is in the plan, so that what
was interrupted goes on where it was."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from normexp.comparing import budget, tuning, view
from normexp.comparing.budget import Clock, Cost, Length
from normexp.comparing.cells import Cell, Table
from normexp.comparing.looks import Verdict, levels, look
from normexp.comparing.settings import FIRST_TUNING_SEED, Asked
from normexp.comparing.stage import Stages, changed
from normexp.report import timing
from normexp.report.answer import Answer, answer, card_text, write
from normexp.report.read import read_runs
from normexp.report.statistics import Pair
from normexp.report.thresholds import LEAST_SEEDS
from normexp.runs import cell_boards
from normexp.runs import plan as plans
from normexp.runs.outcomes import duration
from normexp.runs.plan import Comparison
from normexp.runs.planning import Job
from normexp.system.errors import UserError

TUNING = "-tuning"
"""Ends the name of the folder of runs that try rates, beside that of the runs that decide."""


class Driver:
    """One comparison."""

    def __init__(self, stages: Stages, table: Table, asked: Asked) -> None:
        self.stages, self.table, self.asked = stages, table, asked
        self.folder = table.cells[0].folder
        self.length = Length.of(table.cells[0].config)
        self.costs: list[Cost] = []
        """By cell; none where a comparison without a budget goes on."""
        self.plan: Comparison
        self.clock = Clock()
        self.known: dict[Pair, Verdict] = {}
        self.out_of_time = False
        """Whether a look that was planned did not fit the budget."""

    def run(self) -> None:
        """Compare.

        Raises:
            UserError: it cannot be done as it is asked for.
            Incomplete: a run failed.
        """
        self._plan()
        if self.asked.tunes:
            self._tune()
        self._shorten()
        for place in range(len(self.asked.looks)):
            if not self._look(place):
                break
            self._report(live=True)
        self._end()

    def _plan(self) -> None:
        """Take up the plan of this folder, or make one that fits the budget."""
        plan = plans.read(self.folder)
        known = None if plan is None else plan.comparison
        recorded = {**self.asked.recorded(), "cells": [cell.key for cell in self.table.cells]}
        if known is not None:
            if known.asked != recorded:
                changed_keys = [key for key in recorded if known.asked.get(key) != recorded[key]]
                raise UserError(
                    f"{self.folder}: holds a comparison with other {', '.join(changed_keys)}; "
                    "leave them as they were, or choose another name="
                )
            self.plan = known
            self.clock = Clock(known.spent)
            self.asked = replace(
                self.asked, looks=tuple(known.looks), rates=known.rates_tried, share=known.share
            )
            self.length = Length(*known.length)
            view.say(f"going on with the comparison of {self.folder / plans.FILE}")
            if self.asked.budget:
                self._measure()
            return
        self._measure()
        if self.asked.budget:
            self._fit(self.asked.budget)
        self.plan = Comparison(
            recorded, [*self.asked.looks], levels(self.asked.looks),
            (self.length.key, self.length.value), self.asked.rates, self.asked.share,
            {cell.key: cost.together
             for cell, cost in zip(self.table.cells, self.costs, strict=True)},
        )  # fmt: skip
        self._record()

    def _measure(self) -> None:
        view.say("timing a few steps of each cell")
        self.costs = []
        for cell in self.table.cells:
            try:
                self.costs.append(budget.measure(cell.config))
            except UserError:
                raise
            except Exception as error:  # code of one's own fails in any way
                why = " ".join(str(error).split())
                raise UserError(
                    f"{cell.key}: cannot take a step: {type(error).__name__}: {why}"
                ) from error

    def _fit(self, seconds: float) -> None:
        wanted, asked = self.length, self.asked
        found = budget.fit(self.costs, asked, wanted, seconds)
        self.asked, self.length = found.asked, found.length
        parts = [f"{self.length} a run" + (f" (of {wanted})" if self.length != wanted else "")]
        if self.asked.tunes:
            trial = self.length.part(self.asked.share)
            parts.append(f"{self.asked.rates} rates by {self.asked.tuning_seeds} seeds of {trial}")
        elif asked.tunes:
            parts.append("no rates tried")
        shown = ", ".join(map(str, self.asked.looks))
        parts.append(f"looks at {shown} seeds")
        view.say(f"in {duration(seconds)}: {'; '.join(parts)}")
        done = time.strftime("%H:%M", time.localtime(time.time() + found.seconds))
        view.say(f"done by about {done} at the latest ({duration(found.seconds)})")

    def _record(self) -> None:
        self.plan.spent = self.clock.spent()
        plans.record(
            self.folder, self.plan, f"{self.table.reference_key}={self.table.reference}",
            self.asked.margin,
        )  # fmt: skip

    def _train(self, what: str, lists: list[list[str]], expected: float) -> list[Job]:
        began = time.monotonic()
        files = [directory.path / "result.json"
                 for job in self.stages.compose(lists) for _, directory in job.runs]  # fmt: skip
        missing = [path for path in files if not path.exists()]
        with view.bar(what, missing):
            jobs = self.stages.train(lists)
        if missing:
            share = len(missing) / len(files)
            self.clock.learn(expected * share, time.monotonic() - began)
        return jobs

    def _tune(self) -> None:
        """Find the rate of each cell, if the plan has none yet."""
        cells = self.table.cells
        if not self.plan.rates:
            trial = self.length.part(self.asked.share)
            view.say(
                f"tuning: {self.asked.rates} rates by {self.asked.tuning_seeds} seeds in "
                f"{len(cells)} cells, {trial} each"
            )
            scores: list[dict[int, list[float | None]]] = [{} for _ in cells]
            self._try(tuning.grid(self.asked.rates), scores)
            for _ in range(tuning.MOST_WIDENINGS):
                more = tuning.wider(scores[0], map(tuning.best, scores))
                if not more or not self._affords(self._trials(len(more))):
                    break
                view.say(f"tuning: the best lies at an edge; {len(more)} more rates for all")
                self._try(more, scores)
            default = cells[0].rate
            self.plan.tried = [tuning.rate(default, steps) for steps in sorted(scores[0])]
            self.plan.rates = {
                cell.key: tuning.rate(default, tuning.best(one))
                for cell, one in zip(cells, scores, strict=True)
            }
            self._record()
        for cell in cells:
            cell.rate = self.plan.rates[cell.key]
        chosen: dict[float, list[str]] = {}
        for cell in cells:
            chosen.setdefault(cell.rate, []).append(cell.key)
        view.say(f"the best of {len(self.plan.tried)} learning rates:")
        for rate in sorted(chosen):
            view.say(f"  {rate:<7g} {', '.join(chosen[rate])}")

    def _shorten(self) -> None:
        """Where trying rates took longer than it was expected to: train for less, or with fewer
        seeds, so that there is an answer within the budget."""
        given = self.asked.budget
        if self.plan.history or not given:
            return
        everyone, wanted = set(range(len(self.table.cells))), (self.length, self.asked.looks)
        options = [(self.length.part(share), self.asked.looks) for share in budget.SHARES]
        options.append((options[-1][0], (LEAST_SEEDS,)))
        for length, looks in options:
            self.length, self.asked = length, replace(self.asked, looks=looks)
            if self._affords(self._more(everyone, looks[0])):
                break
        else:
            raise UserError(
                f"budget={duration(given)}: is nearly spent, and six seeds do not fit "
                "what is left; the same command with more of it goes on"
            )
        if (self.length, self.asked.looks) != wanted:
            view.say(f"tuning took longer than planned: {self.length} a run, so that it fits")
            self.plan.length = self.length.key, self.length.value
            self.plan.looks, self.plan.levels = [*looks], levels(looks)
            self._record()

    def _trials(self, rates: int) -> float:
        return budget.tuning(self.costs, replace(self.asked, rates=rates), self.length)

    def _try(self, rates: list[int], scores: list[dict[int, list[float | None]]]) -> None:
        seeds = list(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.asked.tuning_seeds))
        length = self.length.part(self.asked.share)
        cells = self.table.cells
        given = [[tuning.rate(cell.rate, steps) for steps in rates] for cell in cells]
        lists = [
            self._overrides(cell, length, seeds, own, cell.config.name + TUNING)
            for cell, own in zip(cells, given, strict=True)
        ]
        jobs = self._train("tuning", lists, self._trials(len(rates)))
        for found, own, job in zip(scores, given, jobs, strict=True):
            answers = job.answers() or []
            for steps, rate in zip(rates, own, strict=True):
                found[steps] = [
                    one["val_acc"] if one["status"] == "completed" else None
                    for (config, _), one in zip(job.runs, answers, strict=True)
                    if config.optimizer.lr == rate
                ]

    def _overrides(
        self, cell: Cell, length: Length, seeds: Sequence[int], rates: Sequence[float], name: str
    ) -> list[str]:
        """Of the job that trains each of these rates with each of these seeds; no rates for the
        one that was asked for."""
        settings: dict[str, Any] = {"name": name, "seeds": f"[{','.join(map(str, seeds))}]"}
        settings[length.key] = length.value
        settings["log__quiet"] = "true"
        if cell.config.fuse == "auto":
            settings["fuse"] = self.plan.fuse[cell.key]
        if len(rates) == 1:
            settings["optimizer__lr"] = rates[0]
        elif rates:
            settings["rates"] = f"[{','.join(map(str, rates))}]"
        return changed(cell.overrides, **settings)

    def _look(self, place: int) -> bool:
        """Train what the look needs and decide what it can; whether there is another look."""
        seeds, table = self.asked.looks[place], self.table
        recorded = self.plan.history[place] if place < len(self.plan.history) else None
        open_pairs = [pair for pair in table.pairs if not self._decided(pair)]
        wanted = {number for pair in open_pairs for number in pair}
        if recorded is None and not self._affords(self._more(wanted, seeds)):
            self.out_of_time = True
            return False
        for number in wanted:
            table.cells[number].seeds = seeds
        tuned = self.asked.tunes
        lists = [
            self._overrides(
                cell, self.length, range(cell.seeds), [cell.rate] if tuned else [], cell.config.name
            )
            for cell in table.cells
        ]
        view.say(
            f"look {place + 1} of {len(self.asked.looks)}: {seeds} seeds of {len(wanted)} cells"
        )
        jobs = self._train(f"look {place + 1}", lists, self._more(wanted, seeds))
        for cell, job in zip(table.cells, jobs, strict=True):
            cell.take(job.runs)
        if recorded is None:
            self.known = look(
                table.scores(), table.pairs, table.lost(), self.known, place,
                self.plan.levels[place], self.asked.margin,
            )  # fmt: skip
            names = [job.runs[0][1].run_id for job in jobs]
            self.plan.history.append(
                [
                    {"run": names[cell], "reference_run": names[other], **asdict(one)}
                    for (cell, other), one in self.known.items()
                ]
            )
            self._record()
        else:
            fields = Verdict.__dataclass_fields__
            self.known = {
                pair: Verdict(**{name: one[name] for name in fields})
                for pair, one in zip(table.pairs, recorded, strict=True)
            }
        for line in view.standings(table, self.known):
            view.say(line)
        return place + 1 < len(self.asked.looks) and any(
            not self._decided(pair) for pair in table.pairs
        )

    def _report(self, live: bool) -> Answer:
        """Write the report anew."""
        out = self.folder / "report"
        found = answer(read_runs(self.folder), out)
        write(found, out, live=live)
        with contextlib.suppress(OSError):
            cell_boards.write(self.folder)
        return found

    def _end(self) -> None:
        """The answer, what is open, and where the page is."""
        if not self.known:
            raise UserError(
                "the budget ended before the first look; the same command with more of it goes on"
            )
        if self.table.cells[0].config.report.time and not self.out_of_time:
            timing.after_sweep(self.folder, self.clock.spent())
        found = self._report(live=False)
        view.say("")
        print(card_text(found), flush=True)
        view.say("")
        open_cells = {pair[0] for pair in self.table.pairs if not self._decided(pair)}
        if self.out_of_time:
            left = self.asked.looks[len(self.plan.history)]
            view.say(
                f"the budget is spent; {left} seeds would be the next look. "
                f"{self._hour_more(open_cells)}"
            )
        runs = sum(cell.seeds for cell in self.table.cells)
        cells = len(self.table.cells)
        most = self.asked.looks[-1] * cells
        took = duration(self.clock.spent())
        view.say(f"{runs} runs in {took}; {most} had it been {most // cells} seeds for all")
        view.say(f"the page: {self.folder / 'report' / 'index.html'}")
        self._record()

    def _hour_more(self, cells: set[int]) -> str:
        each = self.clock.corrected(
            sum(self.costs[number].run(self.length, 4) for number in cells | self._bases(cells))
        )
        more = int(3600 / each)
        return (
            f"An hour more would give about {more} more seeds to each cell that is open."
            if more else "An hour more would not give another seed to each cell that is open."
        )  # fmt: skip

    def _bases(self, cells: set[int]) -> set[int]:
        return {other for cell, other in self.table.pairs if cell in cells}

    def _decided(self, pair: Pair) -> bool:
        return pair in self.known and self.known[pair].verdict != "undecided"

    def _more(self, cells: set[int], seeds: int) -> float:
        """Seconds of giving cells so many seeds, as far as costs are known."""
        if not self.costs:
            return 0.0
        return sum(
            budget.looking(self.costs[number], self.length, seeds - self.table.cells[number].seeds)
            for number in cells
        )

    def _affords(self, expected: float) -> bool:
        if not self.asked.budget:
            return True
        return self.clock.spent() + self.clock.corrected(expected) <= 1.05 * self.asked.budget
