"""Where a session trains, and what it says about it; the trials themselves are left out."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dendrite_automl.errors import AutoMLError
from dendrite_automl.plan import Plan, make_plan
from dendrite_automl.plan import accelerator as choice
from dendrite_automl.search_loop import session

NOTE = "note: networks this small should train faster on the CPU than on the GPU; --accelerator cuda uses it"


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """On what trials were to be trained; each search ends there."""
    found: list[str] = []

    def note(_journal: object, plan: Plan, *_: object) -> None:
        found.append(plan.machine.accelerator)
        raise AutoMLError("enough")

    monkeypatch.setattr(session, "_run_trials", note)
    return found


def begin(folder: Path, **changes: Any) -> None:
    settings = {"task": "digits", "space": "digits_conv2d", "budget": "2k-params", "out": folder, "trials": 1, **changes}
    with pytest.raises(AutoMLError, match="enough"):
        session.run_search(make_plan(settings))


def test_a_gpu_that_small_networks_do_not_use_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], began: list[str]
) -> None:
    begin(tmp_path / "without", accelerator="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    begin(tmp_path / "chosen", accelerator="cpu")
    begin(tmp_path / "forced", accelerator="cuda")
    assert NOTE not in capsys.readouterr().err
    begin(tmp_path / "small")
    assert NOTE in capsys.readouterr().err
    monkeypatch.setattr(choice, "WORTH", 1)
    begin(tmp_path / "large")
    assert NOTE not in capsys.readouterr().err
    assert began == ["cpu", "cpu", "cuda", "cpu", "auto"]
