"""Code of one's own, whatever key names it: found and hashed without being run."""

import hashlib
import sys
from pathlib import Path

import pytest

from normexp.config.own_code import digest, installed, is_own, load, own_file
from normexp.system.errors import UserError


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "a_net_of_ones_own.py"
    file.write_text("ran = True\n\n\ndef build(classes):\n    return classes\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return file


def test_it_is_found_and_hashed_without_being_run(net: Path) -> None:
    name = f"{net.stem}:build"
    assert own_file("model", name) == net
    assert digest("model", name) == hashlib.sha256(net.read_bytes()).hexdigest()
    assert not installed(net)
    assert net.stem not in sys.modules
    assert load("model", name)(7) == 7


@pytest.mark.parametrize("name", ["a_net_of_ones_own", ":build", "a_net_of_ones_own:"])
def test_other_names_are_none(name: str) -> None:
    assert not is_own(name)
    with pytest.raises(UserError, match=rf"^model={name}: .*MODULE:FUNCTION"):
        own_file("model", name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_net:build", "no module no_such_net on the path; run from its folder"),
        ("os:system", "os is a package or a part of Python and no file"),
    ],
)
def test_what_is_not_there_is_refused_in_terms_of_the_key(name: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^model={name}: .*{says}") as caught:
        own_file("model", name)
    assert "norm" not in str(caught.value)


def test_a_function_that_is_not_in_the_file_is_named(net: Path) -> None:
    with pytest.raises(UserError, match=r"^model=a_net_of_ones_own:made: .*'made'"):
        load("model", f"{net.stem}:made")
