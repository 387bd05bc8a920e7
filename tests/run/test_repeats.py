"""repeat.json: read back as written, refused if damaged; when a run is over."""

import json
from pathlib import Path

import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.run import Journal, Repeats, keep_repeats, why_unfinished
from tests.factories import INFO, make_run, make_snapshot


def make(path: Path, **changes: object) -> Repeats:
    fields = {"count": 3, "settings": (("arms", ("dendritic",)), ("seed", 4)), "finished": (1,), "command": "automl search"}
    return Repeats(path=path, **{**fields, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = keep_repeats(make(tmp_path / "new" / "all"))
    read = Repeats.open(tmp_path / "new" / "all")
    assert read.to_json() == written.to_json()
    assert (read.missing, [read.seed(number) for number in read.numbers]) == ([2, 3], [4, 5, 6])
    assert read.request == {"arms": ["dendritic"], "seed": 4}
    assert [path.name for path in read.path.iterdir()] == ["repeat.json"]


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"repeats": 0}, {"repeats": "x"}, {"finished": 1}, {"request": {}}, {"request": {"seed": None}}]
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    whole = keep_repeats(make(tmp_path)).to_json()
    for text in (json.dumps({**whole, **changes}), "{", "[]"):
        (tmp_path / "repeat.json").write_text(text)
        with pytest.raises(RequestError, match=r"repeat\.json") as caught:
            Repeats.open(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="out: cannot make the folder"):
        keep_repeats(make(tmp_path / "file" / "all"))


def test_a_run_is_over_when_its_trials_are_or_repeat_json_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "alone", [make_snapshot()])
    assert "has ended 0 of 4 trials" in str(why_unfinished(run))
    with Journal(run).locked():
        assert "is still running" in str(why_unfinished(run))
    limited = make_run(tmp_path / "limited", [], request={**INFO["request"], "seconds": 60.0})
    assert why_unfinished(limited) is None
    repeats = keep_repeats(make(tmp_path / "all"))
    runs = [make_run(repeats.folder(number), []) for number in (1, 2)]
    assert why_unfinished(runs[0]) is None
    assert "2 has not finished; continue with `automl search --resume --out" in str(why_unfinished(runs[1]))
    assert [run.path.name for run in repeats.runs()] == ["1", "2"]
