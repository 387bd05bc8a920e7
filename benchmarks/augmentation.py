"""Which augmentation should be the default? Each setting on data of its kind, against none, from the same seeds.

The first published form of each default space (see designs.py), at 55 % of a budget of 2,000 parameters and with four seeds, is
trained on at most 2,000 examples of every data set, as long as a trial of a search. Shown is the mean validation accuracy minus
that without augmentation.

    python benchmarks/augmentation.py --cache DIR --minutes 30  # resumable, training by training; data: see data_sets.py
    python benchmarks/augmentation.py --render                  # the section of README.md from results/augmentation.jsonl only
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from designs import Training, effort_line, load_lines, parser, published, train_missing
from section import replace_section

RESULTS = Path(__file__).parent / "results" / "augmentation.jsonl"
REPLICATES, SHARE = 4, 0.55
SETS = {
    "auto_sequences": ("keywords", "spoken", "spoken_shared", "hapt", "watch", "mnist1d"),
    "auto_images": ("digits", "mnist5k", "fashion5k"),
}
_OFF = {"shift": 0, "noise": 0.0, "mixup": 0.0}
_SEQUENCE_OFF = {**_OFF, "time_mask": 0, "channel_mask": 0}
_IMAGE_OFF = {**_OFF, "flip": False, "cutout": 0}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "auto_sequences": {
        "none": {},
        "noise 0.1": {"noise": 0.1},
        "shift 3": {"shift": 3},
        "shift 3, noise 0.1": {"shift": 3, "noise": 0.1},
        "shift 6, noise 0.2": {"shift": 6, "noise": 0.2},
        "shift 3, noise 0.1, time mask 6": {"shift": 3, "noise": 0.1, "time_mask": 6},
        "shift 3, noise 0.1, channel mask 2": {"shift": 3, "noise": 0.1, "channel_mask": 2},
        "shift 3, noise 0.1, masks 6 and 2": {"shift": 3, "noise": 0.1, "time_mask": 6, "channel_mask": 2},
        "shift 3, noise 0.1, masks 10 and 3": {"shift": 3, "noise": 0.1, "time_mask": 10, "channel_mask": 3},
        "shift 6, noise 0.2, masks 6 and 2": {"shift": 6, "noise": 0.2, "time_mask": 6, "channel_mask": 2},
        "shift 3, noise 0.1, mixup 0.2, masks 6 and 2": {
            "shift": 3,
            "noise": 0.1,
            "mixup": 0.2,
            "time_mask": 6,
            "channel_mask": 2,
        },
        "shift 3, noise 0.1, mixup 0.2": {"shift": 3, "noise": 0.1, "mixup": 0.2},
    },
    "auto_images": {
        "none": {},
        "noise 0.05": {"noise": 0.05},
        "shift 1": {"shift": 1},
        "shift 1, noise 0.05": {"shift": 1, "noise": 0.05},
        "shift 2, noise 0.05": {"shift": 2, "noise": 0.05},
        "shift 1, noise 0.05, cutout 4": {"shift": 1, "noise": 0.05, "cutout": 4},
        "shift 1, noise 0.05, mixup 0.2": {"shift": 1, "noise": 0.05, "mixup": 0.2},
    },
}


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing(list(trainings()), RESULTS, asked)
    replace_section("augmentation", render(load_lines(RESULTS)))


def trainings() -> Iterator[Training]:
    """Every setting on every data set of its kind."""
    for space, names in SETS.items():
        point = json.dumps({**published(space)[0], "stages": "fit"})
        for data in names:
            for how in SETTINGS[space].values():
                settings = json.dumps(complete(space, how))
                yield Training(space=space, data=data, share=SHARE, point=point, replicates=REPLICATES, settings=settings)


def complete(space: str, how: dict[str, Any]) -> dict[str, Any]:
    """All augmentation knobs of a space, those that are not named switched off."""
    return {**(_SEQUENCE_OFF if space == "auto_sequences" else _IMAGE_OFF), **how}


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    out = []
    for space, names in SETS.items():
        plain = {line["data"]: line for line in lines if line["settings"] == complete(space, {})}
        there = [name for name in names if name in plain]
        if not there:
            continue
        out += [f"| `{space}`: points above none | {' | '.join(there)} | mean |", "|---|" + "--:|" * (len(there) + 1)]
        for label, how in SETTINGS[space].items():
            found = {line["data"]: line for line in lines if line["settings"] == complete(space, how)}
            if how and all(name in found for name in there):
                gains = [100 * (found[name]["val_accuracy"] - plain[name]["val_accuracy"]) for name in there]
                errors = [100 * math.hypot(found[n]["val_accuracy_se"] or 0, plain[n]["val_accuracy_se"] or 0) for n in there]
                cells = [f"{gain:+.1f} ± {error:.1f}" for gain, error in zip(gains, errors, strict=True)]
                out.append(f"| {label} | {' | '.join(cells)} | {statistics.fmean(gains):+.1f} |")
        shown = " | ".join(f"{100 * plain[name]['val_accuracy']:.1f} %" for name in there)
        out += [f"| none: accuracy | {shown} | |", ""]
    return "\n".join([*out, effort_line(lines)]) + "\n"


if __name__ == "__main__":
    main()
