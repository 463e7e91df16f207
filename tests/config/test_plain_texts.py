"""Texts and paths on the command line come through as they are written."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normexp.config.explain import explain
from normexp.config.plain_texts import TYPES, quoted
from normexp.config.schema import Config, get
from normexp.config.settings import prepare
from normexp.runs.composing import compose
from normexp.system.errors import UserError

# What is not taken as it is: quotes around all of it, and what OmegaConf gives a meaning.
TEXTS = st.text(
    st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" \\'\"`$#=,(){}[]:~?*&|;!%"),
    min_size=1,
).filter(
    lambda text: (
        text.strip() not in ("", "???") and "${" not in text and text.lstrip()[0] not in "'\""
    )
)


def read(settings: list[str]) -> list[Any]:
    return [one.value() for one in OverridesParser.create().parse_overrides(settings)]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("archive (1)")
@example("lr=0.1")
@example("C:\\data\\")
def test_any_text_comes_through_unchanged_alone_and_in_a_sweep(text: str) -> None:
    given = quoted([f"data.root={text}"])
    assert read(given) == [text]
    if "," not in text:
        swept = quoted([f"data.root={text}", "seed=0,1"], sweeps=True)
        parsed = OverridesParser.create().parse_overrides(swept)
        ((first, _),) = BasicSweeper.split_arguments(parsed, None)
        assert read(first) == [text, 0]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "archive (1)",
            "lr=0.1",
            "a{b}",
            "x#y",
            "a, b",
            "[1]",
            "a'b",
            'a"b',
            "1e5",
            "007",
            "null",
        ),
        *("true", "$HOME", "C:\\new\\", "né – 图", "a$(b)`c`", "~/data", "(", "a=", "-m", " b "),
    ],
)
def test_a_path_is_composed_as_it_is_written(text: str) -> None:
    assert compose([f"data.root={text}"]).data.root == text


def test_all_texts_of_the_schema_are_taken_so() -> None:
    assert {"name", "output", "data.root", "data.cache", "data.url", "data.train_folder"} <= {
        *TYPES
    }
    assert not [key for key in TYPES if not isinstance(get(Config(), key), str | None)]
    for key in set(TYPES) - {"fuse"}:
        assert get(compose(["data=image_folder", f"{key}=1 (2)"]), key) in ("1 (2)", None)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.root='a, b'", "a, b"),
        ('data.root="a, b"', "a, b"),
        ("data.cache=null", None),
        ("name=${model.name}_x", "simple_cnn_x"),
    ],
)
def test_what_hydra_documents_keeps_its_meaning(setting: str, value: str | None) -> None:
    assert get(compose(["data=image_folder", setting]), setting.partition("=")[0]) == value


def swept(setting: str) -> list[str]:
    (override,) = OverridesParser.create().parse_overrides(quoted([setting], sweeps=True))
    return read([f"name={one}" for one in override.sweep_string_iterator()])


def test_in_a_sweep_commas_separate_and_a_path_that_has_one_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert swept("name=a,b") == ["a", "b"]
    assert swept("name=a (1), b (2)") == ["a (1)", "b (2)"]
    assert swept("name='a,b',c") == ["a,b", "c"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b").mkdir()
    with pytest.raises(UserError, match="a comma separates") as refused:
        prepare(["data.root=a, b"], sweeps=True)
    line = str(refused.value).partition("write ")[2]
    (typed,) = shlex.split(line)
    assert read(prepare([typed], sweeps=True)) == ["a, b"]


@pytest.mark.parametrize("setting", ["norm.name=my (1):x", "hydra.sweep.dir=a (1)", "+x=a(b"])
def test_where_a_text_has_to_be_quoted_the_line_that_works_is_said(setting: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Hydra's own
        prepare([setting])
    line = explain(caught.value).partition("for one text write ")[2]
    (typed,) = shlex.split(line)
    assert read([typed]) == [setting.partition("=")[2]]
