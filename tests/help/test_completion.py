"""Completion: which words a shell is offered, and that a real bash takes them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from normexp.help.completion import main, words

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ex", ["export"]),
        ("--v", ["--version"]),
        ("train nor", ["norm=", "norm."]),
        ("train norm.mom", ["norm.momentum="]),
        ("train -m model=r", ["model=resnet18", "model=resnet20"]),
        ("train -m model=mlp,r", ["model=mlp,resnet18", "model=mlp,resnet20"]),
        ("train experiment=stu", ["experiment=study"]),
        ("train precision=", ["precision=fp32", "precision=bf16"]),
        ("train norm.affine=f", ["norm.affine=false"]),
        ("data ", ["fetch"]),
        ("data fetch data=im", ["data=image_folder"]),
        ("bench gro", ["growth"]),
        ("bench norms model=m", ["model=mlp"]),
        ("norms evonorm", ["evonorm_s0", "evonorm_b0"]),
        ("evaluate outputs/first evaluate.bn", ["evaluate.bn_stats="]),
        # Evaluation does not read these.
        ("evaluate outputs/first optim", []),
        ("train no_such_key=", []),
        ("train no_such.key=", []),
        # The shell's own completion of files goes on.
        *((f"{command} ", []) for command in ("report", "evaluate", "predict", "export")),
        ("train data.root=/da", []),
    ],
)
def test_words_that_are_offered(line: str, offered: list[str]) -> None:
    *before, word = line.split(" ")
    assert words(before, word) == offered


def test_all_keys_and_groups_are_offered() -> None:
    found = words(["train"], "")
    assert {"norm=", "norm.", "experiment=", "batch_size=", "log."} <= set(found)
    assert not {"log=", "hydra=", "model.name="} & set(found)


def test_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert not main(["norm=gn"])
    with pytest.raises(SystemExit):
        main(["-sc", "install=tcsh"])
    assert "one of bash, zsh, fish" in capsys.readouterr().err


BASH = r"""
eval "$(normexp train -sc install=bash)"
complete -p normexp
for COMP_LINE in "normexp tr" "normexp train norm=ghost" "normexp report out"; do
    COMP_POINT=${#COMP_LINE}
    _normexp normexp
    echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_without_torch(tmp_path: Path) -> None:
    command = tmp_path / "normexp"
    python = f'"{sys.executable}" -X importtime -m normexp "$@" 2>>"{tmp_path}/imported"'
    command.write_text(f"#!/bin/sh\n{python}\n")
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    registered, *offered = done.stdout.splitlines()
    assert registered == "complete -o default -F _normexp normexp"
    # Of a word with = bash replaces what stands after that.
    assert offered == ["train", "ghost_bn", ""]
    imported = {line.split()[-1] for line in (tmp_path / "imported").read_text().splitlines()}
    assert "normexp.config" in imported
    assert "torch" not in imported
