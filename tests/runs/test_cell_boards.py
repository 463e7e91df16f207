"""One series a cell for TensorBoard: the mean over seeds and the band from lowest to highest."""

import csv
from pathlib import Path

import pytest
from small_runs import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from normexp.report.read import read_runs
from normexp.runs import cell_boards, one_run, plan, training
from normexp.runs.composing import compose
from normexp.runs.named import runs_among
from normexp.runs.planning import Job, write_plan


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"norm": "gn", "batch_size": "2"}, "gn bs2"),
        ({"norm": "my_norms:fancy", "optimizer.lr": "0.01"}, "my_norms_fancy lr=0.01"),
        ({"norm": "gn", "norm.num_groups": "[4,8]"}, "gn num_groups=_4,8_"),
        ({}, "all"),
        ({"name": "../../x"}, "name=.._.._x"),
    ],
)
def test_a_cell_has_a_name_that_a_person_reads(settings: dict[str, str], expected: str) -> None:
    assert cell_boards.label(settings) == expected
    assert "/" not in cell_boards.label(settings)


def test_the_series_are_those_of_the_seeds(tmp_path: Path) -> None:
    jobs = []
    for norm in ("bn", "none"):
        config = compose([
            *SMALL, f"output={tmp_path}", f"norm={norm}", "seeds=3", "fuse=3", "epochs=2",
            "log.tensorboard=true",
        ])  # fmt: skip
        job = Job([norm], config, runs=one_run.jobs_of(config))
        training.run(job.runs, [])
        jobs.append(job)
    folder = tmp_path / "default"
    cell_boards.write(folder)
    assert not (folder / "cells").exists()  # no plan, no cells
    write_plan(jobs, plan.Command([]), lambda overrides: {"norm": overrides[0]})
    for _ in range(2):  # made anew, and not added to
        cell_boards.write(folder)
    assert sorted(path.name for path in (folder / "cells").iterdir()) == ["bn", "none"]
    for job in jobs:
        events = EventAccumulator(str(folder / "cells" / job.overrides[0])).Reload()
        tables = []
        for _, directory in job.runs:
            with open(directory.path / "metrics.csv", newline="") as file:
                tables.append(list(csv.DictReader(file)))
        for tag, column in (("val/acc", "val_acc"), ("train/loss", "train_loss")):
            for name, of in ((tag, mean), (f"{tag}/lowest", min), (f"{tag}/highest", max)):
                found = [(one.step, one.value) for one in events.Scalars(name)]
                assert found == [
                    (int(rows[0]["samples_seen"]),
                     pytest.approx(of([float(row[column]) for row in rows]), rel=1e-6))
                    for rows in zip(*tables, strict=True)
                ]  # fmt: skip
        assert [one.value for one in events.Scalars("train/seeds")] == [3, 3]
    # The report and other commands do not take them for runs.
    assert len(read_runs(folder).table) == 6
    assert runs_among([folder / "cells", jobs[0].runs[0][1].path]) == [jobs[0].runs[0][1].path]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_none_where_runs_have_no_events(tmp_path: Path) -> None:
    config = compose(
        [*SMALL, f"output={tmp_path}", "norm=bn", "max_steps=2", "log.tensorboard=false"]
    )
    job = Job([], config, runs=one_run.jobs_of(config))
    training.run(job.runs, [])
    write_plan([job], plan.Command([]), lambda _: {})
    cell_boards.write(tmp_path / "default")
    assert not (tmp_path / "default" / "cells").exists()
