"""What a comparison can be asked for, and what is refused in one line."""

import pytest

from normexp.comparing.settings import Asked, read, seconds, split
from normexp.system.errors import UserError


def test_its_own_keys_are_the_sweepers_and_the_rest_is_of_the_runs() -> None:
    own, runs = split(["norm=bn,gn", "looks=[8,12]", "reference=norm=bn", "epochs=3"])
    assert own == ["hydra.sweeper.looks='[8,12]'", "hydra.sweeper.reference='norm=bn'"]
    assert runs == ["norm=bn,gn", "epochs=3", "name=compare", "scheduler=cosine"]
    assert split(["experiment=study"])[1] == ["experiment=study"]
    assert "scheduler=cosine" not in split(["scheduler=step"])[1]


def test_all_keys_are_read() -> None:
    given = {
        "looks": "8,10", "tune.rates": "3", "tune.seeds": "4", "tune.share": "0.5",
        "budget": "2h", "reference": "norm=gn", "margin": "1",
    }  # fmt: skip
    assert read({**given, "tune": None}) == Asked((8, 10), 3, 4, 0.5, 7200.0, ("norm", "gn"), 0.01)
    assert not read({"tune": "false"}).tunes


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("3d", 259200)]
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("looks", "[5,8]", "at least 6"),
        ("looks", "[8,8]", "rising"),
        ("looks", "[]", "rising"),
        ("looks", "eight", "whole number"),
        ("tune", "maybe", "true or false"),
        ("tune.rates", "1", "at least 2"),
        ("tune.share", "0", "above 0"),
        ("tune.share", "nan", "above 0"),
        ("budget", "soon", "budget=30m"),
        ("budget", "0m", "budget=30m"),
        ("margin", "-1", "above 0"),
        ("reference", "bn", "norm=bn"),
    ],
)
def test_what_cannot_work_is_refused(key: str, value: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        read({key: value})
    assert f"{key}={value}" in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "named"),
    [("seeds=8", "looks="), ("seed=1", "looks="), ("tune.rate=3", "did you mean tune.rates")],
)
def test_keys_without_a_place(setting: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        split([setting])


def test_tune_false_beside_its_keys() -> None:
    with pytest.raises(UserError, match="give one of them"):
        read({"tune": "false", "tune.rates": "5"})
