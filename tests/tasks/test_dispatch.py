"""The reader is picked by what is at a path; options are parsed strictly."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, dispatch, read_data
from dendrite_automl.tasks.reading import parse_colour, parse_hertz, parse_seconds, parse_size


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the readers that were chosen, in place of reading."""
    names: list[str] = []

    def reader(name: str) -> Any:
        return lambda path, options: names.append(name)

    monkeypatch.setattr(dispatch, "_reader", reader)
    for name in ("load_npz", "read_table", "read_idx"):
        monkeypatch.setattr(dispatch, name, lambda *_, name=name: names.append(name))
    return names


@pytest.mark.parametrize(
    ("files", "place", "options", "expected"),
    [
        (["a b/ü.npz"], "a b/ü.npz", {}, "load_npz"),
        (["t.CSV"], "t.CSV", {"target": "y"}, "read_table"),
        (["t.parquet"], "t.parquet", {}, "read_table"),
        (["t.csv"], "t.csv", {"window_seconds": 1.0}, "series"),
        (["d/yes/1.wav", "d/no/1.wav", "d/validation_list.txt", "d/_background_noise_/n.wav"], "d", {}, "audio"),
        (["d/walk/1.csv", "d/run/1.csv"], "d", {}, "series"),
        (["d/cat/1.PNG", "d/dog/1.jpeg", "d/.git/config"], "d", {}, "images"),
        (["d/train/cat/1.png", "d/test/cat/1.png"], "d", {}, "images"),
        (["d/train-images-idx3-ubyte.gz"], "d", {}, "read_idx"),
    ],
)
def test_what_is_there_decides(
    tmp_path: Path, taken: list[str], files: list[str], place: str, options: dict[str, Any], expected: str
) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    read_data(str(tmp_path / place), ReadOptions(**options))
    assert taken == [expected]


@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ([], "nothing", "expected a file or folder"),
        ([], "x" * 5000, "expected a file or folder"),
        ([], "no/such:thing", "expected a file or folder"),
        (["a.txt"], "a.txt", "got the file"),
        (["d/a.wav"], "d", "got 1 files and no folder"),
        (["d/cat/a.txt", "d/dog/a.txt"], "d", "got 2 folders without such files"),
        (["d/cat/a.wav", "d/dog/a.csv"], "d", "got .csv, .wav"),
    ],
)
def test_what_no_reader_takes_is_refused_in_one_line(tmp_path: Path, files: list[str], place: str, says: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(RequestError) as caught:
        read_data(str(tmp_path / place), ReadOptions())
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_options_do_not_concern_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(RequestError, match=r"--rate does not apply to a\.npz"):
        read_data(str(tmp_path / "a.npz"), ReadOptions(rate_hz=50.0))


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_seconds, "2s", 2.0),
        (parse_seconds, "500ms", 0.5),
        (parse_seconds, "0.25s", 0.25),
        (parse_hertz, "50Hz", 50.0),
        (parse_hertz, "16kHz", 16000.0),
        (parse_hertz, "44.1kHz", 44100.0),
        (parse_size, "28x32", (28, 32)),
        (parse_colour, "grey", "grey"),
        *((parse, None, None) for parse in (parse_seconds, parse_hertz, parse_size, parse_colour)),
    ],
)
def test_options_are_parsed(parse: Any, text: Any, value: Any) -> None:
    assert parse(text, "--flag") == value


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parse_seconds, ["2", "s", "0s", "-1s", "2 s", "2S", "2m", "1e3s", "2s ", "", "nans", 2.0, "9" * 400 + "s"]),
        (parse_hertz, ["50", "0Hz", "50hz", "50KHz", "-5Hz", "kHz", "50Hz\n"]),
        (parse_size, ["32", "32x", "x32", "0x32", "32X32", "32x32x3", "-1x2", "2000x32", "3.5x4", (32, 32)]),
        (parse_colour, ["gray", "RGB", "", "bgr"]),
    ],
)
def test_options_of_another_form_are_refused(parse: Any, texts: list[Any]) -> None:
    for text in texts:
        with pytest.raises(RequestError, match=r"^--flag: expected "):
            parse(text, "--flag")


def test_a_reader_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dendrite_automl.tasks.images", None)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    with pytest.raises(RequestError, match="data: images cannot be read by this installation"):
        read_data(str(tmp_path), ReadOptions())
