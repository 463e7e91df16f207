"""What the report writes: the page, its pictures, and the tables for other programs."""

import csv
import io
import itertools
import os
import re
import statistics as plain
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_runs import write_run, write_sweep
from reports import BN, HIGHER, report

from normexp.report.__main__ import main
from normexp.report.answer import Answer, write
from normexp.report.drawing import Look, Picture
from normexp.report.figures import pictures
from normexp.report.read import read_runs


class Page(HTMLParser):
    """What a browser would be asked to fetch or to run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.ids: list[str] = []
        self.tips: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.linked.append(value or "")
            elif name in ("src", "href", "xlink:href"):
                self.fetched.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "data-tip":
                self.tips.append(value or "")


ODD = "<script>x</script>&_"


@dataclass
class Written:
    """A sweep with all that can happen, and its report by two processes."""

    runs: Path
    first: Path
    """Written by this process."""
    second: Path
    """Written beside the runs by the command."""
    before: dict[Path, bytes]
    """What the runs' files held before."""
    command: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("outputs")
    # The odd name is a value of what was swept, and so stands in tables and on axes.
    odd = f"model.name='{ODD}'"
    sweep: dict[str, list[float | None]] = {
        "batch_size=2": [*BN[:6]], f"{odd} batch_size=2": [*HIGHER[:6]],
        "batch_size=8": [*HIGHER[:6]], f"{odd} batch_size=8": [*BN[:3]],
    }  # fmt: skip
    write_sweep(root, sweep)
    reason = "a <img src=x> reason & more"
    write_run(root, "batch_size=8", seed=9, status="failed", reason=reason)
    runs = root / "default"
    before = contents(runs)
    # As deep below the runs' folder as the other: the links are the same.
    first = runs / "report2"
    write(report(root), first, latex=True)
    first = first.rename(root / "first")
    code = (
        "import sys\nfrom normexp.__main__ import main\n"
        f"sys.argv = ['normexp', 'report', {str(runs)!r}, '--format', 'latex']\n"
        "main()\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    return Written(runs, first, runs / "report", before, done)


def contents(runs: Path) -> dict[Path, bytes]:
    files = [p for p in runs.rglob("*") if p.is_file() and "report" not in p.parts]
    return {p: p.read_bytes() for p in files}


def drawn(found: Answer) -> dict[str, Picture]:
    return {one.name: one for one in pictures(found.judge, found.rows, found.costs)}


def test_the_same_runs_give_the_same_bytes(written: Written) -> None:
    names = sorted(path.relative_to(written.first) for path in (written.first).rglob("*.*"))
    figures = {"error", "differences", "seeds", "curves", "cost"}
    assert {name.stem for name in names if name.parent.name == "figures"} == figures
    files = {"index.html", "runs.csv", "summary.csv", "summary.md", "summary.tex", "looks.json"}
    files.add("answer.json")
    assert files <= set(map(str, names))
    for name in names:
        assert (written.first / name).read_bytes() == (written.second / name).read_bytes()


def test_the_page_needs_nothing_else_and_escapes_what_people_wrote(written: Written) -> None:
    text = (written.first / "index.html").read_text()
    page = Page(text)
    assert not {"img", "link", "iframe"} & set(page.tags)
    # Its own few lines, which fetch nothing.
    assert page.tags.count("script") == 1
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", text)
    assert all(address.startswith(("#", "data:")) for address in page.fetched)
    assert len(page.ids) == len(set(page.ids))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "&lt;script&gt;x&lt;/script&gt;&amp;_" in text
    assert "a &lt;img src=x&gt; reason &amp; more" in text
    assert page.tags.count("figure") == page.tags.count("figcaption") == 5
    assert '<th scope="col"' in text


def test_every_run_links_to_its_directory(written: Written) -> None:
    page = Page((written.second / "index.html").read_text())
    led = {(written.second / link).resolve() for link in page.linked}
    assert led == {path.parent for path in written.runs.rglob("config.yaml")}


def test_a_value_tells_its_cell_and_n(written: Written) -> None:
    tips = Page((written.first / "index.html").read_text()).tips
    mean, std = 100 * plain.fmean(BN[:6]), 100 * plain.stdev(BN[:6])
    cell = f"simple_cnn, batch size 2: {mean:.2f} ± {std:.2f} %, n = 6"
    # In the grid, in the table, in that of costs, and at its mark in a picture.
    assert tips.count(cell) == 4
    assert "simple_cnn, batch size 2, seed 0: 60.00 %" in tips


def test_the_answer_stands_above_the_grid_the_picture_and_the_table(written: Written) -> None:
    text = (written.first / "index.html").read_text()
    places = [text.index(mark) for mark in (
        'class="caution"', "<h1>", 'class="headline"', 'class="grid"', "<figure", "<h2>All cells",
    )]  # fmt: skip
    assert places == sorted(places)


def test_pictures_that_are_saved_carry_their_titles(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, {f"norm={n} batch_size={b}": BN[:3] for n in ("bn", "gn") for b in (2, 8)}
    )
    for picture in drawn(report(tmp_path)).values():
        assert picture.svg
        words = {one.get_text() for one in picture.figure.findobj(lambda o: hasattr(o, "get_text"))}
        assert picture.title in words


def test_learning_curves_are_shown_once(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:2], "norm=gn": [0.4]})
    (axes,) = drawn(report(tmp_path))["curves"].figure.axes
    bn = next(line for line in axes.get_lines() if line.get_label() == "bn")
    # Validation accuracy as fake runs have it: half and three quarters of the last.
    mean = 100 * (BN[0] + BN[1]) / 2
    assert bn.get_xydata().tolist() == [
        [1, pytest.approx(mean / 2)],
        [2, pytest.approx(0.75 * mean)],
    ]


def test_a_norm_looks_the_same_in_every_report(tmp_path: Path) -> None:
    for name, norms in (("one", ("none", "bn", "gn")), ("two", ("gn", "ln")), ("three", ("gn",))):
        for norm in norms:
            write_run(tmp_path, f"norm={norm}", f"name={name}")
    looks = [Look(report(tmp_path, name).judge.sweep) for name in ("one", "two")]
    assert looks[0]("gn") == looks[1]("gn")
    everyone = [look(norm) for look, norms in zip(looks, ("none bn gn", "ln"), strict=True)
                for norm in norms.split()]  # fmt: skip
    assert len({(style["color"], style["marker"]) for style in everyone}) == 4
    for groups in (2, 8):
        write_run(tmp_path, "norm=gn", f"norm.num_groups={groups}", "name=three")
    # Settings of one norm are its own colour and others that tell them apart.
    three = Look(report(tmp_path, "three").judge.sweep)
    assert three("num_groups=2") == looks[0]("gn")
    assert len({style["marker"] for style in three.styles.values()}) == 3


def test_summary_md_holds_no_html_that_people_wrote(written: Written) -> None:
    text = (written.first / "summary.md").read_text()
    assert "&lt;script>x&lt;/script>&amp;_" in text
    assert "<" not in text


def test_long_labels_and_legends_leave_room_for_the_panels(tmp_path: Path) -> None:
    for standardized, groups in itertools.product(("true", "false"), (1, 2, 4, 8)):
        for batch in (2, 8):
            write_run(
                tmp_path, "norm=gn", f"norm.num_groups={groups}", f"batch_size={batch}",
                f"norm.weight_standardization={standardized}",
            )  # fmt: skip
    shown = drawn(report(tmp_path))
    for name in ("error", "differences"):
        assert shown[name].svg  # laid out with its title
        figure = shown[name].figure
        (axes,) = figure.axes
        panel, dots = axes.get_window_extent(), figure.dpi
        assert panel.height > 1.5 * dots
        assert panel.width > 1.5 * dots
        for words in (*axes.get_yticklabels(), axes.xaxis.label):
            assert figure.bbox.x0 <= words.get_window_extent().x0
            assert words.get_window_extent().x1 <= figure.bbox.x1


def test_runs_csv_has_a_row_a_run_and_summary_csv_a_row_a_cell(written: Written) -> None:
    runs = list(csv.DictReader(io.StringIO((written.first / "runs.csv").read_text())))
    assert len(runs) == 18 + 3 + 1
    assert {run["status"] for run in runs} == {"completed", "failed"}
    summary = list(csv.DictReader(io.StringIO((written.first / "summary.csv").read_text())))
    rows = {(row["model.name"], row["batch_size"]): row for row in summary}
    assert float(rows["simple_cnn", "2"]["mean"]) == pytest.approx(plain.fmean(BN[:6]))
    assert float(rows["simple_cnn", "2"]["std"]) == pytest.approx(plain.stdev(BN[:6]))
    # One of two comparisons has too few seeds for a verdict, the other all signs alike.
    assert float(rows["simple_cnn", "2"]["p"]) == pytest.approx(2 / 64)
    assert rows["simple_cnn", "8"]["p"] == ""


def test_latex_has_no_sign_that_latex_would_read(written: Written) -> None:
    text = (written.first / "summary.tex").read_text()
    assert "\\textbf{" in text
    body = text.replace("\\&", "").replace("\\_", "").replace("\\%", "").replace("\\\\", "")
    columns = len(re.findall(r"\{([lr]+)\}", text)[0])
    for line in body.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines():
        assert line.count("&") == columns - 1
        assert not re.search(r"[%#_]", line)


def test_the_command_writes_beside_the_runs_touches_none_and_needs_no_torch(
    written: Written,
) -> None:
    assert written.command.returncode == 0, written.command.stderr
    assert "batch\\_size & model & n &" in written.command.stdout
    assert contents(written.runs) == written.before
    assert {path.name for path in written.second.iterdir()} == {
        "index.html", "answer.json", "runs.csv", "summary.csv", "summary.md", "summary.tex",
        "looks.json", "figures",
    }  # fmt: skip
    # A second report does not take the first for a run.
    assert len(read_runs(written.runs).table) == 18 + 3 + 1


@pytest.mark.usefixtures("no_pictures")
def test_the_page_is_opened_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    main([str(tmp_path / "default")])
    assert opened == []
    main([str(tmp_path / "default"), "--open"])
    assert opened == [(tmp_path / "default" / "report" / "index.html").resolve().as_uri()]
