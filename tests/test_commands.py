"""The commands as a person types them: from a checkout, and from a wheel installed elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from fake_runs import write_run, write_sweep
from schema_keys import leaves
from small_runs import SMALL

from normexp import __version__
from normexp.__main__ import main as normexp_main
from normexp.bench.__main__ import main as bench
from normexp.config.schema import Config
from normexp.data.__main__ import main as data
from normexp.evaluate import main as evaluate
from normexp.export import main as export
from normexp.help.commands import COMMANDS
from normexp.help.key_help import meanings
from normexp.norms.__main__ import main as norms
from normexp.predict import main as predict
from normexp.report.__main__ import main as report
from normexp.runs.named import best_below, runs_below
from normexp.system.errors import UserError

ROOT = Path(__file__).parents[1]


def call(
    *arguments: str, folder: Path, path: Path = ROOT, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m arguments`` in ``folder`` with the normexp that lies in ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stderr + done.stdout
    return done


def results(output: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(output.rglob("result.json"))]


def test_a_run_and_the_same_question_again(tmp_path: Path) -> None:
    first = call("normexp.train", *SMALL, "norm=gn", "log.tensorboard=true", folder=tmp_path)
    assert "epoch 2/2" in first.stdout
    assert "test accuracy" in first.stdout
    # Without a terminal there is no bar, and nothing else to say on stderr.
    assert first.stderr == ""
    (result,) = results(tmp_path / "outputs")
    assert result["status"] == "completed"
    again = call("normexp.train", *SMALL, "norm=gn", "device=auto", folder=tmp_path)
    assert "completed in " in again.stdout
    assert "force=true trains again" in again.stdout
    assert "epoch" not in again.stdout
    assert results(tmp_path / "outputs") == [result]
    # Hydra leaves nothing of its own behind.
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_a_sweep_crosses_norms_and_seeds(tmp_path: Path) -> None:
    call(
        "normexp.train", "-m", *SMALL, "epochs=1", "norm=none,bn", "seed=0,1", "name=cross",
        folder=tmp_path,
    )  # fmt: skip
    cells = [(r["norm"], r["seed"]) for r in results(tmp_path / "outputs" / "cross")]
    assert sorted(cells) == [("bn", 0), ("bn", 1), ("none", 0), ("none", 1)]  # type: ignore[type-var]


def test_missing_cifar10_is_one_line_that_names_the_way_out(tmp_path: Path) -> None:
    done = call("normexp.train", "data.download=false", folder=tmp_path, status=2)
    (line,) = done.stderr.splitlines()
    for part in ("cifar-10-python.tar.gz", str(tmp_path / "data"), "data=synthetic",
                 "c58f30108f718f92721af3b95e74349a"):  # fmt: skip
        assert part in line


def test_fetch_says_what_it_prepared(tmp_path: Path) -> None:
    done = call("normexp.data", "fetch", "data=synthetic", folder=tmp_path)
    assert "10,000 train, 2,000 test" in done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel of this checkout was installed."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, "wheel", *options, str(ROOT)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def test_an_installed_wheel_trains_from_any_directory(installed: Path, tmp_path: Path) -> None:
    assert (installed / "normexp" / "conf" / "config.yaml").is_file()
    call("normexp.train", *SMALL, "norm=ln", folder=tmp_path, path=installed)
    (result,) = results(tmp_path / "outputs")
    assert (result["status"], result["git"]) == ("completed", None)


def test_the_console_script_does_the_same(installed: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(installed / "bin" / "normexp")]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [*script, "train", *SMALL, "epochs=1", "norm.name=mine:double"],
        cwd=_with_own_norm(tmp_path), env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Double()" in done.stdout
    (result,) = results(tmp_path / "outputs")
    assert result["norm"] == "mine:double"


def _with_own_norm(folder: Path) -> Path:
    """A norm of one's own in the folder one works in."""
    (folder / "mine.py").write_text(
        "import torch\n\n\nclass Double(torch.nn.Module):\n"
        "    def forward(self, x):\n        return 2 * x\n\n\n"
        "def double(channels, dims, norm):\n    return Double()\n"
    )
    return folder


def without_torch(*arguments: str, folder: Path) -> str:
    """What `normexp` prints on a terminal of 80 columns, where it need not import torch."""
    code = (
        f"import sys; sys.argv = ['normexp', *{arguments}]\n"
        "import normexp.__main__\n"
        "try:\n    normexp.__main__.main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    return done.stdout


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_needs_no_torch_and_fits_a_terminal(command: str | None, tmp_path: Path) -> None:
    given = [] if command is None else [command]
    assert "normexp" in without_torch(*given, "--help", folder=tmp_path)


def test_help_says_of_each_key_what_it_means(tmp_path: Path) -> None:
    (tmp_path / "more" / "norm").mkdir(parents=True)
    (tmp_path / "more" / "norm" / "mine.yaml").write_text("name: my_norms:rms\n")
    shown = without_torch(
        "train", "--config-dir", "more", "model=mlp", "--help", folder=tmp_path
    )  # fmt: skip
    assert "python -m normexp.train norm=gn batch_size=2" in shown
    assert [key for key in leaves() if f"  {key}=" not in shown] == []
    # As composed, with the choices of a folder of one's own.
    assert "model.hidden=[64,32]" in shown
    text = " ".join(shown.split())
    assert "norm=NAME, one of batch_instance" in text
    assert "ln2d, mine, none" in text
    assert "norm.eps=1.0e-05 Added to the variance; one value for all norms unless" in text
    assert "log.progress=true A progress bar, on terminals only." in text


def test_all_keys_have_a_meaning() -> None:
    without = [
        f"{level.__name__}.{item.name}"
        for level in (Config, *(item.type for item in fields(Config)))
        if is_dataclass(level)
        for item in fields(level)
        if not is_dataclass(item.type) and not meanings()[level.__name__].get(item.name)
    ]
    assert without == []


@pytest.mark.parametrize(
    "main",
    [evaluate, predict, export, data, report, norms, bench],
    ids=lambda main: main.__module__,
)
def test_versions_and_mistyped_options(
    main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"normexp {__version__}\n"
    with pytest.raises(SystemExit) as left:
        main(["--hlep"])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--hlep: no such option; did you mean --help?" in line


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--version"], 0, f"normexp {__version__}"),
        (["train", "--version"], 0, f"normexp {__version__}"),
        (["tarin"], 2, "tarin: no such command; did you mean train?"),
        (["train", "norm=gn", "--hlep"], 2, "--hlep: no such flag; did you mean --help?"),
    ],
)
def test_the_command_itself(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", ["normexp", *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    if status == 0:
        normexp_main()
    else:
        with pytest.raises(SystemExit) as left:
            normexp_main()
        assert left.value.code == status
    shown = capsys.readouterr()
    (line,) = (shown.out + shown.err).splitlines()
    assert says in line


# --- A sweep's folder in place of a run directory


def test_a_sweeps_folder_means_its_run_that_was_best_on_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path, {"norm=bn": [0.3, 0.6, None], "norm=gn": [0.5, 0.4]}, "name=first")
    # Runs that are under way have no say, and neither has what was drawn of them.
    write_run(tmp_path, "norm=ln", "name=first", status=None)
    folder = tmp_path / "first"
    (folder / "report").mkdir()
    best = best_below(folder)
    assert best.name.startswith("simple_cnn-bn-bs64-seed1-")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"note: {best} is the best on validation (60.00 %) of 6 runs"
    # A run is itself, and so is the only one.
    assert best_below(best) == best
    (tmp_path / "other").mkdir()
    only = best.rename(tmp_path / "other" / best.name)
    assert best_below(tmp_path / "other") == only
    assert capsys.readouterr().err == ""


def test_runs_that_cannot_be_ranked_are_named(tmp_path: Path) -> None:
    one = write_run(tmp_path / "unvalidated", seed=0, val_acc=None).path
    other = write_run(tmp_path / "unvalidated", seed=1, val_acc=None).path
    with pytest.raises(
        UserError, match="its 2 runs have no accuracy on validation; name one"
    ) as no:
        best_below(tmp_path / "unvalidated")
    assert str(one) in str(no.value)
    assert str(other) in str(no.value)
    for fingerprint in ("one", "two"):
        write_run(tmp_path / "images" / fingerprint, data_fingerprint=fingerprint)
    with pytest.raises(UserError, match="its 2 runs are of different images; name one"):
        best_below(tmp_path / "images")


def test_all_runs_of_a_sweeps_folder(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": [0.3, 0.6], "norm=gn": [0.5]}, "name=first")
    below = sorted((tmp_path / "first").iterdir())
    assert len(below) == 3
    # A run that was given twice is met once; what is no folder is left to complain of.
    given = [below[2], tmp_path / "first", tmp_path / "nowhere"]
    assert runs_below(given) == [below[2], *below[:2], tmp_path / "nowhere"]


def test_real_images_in_the_original_format(shared_cifar10: Path, tmp_path: Path) -> None:
    """The main job on real images, with their original pixels."""
    archive = shared_cifar10 / "cifar-10-python-mini.tar.gz"
    done = call(
        "normexp.train", "norm=gn", "batch_size=20", "epochs=3", "data.verify=false",
        f"data.url=file://{archive}", "log.tensorboard=false", folder=tmp_path,
    )  # fmt: skip
    assert "4,499 training, 501 validation, 1,000 test images" in done.stdout
    (result,) = results(tmp_path / "outputs")
    assert float(result["test_acc"]) > 0.25  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("main", "arguments", "says"),
    [
        (report, ["--format", "xx"], "--format: invalid choice: 'xx' (choose from 'text'"),
        (report, [], "required: DIR|CSV"),
        (data, [], "required: COMMAND"),
        (data, ["fech"], "choose from 'fetch'"),
        (norms, ["gn", "bn"], "unrecognized arguments: bn"),
        (norms, ["mine:build"], "give one of its names"),
        (bench, ["growt"], "did you mean growth?"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(
    main: Callable[[list[str]], None], arguments: list[str], says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
