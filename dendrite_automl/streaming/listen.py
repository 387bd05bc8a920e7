"""`stream`: run an artifact over long recordings, count its errors, choose its threshold."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.features import FrontEnd, need_front_end
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.stream_cost import StreamCost, check_hop, count_cost
from dendrite_automl.errors import RequestError, Unsupported
from dendrite_automl.export.artifact.stream import NETWORKS, StreamOptions, StreamSettings, resolve_settings, write_stream
from dendrite_automl.export.artifact.verify import open_artifact
from dendrite_automl.export.onnx.run import run_onnx
from dendrite_automl.result import Snapshot
from dendrite_automl.streaming.detect import Detection, find_detections, smooth, softmax
from dendrite_automl.streaming.frames import window_features
from dendrite_automl.streaming.judge import ALL, Rates, choose_threshold, judge_stream
from dendrite_automl.streaming.recordings import read_recordings, read_windows, read_words


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What a detector found in recordings.

    Attributes:
        settings: that it ran with; `hop_seconds`: from one window to the next.
        rates: of each keyword and of all together; None without labels.
        kept: whether the settings were written into artifact.json.
        cost: RAM and MACs per second of the C code; None if it cannot be written.
        notes: what the reader should know of the figures.
    """

    artifact: str
    snapshot: str
    settings: StreamSettings
    hop_seconds: float
    recordings: tuple[str, ...]
    hours: float
    detections: tuple[Detection, ...]
    rates: tuple[Rates, ...] | None
    kept: bool
    cost: StreamCost | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "artifact": self.artifact,
            "snapshot": self.snapshot,
            "settings": self.settings.to_json(),
            "hop_seconds": self.hop_seconds,
            "recordings": list(self.recordings),
            "hours": self.hours,
            "detections": [asdict(one) for one in self.detections],
            "rates": None if self.rates is None else [one.to_json() for one in self.rates],
            "kept": self.kept,
            "cost": None if self.cost is None else self.cost.to_json(),
            "notes": list(self.notes),
        }


def stream(
    artifact: str | Path,
    recordings: Sequence[str | Path],
    labels: str | Path | None = None,
    *,
    choose: bool = False,
    false_accepts_per_hour: float | None = None,
    **options: Unpack[StreamOptions],
) -> StreamReport:
    """Run an audio artifact over long recordings: the Python form of `automl stream`.

    Args:
        artifact: its folder; its network was trained on recordings, or on the built-in keywords.
        recordings: WAV, FLAC, OGG or MP3 files at the rate of the features.
        labels: a CSV file with the columns file, start, end, label (seconds) that names every keyword that is said.
        choose: find the lowest threshold with at most `false_accepts_per_hour` (default 1) in these recordings, which then are
            validation data, and keep all settings in artifact.json, which is sealed again.
        options: `hop_frames`, `smoothing`, `threshold`, `refractory_seconds`, `background`, `network`; default: what the
            artifact keeps, else windows every 80 ms or the nearest number of frames, averages of 3, threshold 0.5, no second
            detection as long as the windows overlap, classes named as background, `float32`.

    Raises:
        RequestError: an artifact without audio features or of another format, a file that cannot be read, audio of another
            rate, labels that do not suit, or no threshold within the limit; nothing was written.
        ArtifactMismatch: a file of the artifact was changed.
    """
    folder = Path(artifact)
    description = open_artifact(folder)
    front = need_front_end(description, folder)
    class_names = [str(label) for label in description["labels"]]
    settings = resolve_settings(description, options, **front.times)
    check_hop(front, settings.hop_frames)
    keywords = settings.keywords(class_names)
    names = [class_names[i] for i in keywords]
    limit = _read_limit(choose, labels, options, false_accepts_per_hour)
    clip, hop = front.samples / front.rate, settings.hop_frames * front.hop / front.rate
    heads = read_recordings(recordings, front.rate, clip)
    words = None if labels is None else read_words(labels, heads, class_names)
    hours = sum(head.seconds for head in heads.values()) / 3600
    network = folder / NETWORKS[settings.network]
    scores = {
        path.name: smooth(_probabilities(path, network, front, settings.hop_frames), settings.smoothing)[:, keywords]
        for path in heads
    }

    def detect(threshold: float) -> list[Detection]:
        return [
            Detection(recording=name, seconds=clip + window * hop, label=names[which], score=float(of_file[window, which]))
            for name, of_file in scores.items()
            for window, which in find_detections(of_file, threshold, settings.refractory_hops(hop))
        ]

    reach = clip + (settings.smoothing - 1) * hop
    if choose and words is not None:
        settings = replace(settings, threshold=choose_threshold(detect, words, names, reach, limit * hours))
    found = detect(settings.threshold)
    cost, no_cost = _find_cost(network, front, settings, len(keywords))
    report = StreamReport(
        artifact=str(folder),
        snapshot=Snapshot.from_json(description["snapshot"]).id,
        settings=settings,
        hop_seconds=hop,
        recordings=tuple(scores),
        hours=hours,
        detections=tuple(found),
        rates=None if words is None else judge_stream(found, words, names, reach, hours),
        kept=choose,
        cost=cost,
        notes=(*_notes(settings, class_names, description, limit if choose else None, hours), *no_cost),
    )
    if choose:
        chosen = _chosen_on(report, Path(str(labels)).name, limit)
        kept = {**settings.to_json(), "chosen_on": chosen, "cost": None if cost is None else cost.to_json()}
        write_stream(folder, description, kept)
    return report


def _read_limit(choose: bool, labels: object, options: StreamOptions, limit: float | None) -> float:
    """False accepts per hour that a chosen threshold may have."""
    if not choose and limit is not None:
        raise RequestError("stream: false-accepts-per-hour: expected together with --choose-threshold, got it alone")
    if choose and labels is None:
        raise RequestError("stream: choose-threshold: expected --labels FILE.csv, which says what is said where; got none")
    if choose and options.get("threshold") is not None:
        raise RequestError("stream: expected --threshold or --choose-threshold, got both")
    limit = 1.0 if limit is None else limit
    if not 0 <= limit < float("inf"):
        raise RequestError(f"stream: false-accepts-per-hour: expected a number >= 0, got {limit}")
    return limit


def _probabilities(path: Path, network: Path, front: FrontEnd, hop_frames: int) -> NDArray[np.float64]:
    """Class probabilities of all windows of a recording, [N, classes]."""
    pieces = read_windows(path, front.samples, hop_frames * front.hop)
    parts = [softmax(run_onnx(network, window_features(front, wave, hop_frames))) for wave in pieces]
    return np.concatenate(parts)


def _find_cost(network: Path, front: FrontEnd, settings: StreamSettings, keywords: int) -> tuple[StreamCost | None, list[str]]:
    """What the detector costs in C, or a note on why it cannot be written in C."""
    try:
        return count_cost(lower(network), front, settings, keywords), []
    except Unsupported as error:
        return None, [f"no C code for this detector: {error}"]


def _notes(
    settings: StreamSettings, labels: Sequence[str], description: Mapping[str, Any], limit: float | None, hours: float
) -> list[str]:
    notes = []
    if not settings.background:
        notes.append(
            f"no class counts as background: {', '.join(labels)} are all keywords; name those that are not with --background"
        )
    if limit is None and description.get("stream") is None:
        notes.append("the threshold was not chosen on recordings; --choose-threshold with --labels does that")
    if limit is not None and limit * hours < 3:
        notes.append(
            f"{hours:.2g} hours are too few to show {limit:g} false accepts per hour or fewer: without any, "
            f"the 95 % interval still reaches {Rates.of('', 0, 0, 0, hours).false_accepts_per_hour_ci95[1]:.2g}"
        )
    return notes


def _chosen_on(report: StreamReport, labels: str, limit: float) -> dict[str, Any]:
    """What artifact.json says of the choice."""
    rates = report.rates or ()
    return {
        "recordings": list(report.recordings),
        "labels": labels,
        "hours": report.hours,
        "most_false_accepts_per_hour": limit,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rates": [one.to_json() for one in rates if one.label == ALL or len(rates) == 1],
    }
