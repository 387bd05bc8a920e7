import struct
from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.report.plot import plot_front
from tests.factories import make_snapshot

Row = dict[str, Any]
DENDRITIC = make_snapshot(val_accuracy=0.9, params=800, macs=9000).values()
BASELINE = make_snapshot(candidate="b" * 10, arm="baseline", val_accuracy=0.8, params=300, macs=5000).values()
LIMITS = {"params": 2000.0, "peak_ram_bytes": 65_536.0}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [DENDRITIC],
        [DENDRITIC, BASELINE],
        [DENDRITIC, DENDRITIC],
        [{**BASELINE, "val_accuracy": accuracy, "params": n} for n, accuracy in enumerate([0.0, 0.5, 1.0], start=1)],
        [{**DENDRITIC, "val_accuracy": 0.0}],
        [{**DENDRITIC, "params": 10**9, "macs": 10**12}],
    ],
    ids=["none", "one", "both arms", "twice", "one arm", "accuracy 0", "huge"],
)
@pytest.mark.parametrize("limits", [{}, LIMITS], ids=["no limits", "limits"])
def test_a_png_is_written_with_and_without_rows(tmp_path: Path, rows: list[Row], limits: dict[str, float]) -> None:
    plot_front(rows, tmp_path / "front.png", title="digits: $5 networks_1", limits=limits)
    content = (tmp_path / "front.png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG\r\n")
    assert (width, height) == (1650, 690)
    assert len(content) > 10_000


def test_both_arms_the_budget_and_the_units_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    plot_front([DENDRITIC, BASELINE], tmp_path / "front.svg", title="my title", limits=LIMITS)
    text = (tmp_path / "front.svg").read_text(encoding="utf-8")
    for word in ("my title", "dendritic", "baseline", "budget", "parameters", "(MACs)", "validation accuracy (%)"):
        assert word in text


def test_an_earlier_file_is_replaced_and_no_figure_stays_open(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    path = tmp_path / "front.png"
    path.write_bytes(b"old")
    plot_front([DENDRITIC], path, title="t", limits={})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["front.png"]
