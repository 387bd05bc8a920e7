from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks are scripts: they import each other by their bare names."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
