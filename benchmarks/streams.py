"""Does a detector need networks that were trained on windows with words anywhere in them (`--anywhere`)?

Keywords are the digits 0 to 4 of the Free Spoken Digit Dataset, the other digits are the class `unknown`; six speakers, all of
them in every split. One search has clips with a word in their middle, the other windows of 0.3 s more with words anywhere,
with as many training steps. Of both fronts, the most accurate network listens to the same streams: all words of a split, each
once, in random order, 0.2 to 2 s apart, with white noise 50 dB below full scale. The validation stream chooses the threshold,
the test stream gives the rates.

    python benchmarks/streams.py --cache DIR --spoken ZIP      # about 20 minutes on 2 cores; --repeats N for more searches
    python benchmarks/streams.py --render                      # the section of README.md from results/streams.jsonl only
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from data_sets import add_folder_flags, read_folders
from data_sources import read_recordings
from designs import load_lines
from section import replace_section

import dendrite_automl as da

RESULTS = Path(__file__).parent / "results" / "streams.jsonl"
RATE_HZ, BUDGET, TRIALS = 8000, "4k-params", 16
KEYWORDS = "01234"
VAL, TEST = range(5, 10), range(5)  # recordings of each digit and speaker; all others are for training
WINDOWS = 4  # of each recording
EPOCHS = {"clips": 40, "anywhere": 8}  # an epoch has 1 clip of each recording, or 4 windows and 1 without a whole word
FALSE_ACCEPTS_PER_HOUR = (5.0, 20.0)
_GAP_SECONDS, _NOISE = (0.2, 2.0), 10 ** (-50 / 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_flags(parser)
    parser.add_argument("--repeats", type=int, default=1, help="searches of each kind, with seeds 0, 1, …; default: 1")
    parser.add_argument("--render", action="store_true", help="only write the section, from the results file")
    asked = parser.parse_args()
    if not asked.render:
        folders = read_folders(asked)
        if folders.spoken is None:
            raise SystemExit("streams: --spoken: expected the recordings of the Free Spoken Digit Dataset, got none")
        with tempfile.TemporaryDirectory() as made:
            words = write_words(folders.spoken, Path(made) / "words")
            streams = {split: write_stream(words / split, Path(made), split) for split in ("val", "test")}
            for seed in range(asked.repeats):
                for way in EPOCHS:
                    if not any((line["way"], line["seed"]) == (way, seed) for line in load_lines(RESULTS)):
                        measure(way, seed, words, streams, folders.cache)
    replace_section("streams", render(load_lines(RESULTS)))


def write_words(place: Path, target: Path) -> Path:
    """The recordings as class folders in folders of splits."""
    for file, read in sorted(read_recordings(place)):
        if match := re.fullmatch(r"(\d)_[a-z]+_(\d+)\.wav", file):
            split = "val" if int(match[2]) in VAL else "test" if int(match[2]) in TEST else "train"
            path = target / split / (match[1] if match[1] in KEYWORDS else "unknown") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read())
    return target


def write_stream(words: Path, target: Path, name: str) -> tuple[Path, Path]:
    """One recording with all words of a split, and the CSV file that says which keyword is where."""
    rng = np.random.default_rng(0)
    files = sorted(words.glob("*/*.wav"))
    parts, rows, at = [np.zeros(RATE_HZ)], [], float(RATE_HZ)
    for i in rng.permutation(len(files)):
        wave, rate = soundfile.read(files[i])
        if rate != RATE_HZ:
            raise SystemExit(f"streams: {files[i].name}: expected {RATE_HZ} samples per second, got {rate}")
        rows.append((at / RATE_HZ, (at + len(wave)) / RATE_HZ, files[i].parent.name))
        gap = np.zeros(round(rng.uniform(*_GAP_SECONDS) * RATE_HZ))
        parts += [wave, gap]
        at += len(wave) + len(gap)
    stream = np.concatenate([*parts, np.zeros(RATE_HZ)])
    stream = np.clip(stream + _NOISE * rng.standard_normal(len(stream)), -1, 1)
    recording, labels = target / f"{name}.wav", target / f"{name}.csv"
    soundfile.write(recording, stream, RATE_HZ, subtype="PCM_16")
    with labels.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start", "end", "label"))
        writer.writerows((recording.name, start, end, label) for start, end, label in rows if label != "unknown")
    return recording, labels


def measure(way: str, seed: int, words: Path, streams: dict[str, tuple[Path, Path]], cache: Path) -> None:
    """One search, and the rates of its most accurate network; a line for each limit of false accepts."""
    out = cache / "searches" / f"streams-{way}-{seed}"
    run = da.search(
        data=str(words),
        rate=f"{RATE_HZ}Hz",
        anywhere=WINDOWS if way == "anywhere" else None,
        budget=BUDGET,
        objectives="val_accuracy,params",
        trials=TRIALS,
        epochs=EPOCHS[way],
        arms="baseline",
        front_size=3,
        seed=seed,
        out=out,
        resume=(out / "run.json").exists(),
    )
    best = run.front_rows()[0]
    artifact = run.path / best["artifact"]
    for limit in FALSE_ACCEPTS_PER_HOUR:
        chosen = da.stream(artifact, [streams["val"][0]], streams["val"][1], choose=True, false_accepts_per_hour=limit)
        found = da.stream(artifact, [streams["test"][0]], streams["test"][1])
        assert found.rates is not None
        line = {
            "way": way,
            "seed": seed,
            "limit": limit,
            "params": best["params"],
            "macs": best["macs"],
            "test_accuracy": best["test_accuracy"],
            "epochs": run.trained_epochs(),
            "threshold": chosen.settings.threshold,
            "hours": found.hours,
            "test": found.rates[-1].to_json(),
            "torch": torch.__version__,
            "version": da.__version__,
            "date": date.today().isoformat(),
        }
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    if not lines:
        return "Not measured yet.\n"
    hours = statistics.fmean(line["hours"] for line in lines)
    out = [
        f"Budget {BUDGET}, {TRIALS} trials a search; the test stream is {60 * hours:.0f} minutes long and holds "
        f"{lines[0]['test']['words']} keywords. In brackets 95 % intervals.",
        "",
        "| trained on | seed | parameters | own test accuracy | false accepts per hour allowed in validation | misses "
        "| false accepts per hour |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        test = line["test"]
        missed = f"{100 * test['miss_rate']:.1f} % ({_span([100 * end for end in test['miss_rate_ci95']])})"
        wrong = f"{test['false_accepts_per_hour']:.1f} ({_span(test['false_accepts_per_hour_ci95'])})"
        out.append(
            f"| {line['way']} | {line['seed']} | {line['params']:,} | {100 * line['test_accuracy']:.1f} % | {line['limit']:g} "
            f"| {missed} | {wrong} |"
        )
    return "\n".join([*out, "", f"torch {lines[-1]['torch']}, {max(line['date'] for line in lines)}."]) + "\n"


def _span(ends: Sequence[float]) -> str:
    return f"{ends[0]:.1f} to {ends[1]:.1f}"


if __name__ == "__main__":
    main()
