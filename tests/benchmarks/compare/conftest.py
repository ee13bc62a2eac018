"""For all tests of comparisons."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """statsmodels collects garbage at every correction: 0.1 s each, hundreds of times here."""
    monkeypatch.setattr("gc.collect", lambda: 0)
