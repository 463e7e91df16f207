"""Signals and streams of commands: one line and a status that tells which, and no run that fails
because nobody reads."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL

from normexp.config.one_line import one_line_errors
from normexp.runs import sweep_folders
from normexp.system import signals

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)
TRAIN = (sys.executable, "-m", "normexp.train")

AT_ITS_IMPORTS = """
import os, sys
class Wait:
    def find_spec(self, name, path, target=None):
        if name == "normexp.config.one_line":
            print("importing", flush=True)
            sys.stdin.readline()
sys.meta_path.insert(0, Wait())
"""
"""As sitecustomize.py: a process that says where its imports are, and stays there."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["-m normexp.report", "normexp evaluate"])
def test_a_command_is_interrupted_while_it_imports(
    tmp_path: Path, command: str, number: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_ITS_IMPORTS)
    script = tmp_path / "normexp"
    script.write_text("from normexp.__main__ import main\nmain()\n")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, *command.replace("normexp evaluate", f"{script} evaluate").split(), "x"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, errors = process.communicate()
    assert errors == "normexp: interrupted; give the same command again\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_interrupted_while_it_works(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, one_line_errors():
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == "normexp: interrupted; give the same command again\n"
    assert signal.getsignal(number) == before


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with one_line_errors():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["-m", "norm=bn"], ["python", "-X", "dev", "-m", "normexp.train", "norm=bn"], True),
        (["-m"], ["python", "-mnormexp"], True),
        (["/bin/normexp", "train"], ["python", "/bin/normexp", "train"], True),
        (["/bin/normexp", "train"], ["python", "-c", "spawn_main()", "--fork"], False),
        (["-m", "normexp"], ["python", "-m", "pytest", "normexp"], False),
        (["-c"], ["python", "-c", "import normexp"], False),
        ([""], [], False),
    ],
)
def test_a_library_leaves_signals_alone(
    argv: list[str], original: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert signals.is_command() == expected


def test_a_sweep_whose_output_nobody_reads_trains_all_its_runs(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TRAIN, "-m", *SMALL, "norm=none,gn"], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    with process:
        assert first == "composing 2 combinations\n"
        assert process.stderr.read() == ""
    assert process.returncode == 0
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert [result["status"] for result in found] == ["completed"] * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize("module", ["train", "norms"])
def test_output_on_a_full_disk_is_one_line(tmp_path: Path, module: str) -> None:
    arguments = SMALL if module == "train" else ()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", f"normexp.{module}", *arguments], cwd=tmp_path,
            env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output cannot be written: No space left on device" in done.stderr
    found = [json.loads(path.read_text())["status"] for path in tmp_path.rglob("result.json")]
    assert found == (["completed"] if module == "train" else [])


def test_a_product_that_nobody_reads_ends_its_command_quietly(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['-m']; sys.orig_argv = ['python', '-m', 'normexp']\n"
        "import normexp\nfrom normexp.system import streams\n"
        "from normexp.config.one_line import one_line_errors\nstreams.end_unread()\n"
        "with one_line_errors():\n    print('a', flush=True); sys.stdin.readline()\n"
        "    print('b', flush=True); print('not reached', file=sys.stderr)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "a\n"
    process.stdout.close()
    process.stdin.close()
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 1


def folder_of(sweeps: Path, name: str, **content: object) -> Path:
    lock = sweep_folders.hold(sweeps / name)
    known = {"host": socket.gethostname(), "launcher": sweep_folders.ALONE}
    (sweeps / name / "sweep.json").write_text(json.dumps({**known, **content}))
    lock.release()
    return sweeps / name


def test_only_the_folders_of_dead_sweeps_are_removed(tmp_path: Path) -> None:
    folder_of(tmp_path, "dead")
    folder_of(tmp_path, "elsewhere", host="another")
    living = sweep_folders.hold(folder_of(tmp_path, "alive"))
    for name in ("joblib.new", "joblib.old", "submitit.old"):
        folder = folder_of(tmp_path, name, launcher=name)
        if name.endswith("old"):
            past = time.time() - 2 * sweep_folders.DAY
            for path in [*folder.iterdir(), folder]:
                os.utime(path, (past, past))
    (tmp_path / "no sweep").mkdir()
    sweep_folders.remove_dead(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"elsewhere", "alive", "joblib.new", "submitit.old", "no sweep"}
    living.release()


@pytest.mark.parametrize("other", [None, "another boot"])
def test_no_sweep_took_less_than_no_time(other: str | None) -> None:
    now = time.monotonic()
    wrong = {"started": time.time() + 1e6, "monotonic": now - 5}  # the clock went back
    assert sweep_folders.began({**wrong, "boot": other}) >= now
    if sweep_folders.boot() is not None:
        assert sweep_folders.began({**wrong, "boot": sweep_folders.boot()}) == now - 5


def test_a_signal_that_a_library_swallowed_ends_the_command() -> None:
    script = (
        "import os, signal\n"
        "from normexp.config.one_line import one_line_errors\n"
        "from normexp.system import signals\n"
        "with one_line_errors():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        while True: pass\n"
        "    except BaseException:\n"
        "        {what}\n"
        "    signals.check()\n"
        "    print('went on')\n"
    )
    for what in ("pass", "raise RuntimeError('of a library') from None"):
        done = subprocess.run(
            [sys.executable, "-c", script.format(what=what)], cwd=ROOT, env=ENVIRONMENT,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 143
        assert done.stdout == ""
        assert done.stderr == "normexp: interrupted; give the same command again\n"


def test_closed_streams_fail_no_run(tmp_path: Path) -> None:
    line = f"exec {' '.join([*TRAIN, *SMALL])} >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT).returncode == 0
    (path,) = tmp_path.rglob("result.json")
    assert json.loads(path.read_text())["status"] == "completed"


def test_a_command_that_is_done_ends_as_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes its handlers away before the process ends, and what libraries do takes time."""
    at_exit: list[tuple[Any, ...]] = []
    monkeypatch.setattr(signals.atexit, "register", lambda *call: at_exit.append(call))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals.begin()
        assert signal.getsignal(signal.SIGTERM) is signals.leave
        ((function, *arguments),) = at_exit
        function(*arguments)
        assert [signal.getsignal(number) for number in before] == [signal.SIG_IGN] * 2
    finally:
        signals.restore({**before, signal.SIGHUP: signal.SIG_DFL})
