"""The answer card: what to use, by how much, at what cost, and what is open."""

import json
from pathlib import Path

import pytest
from fake_runs import write_run, write_sweep
from reports import BN, HIGHER, report

from normexp.report.answer import answer, as_dict, card_text, write
from normexp.report.results_file import read_file

LOWER = [x - 0.1 for x in BN]


def test_what_is_better_is_recommended_and_what_is_open_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, {
        "norm=bn batch_size=2": BN, "norm=gn batch_size=2": HIGHER, "norm=ln batch_size=2": LOWER,
        "norm=bn batch_size=8": BN, "norm=gn batch_size=8": LOWER, "norm=ln batch_size=8": LOWER,
        "norm=bn batch_size=32": BN, "norm=gn batch_size=32": BN[::-1],
        "norm=ln batch_size=32": LOWER,
    })  # fmt: skip
    found = report(tmp_path)
    two = found.card[0]
    assert [one["recommendation"] for one in found.card] == [["gn"], ["bn"], []]
    assert [one["undecided"] for one in found.card] == [[], [], ["gn"]]
    assert [one["advice"] for one in found.card] == [
        "batch size 2: use gn", "batch size 8: use bn", "batch size 32: not decided: bn or gn",
    ]  # fmt: skip
    assert two["settings"] == {"batch_size": "2"}
    (gn,) = [one for one in two["variants"] if one["variant"] == "gn"]
    assert (gn["verdict"], gn["n"], gn["rate"], gn["ms_ratio"]) == ("better", 8, 0.001, None)
    assert gn["gain"] == pytest.approx(100 * (sum(HIGHER) - sum(BN)) / 8)
    assert gn["low"] < gn["gain"] < gn["high"]
    # All of it is JSON, and fits a terminal.
    assert json.loads(json.dumps(as_dict(found), allow_nan=False))["conditions"] == found.card
    text = card_text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "- batch size 8: use bn; ln worse by 10.00" in text


def test_an_interval_beside_zero_is_no_absence_of_a_difference(tmp_path: Path) -> None:
    # The t interval is 1.65 ± 1.01 points; of 32 patterns of signs two are as large: p = 0.06.
    points = (2.0, 2.1, 1.9, 2.0, 2.2, -0.3)
    near = [x + y / 100 for x, y in zip(BN, points, strict=False)]
    write_sweep(tmp_path, {"norm=bn": BN[:6], "norm=gn": near})
    found = report(tmp_path)
    assert found.lines == ["not decided: bn or gn; only a hint: gn (+1.65 ± 1.01)."]
    assert found.headline == (
        "No difference from bn is more than a hint: of 1 comparison none is decided (n = 6 seeds "
        "each)."
    )


def test_a_hint_is_one_among_all_comparisons_of_the_table(tmp_path: Path) -> None:
    runs = read_file(Path(__file__).parents[2] / "docs" / "study" / "runs.csv")
    first = answer(runs, tmp_path).lines[0]
    assert first.startswith("batch size 2: use ln; ln better by 2.00 ± 1.00 points; ")
    assert "no difference found: gn (+0.84 ± 1.27); " in first
    assert "only a hint among 20 comparisons: “none” (-1.75 ± 1.13)." in first


def test_cost_beside_the_reference_is_said_where_it_was_timed(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER})
    # Times of the runs themselves are none that were measured alike.
    found = report(tmp_path)
    assert found.card[0]["advice"] == "use gn"
    bn, gn = found.judge.sweep.runs.groupby("cell")["folder"].first()
    folder = tmp_path / "default" / "report"
    folder.mkdir()
    (folder / "time.csv").write_text(
        "cell,run,ms,ms_low,ms_high,step_mib,rounds,device,threads\n"
        f"norm.name=bn,{bn},2.0,2,2,4.0,7,cpu,1\nnorm.name=gn,{gn},3.0,3,3,5.0,7,cpu,1\n"
    )
    found = report(tmp_path)
    assert found.card[0]["advice"] == (
        "use gn (1.50 times the time and 1.25 times the memory of a step with bn)"
    )
    assert found.card[0]["variants"][1]["ms"] == 3.0


def test_each_norm_at_a_rate_of_its_own_is_compared_and_the_rate_is_said(tmp_path: Path) -> None:
    for norm, lr, scores in (("bn", 0.1, BN), ("gn", 0.01, HIGHER)):
        for seed, accuracy in enumerate(scores):
            write_run(tmp_path, f"norm={norm}", f"optimizer.lr={lr}", seed=seed, test_acc=accuracy)
    found = report(tmp_path)
    assert found.rows.set_index("variant")["verdict"].to_dict() == {
        "bn": "reference", "gn": "better",
    }  # fmt: skip
    assert found.card[0]["advice"] == "use gn (learning rate 0.01)"
    assert found.summary.frame["lr"].tolist() == ["0.1", "0.01"]
    assert any("Learning rates differ between cells" in note for note in found.notes)


@pytest.mark.usefixtures("no_pictures")
def test_the_card_is_written_and_a_live_page_renews_itself(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER})
    found = report(tmp_path)
    write(found, tmp_path / "live", live=True)
    write(found, tmp_path / "done")
    live, done = ((tmp_path / name / "index.html").read_text() for name in ("live", "done"))
    assert 'http-equiv="refresh"' in live
    assert "refresh" not in done
    assert "<b>use gn</b>; gn better by 4.94" in done
    written = json.loads((tmp_path / "done" / "answer.json").read_text())
    assert written["headline"] == found.headline
    assert written["conditions"][0]["recommendation"] == ["gn"]
