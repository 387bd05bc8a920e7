"""`automl stream`: detections in long recordings, or misses and false accepts where labels say what is said."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dendrite_automl.streaming.judge import Rates
    from dendrite_automl.streaming.listen import StreamReport


def stream(options: argparse.Namespace) -> int:
    """Run an artifact over recordings."""
    from dendrite_automl.streaming.listen import stream as run

    found = run(
        options.artifact,
        options.recordings,
        options.labels,
        choose=options.choose_threshold,
        false_accepts_per_hour=options.false_accepts_per_hour,
        hop_frames=options.hop,
        smoothing=options.smoothing,
        threshold=options.threshold,
        refractory_seconds=options.refractory,
        background=None if options.background is None else [name.strip() for name in options.background.split(",")],
        network="int8" if options.int8 else None,
    )
    if options.json:
        print(json.dumps(found.to_json()))
        return 0
    _print(found)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _print(found: StreamReport) -> None:
    from dendrite_automl.c99.stream_cost import describe_cost
    from dendrite_automl.report.table import print_rows

    settings = found.settings
    if found.rates is None:
        rows = [(d.recording, f"{d.seconds:.2f}", d.label, f"{d.score:.3f}") for d in found.detections]
        print_rows(("recording", "seconds", "class", "score"), rows)
    else:
        header = ("class", "said", "missed", "miss rate", "95 %", "false accepts", "per hour", "95 %")
        print_rows(header, [_row(rates) for rates in found.rates])
    files = len(found.recordings)
    print(
        f"\n{found.snapshot}, {settings.network}, on {files} recording{'' if files == 1 else 's'} of {found.hours:.3g} hours: "
        f"a window every {1000 * found.hop_seconds:.3g} ms, averages of {settings.smoothing}, threshold "
        f"{settings.threshold:.3g}, refractory time {settings.refractory_seconds:.3g} s"
    )
    if found.cost is not None:
        print("\n".join(["in C (`automl export ARTIFACT --c --stream`):", *describe_cost(found.cost)]))
    if found.kept:
        print(f"{found.artifact}/artifact.json keeps these settings; the recordings are validation data from now on")


def _row(rates: Rates) -> tuple[str, ...]:
    missed, accepts = rates.miss_rate_ci95, rates.false_accepts_per_hour_ci95
    return (
        rates.label,
        f"{rates.words:,}",
        f"{rates.misses:,}",
        "-" if rates.miss_rate is None else f"{rates.miss_rate:.1%}",
        "-" if missed is None else f"{missed[0]:.1%} to {missed[1]:.1%}",
        f"{rates.false_accepts:,}",
        f"{rates.false_accepts_per_hour:.3g}",
        f"{accepts[0]:.3g} to {accepts[1]:.3g}",
    )
