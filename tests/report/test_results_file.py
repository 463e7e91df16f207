"""Results of any program, as a CSV with a row a run."""

from pathlib import Path

import pytest
from fake_runs import write_sweep
from reports import BN, HIGHER, by_variant, report

from normexp.report.__main__ import main
from normexp.report.answer import Answer, answer
from normexp.report.results_file import read_file
from normexp.system.errors import UserError

STUDY = Path(__file__).parents[2] / "docs" / "study" / "runs.csv"


def read(path: Path, *options: str) -> Answer:
    return answer(read_file(path, *options), path.with_name("report"))


def rows(*lines: str) -> str:
    return "\n".join(["norm,batch,seed,accuracy", *lines]) + "\n"


WHOLE = rows(
    *(f"bn,2,{seed},{100 * value}" for seed, value in enumerate(BN)),
    *(f"gn,2,{seed},{100 * value}" for seed, value in enumerate(HIGHER)),
    *(f"bn,32,{seed},{100 * value}" for seed, value in enumerate(HIGHER)),
    *(f"gn,32,{seed},{100 * value}" for seed, value in enumerate(BN)),
)


def test_the_study_is_decided_in_ten_of_twenty_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    main([str(STUDY), "--out", str(tmp_path)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "“in” is worse than bn at every batch size" in printed
    assert "Decided: 10 of 20 comparisons with bn (n = 8 seeds each" in printed
    assert "correlate by 0.08 on average" in printed
    assert "vary 0.85 times" in printed
    found = read(STUDY)
    decided = found.rows[found.rows["verdict"].isin(["better", "worse"])]
    assert len(decided) == 10
    assert (decided["variant"] == "in").sum() == 5
    assert decided["p"].min() == pytest.approx(2 / 2**8)
    page = (tmp_path / "index.html").read_text()
    assert page.index("Decided: 10 of 20 comparisons") < page.index("<table")


def test_fractions_and_percent_other_separators_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(WHOLE)
    percent = read(path)
    assert percent.headline.startswith(
        "gn is better than bn at batch 2 (by 4.9 points) and worse at batch 32 (by 4.9 points)."
    )
    fractions = WHOLE.splitlines()[:1]
    for line in WHOLE.splitlines()[1:]:
        *cells, value = line.split(",")
        cells[-1] += ".0"
        fractions.append(";".join([*cells, str(float(value) / 100)]))
    path.write_text("\n".join(f"{line}%" if line[0] != "n" else line for line in WHOLE.split()))
    assert read(path).headline == percent.headline
    path.write_text("\ufeff" + fractions[0].replace(",", ";") + "\r\n" + "\r\n".join(fractions[1:]))
    assert read(path).headline == percent.headline


def test_what_a_run_wrote_is_read_back_the_same(tmp_path: Path, no_pictures: None) -> None:
    write_sweep(tmp_path, {"norm=bn batch_size=2": BN, "norm=gn batch_size=2": [*HIGHER[:7], None],
                           "norm=bn batch_size=8": BN, "norm=gn batch_size=8": BN})  # fmt: skip
    main([str(tmp_path / "default")])
    there, here = report(tmp_path), read(tmp_path / "default" / "report" / "runs.csv")
    assert here.headline == there.headline
    assert here.lines == there.lines
    assert here.notes == there.notes
    assert here.trained.startswith("made-up images · simple_cnn · ")


def test_the_measure_and_the_conditions_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    lines = [f"bn,{seed},{value},{1 - value},0.{seed}1" for seed, value in enumerate(BN)] + [
        f"gn,{seed},{value},{1 - value},0.{seed}2" for seed, value in enumerate(HIGHER)
    ]
    path.write_text("\n".join(["norm,seed,top1,top5,loss", *lines]))
    with pytest.raises(UserError, match=r"no column an accuracy; there are norm, .* --measure"):
        read(path)
    with pytest.raises(UserError, match=r"column top5 has another value in most rows.*--condit"):
        read(path, "top1")
    found = answer(read_file(path, "top1", ["norm"]), tmp_path)
    assert by_variant(found)["verdict"]["gn"] == "better"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("bn,2,,60",), "line 2: seed is missing"),
        (("bn,2,0,60", "bn,2,one,60"), "line 3: seed is 'one', no whole number"),
        (("bn,2,0.5,60", "bn,2,inf,60"), "line 2: seed is '0.5', .*; line 3: seed is 'inf', no"),
        (("bn,2,0,high", "gn,2,0,-3"), "line 2: accuracy is 'high', no accuracy; line 3: accuracy"),
        (("bn,2,0,60", "gn,2,0,60", "bn,2,0,61"), "line 4: the settings and the seed of line 2"),
        (("bn,2,0,60", "bn,2,0"), "line 3: 3 fields, and the header has 4"),
        (tuple(f"bn,2,x{i},60" for i in range(9)), "line 7: .*; and 3 more"),
        ((), "no rows"),
    ],
)
def test_faulty_lines_are_named(lines: tuple[str, ...], said: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(rows(*lines))
    with pytest.raises(UserError, match=said):
        read(path)


def test_a_row_without_an_accuracy_is_a_run_that_diverged(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(rows("bn,2,0,60", "bn,2,1,61", "gn,2,0,nan", "gn,2,1,"))
    found = read(path)
    assert found.notes == ["Diverged: gn in 2 of 2 runs."]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("accuracy", ["seed"]), "--conditions seed: has a meaning of its own"),
        (("accuracy", ["accuracy"]), "--conditions accuracy: is the measure"),
        (("seed",), "--measure seed: has a meaning of its own"),
        (("norm",), "--measure norm: has a meaning of its own"),
    ],
)
def test_what_is_no_condition_and_no_accuracy_is_refused(
    options: tuple[str, list[str]], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.csv"
    path.write_text(WHOLE)
    with pytest.raises(UserError, match=said):
        read_file(path, *options)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("bn,0,60,bogus,1", "line 2: status is 'bogus', none of completed, diverged"),
        ("bn,0,,completed,1", "line 2: completed, and accuracy is missing"),
        ("bn,0,60,,abc", "line 2: ms_per_step is 'abc', no number"),
        ("bn,0,60,,inf", "line 2: ms_per_step is 'inf', no number"),
    ],
)
def test_faulty_fields_that_runs_have_are_named(lines: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"norm,seed,accuracy,status,ms_per_step\n{lines}\n")
    with pytest.raises(UserError, match=said):
        read_file(path)


def test_status_tells_how_a_run_ended(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("norm,seed,accuracy,status\nbn,0,60,Completed\nbn,1,61,failed\nbn,2,62,\n")
    assert list(read_file(path).table["status"]) == ["completed", "failed", "completed"]


def test_only_line_ends_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text('norm,seed,accuracy,what\nbn,0,60,a\u2028b\x0cc\nbn,1,61,"d\ne"\n')
    found = read_file(path, "accuracy", ["what"]).table["what"]
    assert list(found) == ["a\\u2028b\\x0cc", "d\\ne"]


def test_only_files_of_some_size_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a FIFO"):
        read_file(tmp_path / "pipe")
    (tmp_path / "latin.csv").write_bytes(b"norm,seed,acc\nb\xff,1,2\n")
    with pytest.raises(UserError, match="UTF-8"):
        read_file(tmp_path / "latin.csv")


def test_a_file_of_results_holds_nothing_to_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.csv"
    path.write_text(WHOLE)
    with pytest.raises(SystemExit):
        main([str(path), "--time"])
    assert "holds no networks" in capsys.readouterr().err
