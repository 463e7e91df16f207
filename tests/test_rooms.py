"""The house: data flows one way, and no room knows one that stands after it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import normexp

PACKAGE = Path(normexp.__file__).parent

ROOMS = (
    "system", "config", "norms", "data", "models", "trainer", "runs", "bench", "report",
    "comparing", "finished", "help",
)  # fmt: skip
"""Each may import those before it, and itself."""


def imported(file: Path) -> Iterator[str]:
    """The rooms that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "rooms are named in full"
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "normexp" and parts[1] in ROOMS:
                yield parts[1]


def test_every_room_is_known_and_only_commands_lie_loose() -> None:
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found == set(ROOMS)
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    commands = {"train", "compare", "evaluate", "predict", "export"}
    assert loose == {"__init__", "__main__", *commands}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_none_that_stands_after_it(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    files = [path for path in (PACKAGE / room).rglob("*.py") if path.name != "__main__.py"]
    assert files
    for file in files:  # a __main__ is a command, which may call on all
        assert set(imported(file)) <= set(allowed), file


def test_the_loop_knows_no_file() -> None:
    tree = ast.parse((PACKAGE / "trainer" / "loop.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {
        one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names
    }
    outside = {name for name in modules if not str(name).startswith("normexp.trainer.")}
    assert outside == {"math", "time", "collections.abc", "dataclasses", "torch"}
