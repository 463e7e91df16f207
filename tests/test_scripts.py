"""The scripts beside the package run."""

import csv
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_what_is_for_a_gpu_runs_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    table = tmp_path / "table.csv"
    main = runpy.run_path(str(SCRIPTS / "on_a_gpu.py"))["main"]
    chosen = ["--device", "cpu", "--quick", "--models", "mlp", "--csv", str(table)]
    with pytest.raises(SystemExit) as left:
        main([*chosen, "--parts", "agree", "repeat", "--norms", "gn", "in", "syncbn"])
    assert left.value.code == 0
    assert f"written to {table}\n" in capsys.readouterr().out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    # An MLP has no positions for IN, a CPU no SyncBatchNorm: they are left out.
    found = [(row["part"], row["norm"], row["seeds"]) for row in rows]
    assert found == [("agree", "gn", "1"), ("repeat", "bn", "1"), ("repeat", "bn", "4")]
    assert float(rows[0]["value"]) < 1e-5
    assert rows[1]["verdict"] == "twice and resumed the same"


def test_what_the_report_promises_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(SCRIPTS / "measure_statistics.py"))
    # Of 2,000 samples within five standard errors.
    for seeds in (3, 8):
        held = script["coverage"](script["SHAPES"]["normal"], seeds, 2_000)
        assert held == pytest.approx(0.95, abs=0.025)
    monkeypatch.setattr(sys, "argv", ["measure", "--samples", "40", "--tables", "3"])
    script["main"]()
    assert capsys.readouterr().out.count("| skewed ") == 2


def test_networks_are_tried_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(SCRIPTS / "fusable.py"))["main"]
    monkeypatch.setattr(sys, "argv", ["fusable", "torchvision:squeezenet1_1"])
    main()
    assert "| torchvision:squeezenet1_1 | in turn | several SqueezeNet" in capsys.readouterr().out
