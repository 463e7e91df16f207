"""Fixtures of the report's tests."""

import pytest


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second; not where only what is said matters."""
    monkeypatch.setattr("normexp.report.answer.pictures", lambda judge, rows, costs: [])
