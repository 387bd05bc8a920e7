"""`automl stream` as a user meets it: what it finds, what it keeps, and one line for each kind of bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import dendrite_automl as da
from dendrite_automl.cli import main
from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.artifact.seal import write_seal
from dendrite_automl.export.artifact.stream import default_background
from tests.export.artifact.test_verify import original  # noqa: F401 - an artifact without sound
from tests.sound_artifact import make_task, train, write_artifact, write_labels, write_long
from tests.tasks.sounds import RATE, tone, write_wave

pytest.importorskip("librosa")
WORDS = ["high", "low", "low", "high", "low", "high"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        task = make_task(folder / "clips")
    write_artifact(train(task), task, folder / "artifact")
    rows = [row for i in range(2) for row in write_long(folder / f"{i}.wav", WORDS, seed=i)]
    write_labels(folder / "labels.csv", rows)
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place", ignore=shutil.ignore_patterns("cache", "clips")))


def recordings(place: Path) -> list[Path]:
    return [place / "0.wav", place / "1.wav"]


@pytest.mark.parametrize("network", ["float32", "int8"])
def test_words_are_detected_where_they_are(place, network) -> None:
    found = da.stream(place / "artifact", recordings(place), place / "labels.csv", network=network)
    assert [rates.label for rates in found.rates] == ["high", "low", "all keywords"]
    assert (found.rates[-1].words, found.rates[-1].misses) == (12, 0)
    assert found.settings.background == ("_background_noise_",)
    assert found.settings.hop_frames == 4
    of_first = [(d.label, d.seconds) for d in found.detections if d.recording == "0.wav"]
    assert [label for label, _ in of_first][: len(WORDS)] == WORDS
    for i, (_, seconds) in enumerate(of_first):
        assert 1.5 + 2 * i <= seconds <= 2 + 2 * i + 0.5 + 2 * found.hop_seconds


def test_a_recording_read_in_pieces_is_the_same(place, monkeypatch) -> None:
    whole = da.stream(place / "artifact", recordings(place)).detections
    monkeypatch.setattr("dendrite_automl.streaming.recordings._TOGETHER", 3)
    assert da.stream(place / "artifact", recordings(place)).detections == pytest.approx(whole)


def test_detections_on_the_command_line(place, capsys) -> None:
    assert main(["stream", str(place / "artifact"), str(place / "0.wav"), "--smoothing", "2", "--refractory", "1"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()[1 : 1 + len(WORDS)]]
    assert [row[2] for row in rows] == WORDS
    assert "averages of 2, threshold 0.5, refractory time 1 s" in out
    assert "the threshold was not chosen on recordings" in err


def test_the_chosen_threshold_is_kept_and_the_artifact_still_verifies(place, capsys) -> None:
    arguments = ["stream", str(place / "artifact"), *map(str, recordings(place)), "--labels", str(place / "labels.csv")]
    assert main([*arguments, "--choose-threshold", "--false-accepts-per-hour", "100", "--hop", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    kept = json.loads((place / "artifact" / "artifact.json").read_text())["stream"]
    assert {name: kept[name] for name in said["settings"]} == said["settings"]
    assert kept["hop_frames"] == 2
    assert kept["chosen_on"]["recordings"] == ["0.wav", "1.wav"]
    assert kept["chosen_on"]["rates"][0]["false_accepts_per_hour"] <= 100
    assert str(place) not in json.dumps(kept)
    assert main(["verify", str(place / "artifact")]) == 0
    assert not [path for path in (place / "artifact").iterdir() if path.name.startswith(".")]
    again = da.stream(place / "artifact", recordings(place), place / "labels.csv")
    assert again.settings.to_json() == said["settings"]
    assert [rates.to_json() for rates in again.rates] == said["rates"]
    lower = da.stream(place / "artifact", recordings(place), threshold=0.9)
    assert (lower.settings.threshold, lower.settings.hop_frames) == (0.9, 2)


def test_what_cannot_be_written_leaves_the_artifact_as_it_was(place, monkeypatch) -> None:
    before = {path.name: path.read_bytes() for path in (place / "artifact").iterdir()}
    real = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name == ".SHA256SUMS.new":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(da.errors.AutoMLError, match="No space left"):
        da.stream(place / "artifact", recordings(place), place / "labels.csv", choose=True, false_accepts_per_hour=1e4)
    assert {path.name: path.read_bytes() for path in (place / "artifact").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav"], "expected a sound file, got one that cannot be read: missing"),
        (["text.wav"], "text.wav: expected a sound file"),
        (["fast.wav"], "expected 8,000 samples per second, as the network's features, got 16,000"),
        (["short.wav"], "expected at least one clip, 0.5 s, got 0.2 s"),
        (["0.wav", "0.wav"], "expected recordings with different names"),
        (["0.wav", "--hop", "0"], "hop: expected a whole number from 1"),
        (["0.wav", "--hop", "25"], "hop: expected at most the 24 frames of a clip, got 25"),
        (["0.wav", "--threshold", "1.5"], "threshold: expected a probability"),
        (["0.wav", "--refractory", "-1"], "refractory: expected 0 to 3600"),
        (["0.wav", "--background", "loud"], 'expected names among _background_noise_, high, low, got "loud"'),
        (["0.wav", "--background", "high,low,_background_noise_"], "expected at least one class that is a keyword"),
        (["0.wav", "--choose-threshold"], "expected --labels FILE.csv"),
        (["0.wav", "--false-accepts-per-hour", "2"], "expected together with --choose-threshold, got it alone"),
        (["0.wav", "--labels", "none.csv"], "expected a CSV file"),
        (["0.wav", "--labels", "columns.csv"], 'got no "label"'),
        (["0.wav", "--labels", "other.csv"], 'line 2: expected one of the recordings that are given, got "9.wav"'),
        (
            ["0.wav", "--labels", "class.csv"],
            'line 3: expected a class of the network (_background_noise_, high, low), got "hi"',
        ),
        (["0.wav", "--labels", "times.csv"], "line 2: expected 0 <= start < end"),
        (["0.wav", "--labels", "good.csv", "--choose-threshold", "--threshold", "0.5"], "got both"),
        (["0.wav", "--labels", "good.csv", "--choose-threshold", "--false-accepts-per-hour", "-1"], "expected a number >= 0"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(place, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(place)
    write_wave(place / "fast.wav", tone(300, 2, rate=16_000), rate=16_000)
    write_wave(place / "short.wav", tone(300, 0.2))
    (place / "text.wav").write_text("no sound")
    (place / "columns.csv").write_text("file,start,end\n")
    (place / "other.csv").write_text("file,start,end,label\n9.wav,1,2,high\n")
    (place / "class.csv").write_text("file,start,end,label\n0.wav,1,2,high\n0.wav,1,2,hi\n")
    (place / "times.csv").write_text("file,start,end,label\n0.wav,2,1,high\n")
    (place / "good.csv").write_text("file,start,end,label\n0.wav,1.5,2,high\n")
    before = {path.name: path.read_bytes() for path in (place / "artifact").iterdir()}
    assert main(["stream", "artifact", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert {path.name: path.read_bytes() for path in (place / "artifact").iterdir()} == before


def test_artifacts_that_do_not_suit(place, original, tmp_path) -> None:  # noqa: F811
    with pytest.raises(RequestError, match=r'for the task "digits" with inputs of 1 x 8 x 8 and no audio features'):
        da.stream(original, recordings(place))
    with pytest.raises(RequestError, match="expected the folder of an artifact"):
        da.stream(tmp_path, recordings(place))
    path = place / "artifact" / "artifact.json"
    good = json.loads(path.read_text())
    for change, error, message in (
        ({"format": 3}, RequestError, "expected format"),
        ({"stream": {"hop_frames": 4}}, ArtifactMismatch, "stream: expected the settings of a detector"),
        ({"stream": {**STREAM, "threshold": "high"}}, ArtifactMismatch, "expected a probability"),
    ):
        path.write_text(json.dumps({**good, **change}))
        write_seal(place / "artifact")
        with pytest.raises(error, match=message):
            da.stream(place / "artifact", recordings(place))


STREAM = {"hop_frames": 4, "smoothing": 3, "threshold": 0.5, "refractory_seconds": 1, "background": [], "network": "int8"}


def test_nan_in_a_recording(place) -> None:
    wave = tone(300, 2)
    wave[9000] = np.nan
    write_wave(place / "nan.wav", wave, subtype="FLOAT")
    with pytest.raises(RequestError, match="expected finite samples"):
        da.stream(place / "artifact", [place / "nan.wav"])


def test_without_a_background_all_classes_are_keywords(place) -> None:
    found = da.stream(place / "artifact", recordings(place), background=[])
    assert "no class counts as background" in found.notes[0]


def test_few_hours_cannot_show_few_false_accepts(place) -> None:
    found = da.stream(place / "artifact", recordings(place), place / "labels.csv", choose=True)
    assert any("hours are too few to show 1 false accepts per hour" in note for note in found.notes)
    assert found.rates[-1].false_accepts == 0


def test_names_of_backgrounds() -> None:
    labels = ["_background_noise_", "Unknown", "_silence_", "noise", "yes", "other", "unknown word"]
    assert default_background(labels) == ("_background_noise_", "Unknown", "_silence_", "noise", "other")


def test_rate_of_the_test_recordings(place) -> None:
    assert da.stream(place / "artifact", recordings(place)).hours == pytest.approx(2 * (1.5 + 6 * 2) / 3600)
    assert RATE == 8000
