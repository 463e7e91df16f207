"""What the report says of runs, and what it must not say."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_run, write_sweep
from reports import BN, HIGHER, by_variant, report, said

from normexp.config.explain import explain
from normexp.report import tables
from normexp.report.__main__ import main
from normexp.report.answer import answer, latex_tables, markdown, terminal
from normexp.report.published import otherwise
from normexp.report.read import read_runs
from normexp.runs import plan as plans
from normexp.runs.composing import compose
from normexp.runs.identity import BesideConfig, run_id
from normexp.runs.plan import Cell, Command


def test_the_first_sentence_is_what_is_decided_with_n(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER, "norm=ln": BN[::-1]})
    found = report(tmp_path)
    assert found.headline == (
        "gn is better than bn (by 4.9 points). Decided: 1 of 2 comparisons with bn (n = 8 seeds "
        "each; at most 5 % risk of a false difference)."
    )
    # The highest mean is no answer, and what is open is said with the half-width of its interval.
    (line,) = found.lines
    assert re.fullmatch(
        r"use gn; gn better by 4\.94 ± [\d.]+ points; "
        r"no difference found: ln \(\+0\.00 ± [\d.]+\)\.",
        line,
    )
    assert by_variant(found)["verdict"].to_dict() == {
        "bn": "reference", "gn": "better", "ln": "undecided",
    }  # fmt: skip


def test_where_nothing_is_decided_nobody_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, {
        "norm=bn batch_size=2": BN, "norm=gn batch_size=2": BN[::-1],
        "norm=bn batch_size=8": BN, "norm=gn batch_size=8": [*BN[3:], *BN[:3]],
    })  # fmt: skip
    found = report(tmp_path)
    assert found.headline == (
        "No difference from bn was found: of 2 comparisons none is decided (n = 8 seeds each)."
    )
    assert re.fullmatch(
        r"batch size 2: not decided: bn or gn; no difference found: gn \(\+0\.00 ± [\d.]+\)\.",
        found.lines[0],
    )


def test_what_depends_on_the_condition_is_said_by_condition(tmp_path: Path) -> None:
    write_sweep(tmp_path, {
        "norm=bn batch_size=2": BN, "norm=gn batch_size=2": HIGHER,
        "norm=bn batch_size=32": HIGHER, "norm=gn batch_size=32": BN,
        "norm=in batch_size=2": [x - 0.1 for x in BN],
        "norm=in batch_size=32": [x - 0.1 for x in HIGHER],
    })  # fmt: skip
    found = report(tmp_path)
    # A norm whose name is another word as well stands in quotes.
    assert "“in” is worse than bn at every batch size (by 10.0 points)" in found.headline
    assert (
        "gn is better than bn at batch size 2 (by 4.9 points) and worse at batch size 32 (by 4.9 "
        "points)" in found.headline
    )
    assert found.lines[0].startswith("batch size 2: use gn; gn better by 4.94 ±")


def test_the_same_is_an_answer_and_the_margin_is_said(tmp_path: Path) -> None:
    near = [x + 0.0001 * (-1) ** i for i, x in enumerate(BN)]
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": near})
    found = report(tmp_path)
    assert found.headline.startswith("gn is the same as bn (within 0.5 points).")
    assert found.lines == ["use bn or gn; the same within 0.5 points: gn (+0.00 ± 0.01)."]
    assert by_variant(report(tmp_path, margin=0.00001))["verdict"]["gn"] == "undecided"


def test_a_decided_difference_within_the_margin_is_marked(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": [x + 0.001 for x in BN]})
    found = report(tmp_path)
    assert found.summary.frame["verdict"].tolist()[1] == "better (within 0.5 points)"


def test_below_six_seeds_there_is_no_verdict_and_nothing_bold(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:5], "norm=gn": HIGHER[:5]})
    found = report(tmp_path)
    assert found.headline == "Too few seeds for a verdict: it takes 6 (n = 5 seeds each)."
    assert re.fullmatch(
        r"not decided: bn or gn; too few seeds: gn \(n = 5; \+4\.90 ± [\d.]+\)\.", found.lines[0]
    )
    assert "better" not in said(found)
    assert "**" not in tables.markdown(found.summary)


def test_only_what_is_decided_is_bold(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": BN[::-1], "norm=ln": HIGHER})
    written = tables.markdown(report(tmp_path).summary)
    bold = [line for line in written.splitlines() if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| ln")


def test_survivors_are_not_better(tmp_path: Path) -> None:
    lost = [None] * 12
    write_sweep(tmp_path, {"norm=bn": [0.6 + i / 500 for i in range(18)],
                           "norm=gn": [*lost, *(0.8 + i / 400 for i in range(6))],
                           "norm=ln": [*lost, *(0.3 + i / 400 for i in range(6))]})  # fmt: skip
    found = report(tmp_path)
    verdicts = by_variant(found)["verdict"]
    # Divergence is no excuse for what is worse without it too.
    assert verdicts.to_dict() == {"bn": "reference", "gn": "undecided", "ln": "worse"}
    assert re.search(r"gn \(\+[\d.]+, of the runs that survived\)", said(found))
    assert "Diverged: ln in 12 of 18 runs, gn in 12 of 18 runs." in found.notes
    counts = dict(zip(found.summary.frame["norm"], found.summary.frame["n"], strict=True))
    assert counts["gn"] == "6 (12 of 18 diverged)"
    assert by_variant(report(tmp_path, norm="gn"))["verdict"]["bn"] == "undecided"


def test_that_all_diverged_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": [None] * 2, "norm=gn": [None]})
    found = report(tmp_path)
    assert found.headline == "No run is completed: nothing can be compared."
    assert found.notes == ["Diverged: bn in 2 of 2 runs, gn in 1 of 1 runs."]


def test_what_pairing_brought_is_measured(tmp_path: Path) -> None:
    ours = np.array(HIGHER[:6])
    write_sweep(tmp_path, {"norm=bn": BN[:6], "norm=gn": HIGHER[:6]})
    correlation = np.corrcoef(ours, BN[:6])[0, 1]
    ratio = np.var(ours - BN[:6], ddof=1) / (np.var(ours, ddof=1) + np.var(BN[:6], ddof=1))
    text = report(tmp_path).method
    assert f"correlate by {correlation:.2f} on average" in text
    assert f"vary {ratio:.2f} times as much as those of unpaired seeds" in text


def test_a_look_after_seeds_were_added_is_a_second_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    def printed() -> str:
        main([str(tmp_path / "default")])
        return " ".join(capsys.readouterr().out.split())

    write_sweep(tmp_path, {"norm=bn": BN[:5], "norm=gn": HIGHER[:5]})
    assert "Look" not in printed()
    for norm, values in (("bn", BN), ("gn", HIGHER)):
        write_sweep(tmp_path, {f"norm={norm}": values[5:7]}, seeds=(5, 6))
    # Below six seeds there was nothing to be wrong about; the same runs again are no look.
    assert "Look" not in printed()
    assert "Look" not in printed()
    for norm, values in (("bn", BN), ("gn", HIGHER)):
        write_sweep(tmp_path, {f"norm={norm}": values[7:]}, seeds=(7,))
    for _ in range(2):
        text = printed()
        assert "Look 2 at these comparisons, after seeds were added (7, then 8)." in text
        assert "finds a difference between equals in 10 % of cases" in text
    assert "Look 2" in (tmp_path / "default" / "report" / "index.html").read_text()
    # Another norm is another comparison.
    write_sweep(tmp_path, {"norm=ln": BN})
    assert "Look 3" not in printed()


def as_if_real(config: Path) -> None:
    config.write_text(config.read_text().replace("name: synthetic", "name: cifar10"))
    result = config.with_name("result.json")
    result.write_text(result.read_text().replace('"data": "synthetic"', '"data": "cifar10"'))


def test_made_up_images_are_said_to_be_so_on_top(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER})
    found = report(tmp_path)
    warning = "made-up images: shows how it works, not which norm is better"
    assert terminal(found).startswith(f"{warning}\n")
    assert markdown(found).splitlines()[2] == f"**{warning}**"
    assert latex_tables(found).startswith(f"% {warning}\n")
    for place, path in enumerate(sorted((tmp_path / "default").glob("*/config.yaml"))):
        if place in (1, 15):
            rest = f"{16 - place} run{'s' if place < 15 else ''}"
            assert report(tmp_path).caution == f"{rest}: {warning}"
        as_if_real(path)
    found = report(tmp_path)
    assert not found.caution
    assert found.trained == (
        "CIFAR-10 · simple_cnn · 10 epochs · adam learning rate 0.001 · 16 runs in 2 cells"
    )


def test_learning_rates_are_chosen_on_validation_and_both_views_are_shown(tmp_path: Path) -> None:
    for norm, lr, val, test in (
        ("bn", 0.01, 0.70, 0.60), ("bn", 0.1, 0.60, 0.80), ("gn", 0.01, 0.50, 0.50),
        ("gn", 0.1, 0.65, 0.64),
    ):  # fmt: skip
        for seed in range(6):
            write_run(
                tmp_path, f"norm={norm}", f"optimizer.lr={lr}", seed=seed,
                val_acc=val + seed / 1000, test_acc=test + seed / 1000,
            )  # fmt: skip
    found = report(tmp_path)
    (rates,) = found.rates
    # bn tests better at 0.1, but validation knows nothing of that.
    chosen = rates.best.set_index("variant")
    assert chosen["optimizer.lr"].to_dict() == {"bn": 0.01, "gn": 0.1}
    assert rates.common.set_index("variant")["optimizer.lr"].to_dict() == {"bn": 0.1, "gn": 0.1}
    assert chosen["difference"]["gn"] == pytest.approx(0.04)
    assert rates.common.set_index("variant")["difference"]["gn"] == pytest.approx(-0.16)
    # The seeds that chose the rates are those that report: that is said.
    assert "The seeds that chose the rates report here too" in said(found)
    assert "Each at its best: gn better; at the common rate 0.1: gn worse." in said(found)


def test_one_comparison_has_one_verdict(tmp_path: Path) -> None:
    for lr, up in ((0.003, 0.2), (0.03, 0.0)):
        cell = f"optimizer.lr={lr}"
        write_sweep(tmp_path, {f"norm=bn {cell}": [a + up for a in HIGHER[:6]],
                               f"norm=none {cell}": [a + up for a in BN[:6]]})  # fmt: skip
    (rates,) = report(tmp_path).rates
    p = [view.set_index("variant")["p"]["none"] for view in (rates.common, rates.best)]
    assert p[0] == p[1]


@pytest.mark.usefixtures("no_pictures")
def test_statistics_of_evaluation_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = "evaluate.bn_stats=[running,precise,batch]"
    for batch, precise, batch_gain in ((2, 0.05, -0.01), (8, 0.0, 0.001)):
        for seed, noise in enumerate((0.0, 0.01, -0.01, 0.02, 0.0, 0.01)):
            accuracy = 0.5 + noise
            kinds = {"running": accuracy, "precise": accuracy + precise + noise / 10}
            kinds["batch"] = accuracy + batch_gain + (noise if batch == 8 else 0)
            write_run(
                tmp_path, "norm=bn", f"batch_size={batch}", several, seed=seed, test_acc=accuracy,
                test_acc_by_bn_stats=kinds,
            )  # fmt: skip
            write_run(
                tmp_path, "norm=gn", f"batch_size={batch}", several, seed=seed, test_acc=accuracy,
                test_acc_by_bn_stats={"running": accuracy},
            )  # fmt: skip
    main([str(tmp_path / "default"), "--wide"])
    printed = capsys.readouterr().out.splitlines()
    (place,) = [at for at, line in enumerate(printed) if "precise - running" in line]
    two, eight = printed[place + 1], printed[place + 2]
    # Noises of mean 0.005: 55.55 = 100 * (0.505 + 0.05 + 0.0005).
    assert re.match(r" +2  bn +50\.50 ± 1\.05  55\.55 ± 1\.15  49\.50 ± 1\.05 +\+5\.05 \[", two)
    assert re.search(r"-1\.00 \[-1\.00, -1\.00\] +6$", two)
    assert re.match(r" +8  bn ", eight)
    assert not printed[place + 3]
    text = " ".join(" ".join(printed).split())
    assert "Precise-BN's statistics instead of running averages accuracy changes by +5.05" in text
    out = tmp_path / "default" / "report"
    assert "precise - running" in (out / "index.html").read_text()
    runs = (out / "runs.csv").read_text().splitlines()
    head = runs[0].split(",")
    (row,) = [
        dict(zip(head, line.split(","), strict=True))
        for line in runs[1:]
        if "bn-bs2-seed1-" in line
    ]
    kept = [float(row[f"test_acc_{kind}"]) for kind in ("running", "precise", "batch")]
    assert kept == pytest.approx([0.51, 0.561, 0.5])


def test_published_figures_stand_beside_measured_ones(tmp_path: Path) -> None:
    preset = compose(["experiment=mlp_bn_vs_none", "data=synthetic"])
    figures = {item.where["norm"]: item.value for item in preset.published}
    assert figures == {"bn": 1.578, "none": 1.65}
    for loss, seed in ((1.5, 0), (1.7, 1)):
        write_run(tmp_path, "experiment=mlp_bn_vs_none", seed=seed, train_loss=loss)
    (section,) = [
        one for one in report(tmp_path, "mlp_bn_vs_none").sections
        if one.heading == "Published and measured"
    ]  # fmt: skip
    frame = section.tables[0].frame
    bn, none = frame.to_dict("records")
    assert (bn["published"], bn["measured"], bn["n"]) == ("1.578", "1.600 ± 0.141", "2")
    assert bn["difference"] == "+0.022"
    assert (none["runs"], none["published"], none["measured"], none["n"]) == (
        "norm=none", "1.650", "–", "0",
    )  # fmt: skip


@pytest.mark.usefixtures("no_pictures")
def test_published_figures_beside_shortened_runs_come_with_a_caution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "experiment=mlp_bn_vs_none", "norm=bn", "max_steps=20", "name=x")
    # Another network that carries no figures.
    write_run(tmp_path, "norm=bn", "name=x", seed=1)
    caution = (
        "Trained otherwise than what was published: max_steps=20, data.name=synthetic, where the "
        "preset mlp_bn_vs_none has epochs=5, data.name=cifar10."
    )
    main([str(tmp_path / "x")])
    printed = capsys.readouterr().out
    assert caution in " ".join(printed.split())
    assert "1.578" in printed
    for file in ("index.html", "summary.md"):
        assert caution in (tmp_path / "x" / "report" / file).read_text()


def test_nothing_is_cautioned_where_the_preset_was_kept(tmp_path: Path) -> None:
    kept = "mlp_bn_vs_none"
    path = write_run(tmp_path, f"experiment={kept}", "norm=bn").path / "config.yaml"
    path.write_text(path.read_text().replace("name: synthetic", "name: cifar10"))
    assert otherwise(report(tmp_path, kept).judge.sweep) == ""


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("{what: tset_acc, value: 1, source: a}", "expected one of [test_acc, "),
        ("{what: test_acc, value: 1, source: a, where: {nrm: bn}}", "did you mean norm?"),
        ("{what: test_acc, value: 1}", "published[0].source has no value"),
        ("{what: test_acc, vlaue: 1, source: a}", "vlaue"),
    ],
)
def test_a_misspelt_published_figure_is_refused(item: str, words: str) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - as a person sees it
        compose(["data=synthetic", f"published=[{item}]"])
    line = explain(refused.value)
    assert words in line
    assert "\n" not in line


def test_a_plan_tells_what_was_never_begun_and_how_to_go_on(tmp_path: Path) -> None:
    names: dict[str, dict[int, str | None]] = {"bn": {}, "gn": {}, "ln": {}}
    for norm, seed in itertools.product(names, range(3)):
        config = compose(["data=synthetic", f"norm={norm}", f"seed={seed}"])
        names[norm][seed] = run_id(config, BesideConfig("images"))
    for seed in range(3):
        write_run(tmp_path, "norm=bn", seed=seed)
    write_run(tmp_path, "norm=gn", seed=0)
    write_run(tmp_path, "norm=gn", seed=1, status="failed", reason="OSError: no room")
    plan = [Cell(None, {"norm": norm}, names[norm]) for norm in names]
    arguments = ["-m", "norm=bn,gn,ln", "seeds=3", "data=synthetic"]
    plans.extend(tmp_path / "default", Command(arguments), plan)
    for root in (tmp_path / "default", tmp_path):
        found = report(root, ".")
        assert found.origin.never_begun == 4
        assert found.notes == [
            "1 run has no answer yet and 4 runs were never begun (norm=ln); the command at the end "
            "goes on."
        ]
        line = "python -m normexp.train -m norm=bn,gn,ln seeds=3 data=synthetic"
        assert found.origin.commands == [line]
        assert terminal(found).endswith(line)
    assert found.origin.unanswered["reason"].tolist() == ["OSError: no room"]


def test_without_a_plan_nothing_is_said_of_what_was_never_begun(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn batch_size=2": BN[:3], "norm=bn batch_size=4": BN[:3],
                           "norm=gn batch_size=2": BN[:3]})  # fmt: skip
    write_run(tmp_path, "norm=gn", "batch_size=4", seed=0, status=None)
    found = report(tmp_path)
    assert found.notes == ["1 run has no answer yet."]
    assert found.origin.commands == []
    grid = found.grid
    assert grid is not None
    assert grid.verdicts.at["gn", "4"] == "no result yet"


def test_a_terminal_of_eighty_columns_holds_every_table(tmp_path: Path) -> None:
    for standardized, groups in itertools.product(("true", "false"), (1, 2, 4, 8)):
        for batch in (2, 8):
            write_run(
                tmp_path, "norm=gn", f"norm.num_groups={groups}", f"batch_size={batch}",
                f"norm.weight_standardization={standardized}",
            )  # fmt: skip
    found = report(tmp_path)
    # A command is whole, with the folder's name.
    lines = [line for line in terminal(found).splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    wide = terminal(found, width=None)
    assert "p same" in wide
    assert max(map(len, wide.splitlines())) > 80


def test_verdicts_are_coloured_where_a_terminal_has_colours(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER, "norm=ln": [x - 0.1 for x in BN]})
    found = report(tmp_path)
    assert "\x1b" not in terminal(found)
    coloured = terminal(found, colour=True)
    assert re.search(r"\x1b\[32m *\+4\.94 better\x1b\[0m", coloured)
    assert re.search(r"\x1b\[31m *-10\.00 worse\x1b\[0m", coloured)


@pytest.mark.usefixtures("no_pictures")
def test_what_others_named_reaches_no_terminal_and_no_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "norm=bn", "model.name='=cmd|x'")
    path = write_run(tmp_path, "norm=gn").path
    for name in ("config.yaml", "result.json"):
        whole = (path / name).read_text()
        (path / name).write_text(whole.replace("simple_cnn", "red"))
    result = path / "result.json"
    record = json.loads(result.read_text())
    record.update(status="failed", reason="\x1b[2Jcleared\n=1+1", test_acc=None)
    result.write_text(json.dumps(record))
    main([str(tmp_path / "default")])
    assert "\x1b" not in capsys.readouterr().out
    written = (tmp_path / "default" / "report" / "runs.csv").read_text()
    assert "\x1b" not in written
    assert "'=cmd|x" in written
    assert not re.search(r"(^|,)=", written, re.MULTILINE)


@pytest.mark.usefixtures("no_pictures")
def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "one").path
    arguments_of_each = (
        [str(tmp_path / "no")], [str(tmp_path / "empty")], [str(tmp_path), "--reference", "x"],
        [str(run), "--out", str(run / "result.json")], [str(run), "--margin", "0"],
        [str(run), "--measure", "val_acc"],
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    for arguments in arguments_of_each:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_markdown_begins_with_the_answer(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER})
    lines = markdown(report(tmp_path)).splitlines()
    assert lines[0] == "# default"
    # Above it that the images were made up, and what was trained.
    bold = [line for line in lines if line.startswith("**")]
    assert bold[1].startswith("**gn is better than bn")


def test_a_plan_says_what_is_compared_and_what_counts_as_none(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, {"norm=bn": BN, "norm=gn": [x + 0.003 * (-1) ** i for i, x in enumerate(BN)]}
    )
    plan = plans.extend(tmp_path / "default", Command(["-m"]), [])
    assert plan.reference is None
    path = tmp_path / "default" / plans.FILE
    path.write_text(path.read_text().replace('"reference": null', '"reference": "norm=gn"'))
    path.write_text(path.read_text().replace('"margin": null', '"margin": 0.01'))
    runs = read_runs(tmp_path / "default")
    found = answer(runs, tmp_path / "report")
    assert found.judge.sweep.reference == "gn"
    assert by_variant(found)["verdict"]["bn"] == "same"
    # What a person says now goes before it.
    found = answer(runs, tmp_path / "report", {"norm": "bn"}, 0.001)
    assert by_variant(found)["verdict"]["gn"] == "undecided"
    path.write_text("{")
    assert "plan.json is damaged" in answer(runs, tmp_path / "report").judge.runs.unreadable[0]
