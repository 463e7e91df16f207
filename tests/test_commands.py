"""The commands as a person types them: from a checkout, and from a wheel installed elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import SMALL

from normexp.bench.__main__ import main as bench
from normexp.data.__main__ import main as data
from normexp.norms.__main__ import main as norms
from normexp.report.__main__ import main as report

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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([command, "--help"] for command in ("train", "data", "report", "norms", "bench")),
    ],
)
def test_help_needs_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['normexp', *{arguments}]\n"
        "import normexp.__main__\n"
        "try:\n    normexp.__main__.main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "normexp" in done.stdout


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
        (bench, ["seeds=3"], "say --seeds 3 here"),
        (bench, ["batch_size=3"], "say --batch-sizes 3 here"),
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
