"""CPU time of dendrites_experiment.py: measured where the results file has a network, else from its multiply-accumulates."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dendrites_experiment_networks import PLAIN, SETTINGS, identity

if TYPE_CHECKING:
    from dendrites_experiment import Plan, Training

Line = dict[str, Any]
# Seconds of a core for 8 seeds, 32 epochs and 2,000 examples: at no MACs, and per 1,000 of them. Measured before the first run.
_SECONDS = {"conv2d": (24.0, 0.31), "ressep1d": (3.0, 0.44)}
_EXAMPLE_EPOCHS = 32 * 2000


class Clock:
    """How long trainings take."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._done = {(identity(line), line["first"]): line["cpu_seconds"] for line in lines}
        self._measured: dict[Any, list[float]] = defaultdict(list)
        ratios: dict[str, list[float]] = defaultdict(list)
        for line in lines:
            self._measured[identity(line)].append(line["cpu_seconds"])
            guess = _guess(line["data"], line["training_macs"], line["epochs"] * line["examples"])
            ratios[line["data"]].append(line["cpu_seconds"] / guess)
        self._ratios = {data: statistics.fmean(values) for data, values in ratios.items()}

    def done(self, training: Training) -> float | None:
        """CPU seconds that it took; None if it is to be done."""
        return self._done.get((identity(training.facts), training.first))

    def seconds(self, training: Training) -> float:
        """CPU seconds that it took or will take, by that of other seeds of the network or else of the data set."""
        done, others = self.done(training), self._measured.get(identity(training.facts))
        if done is not None or others:
            return done if done is not None else statistics.fmean(others or [])
        macs = training.network.costs["training_macs"]
        guess = _guess(training.data, macs, training.epochs * training.examples)
        return guess * self._ratios.get(training.data, 1.0)


def _guess(data: str, macs: int, example_epochs: int) -> float:
    least, per_thousand = _SECONDS[SETTINGS[data].family.backbone]
    return (least + per_thousand * macs / 1000) * example_epochs / _EXAMPLE_EPOCHS


def within(planned: Plan, lines: Sequence[Line], hours: float) -> list[Training]:
    """The first trainings of a plan that, with all that the results file has, take at most so many CPU hours."""
    clock = Clock(lines)
    used = sum(line["cpu_seconds"] for line in lines)
    new = (0.0 if clock.done(training) is not None else clock.seconds(training) for _, training in planned)
    totals = itertools.accumulate(new, initial=used)
    next(totals)
    return [training for (_, training), total in zip(planned, totals, strict=True) if total <= 3600 * hours]


def estimate(plans: Mapping[str, Plan], lines: Sequence[Line], hours: float) -> str:
    """CPU hours of each phase of both stages, and seconds per training in each cell."""
    clock, total = Clock(lines), 0.0
    out = [f"{'stage':13} {'phase':14} {'trainings':>9} {'done':>5} {'CPU hours':>9} {'in all':>7}"]
    for stage, planned in plans.items():
        for phase, group in itertools.groupby(planned, key=lambda step: step[0]):
            trainings = [training for _, training in group]
            need = sum(map(clock.seconds, trainings)) / 3600
            total += need
            done = sum(clock.done(training) is not None for training in trainings)
            out.append(f"{stage:13} {phase:14} {len(trainings):9} {done:5} {need:9.2f} {total:7.2f}")
        share = sum(clock.seconds(training) for _, training in planned if training.network.kind == PLAIN) / 3600
        kinds = {training.network.kind for _, training in planned} - {PLAIN}
        out.append(f"{stage:13} of that plain networks {share:.2f} CPU hours; kinds: {', '.join(sorted(kinds))}")
    out += ["", f"bound: {hours:g} CPU hours; used so far: {sum(line['cpu_seconds'] for line in lines) / 3600:.2f}"]
    out += ["", "CPU seconds per training of 8 seeds, in the screening: plain, with dendrites (* measured)"]
    cells: dict[Any, list[Training]] = defaultdict(list)
    for _, training in plans["screening"]:
        if training.size:
            cells[training.data, training.size].append(training)
    for (data, size), ours in cells.items():
        plain = [t for _, t in plans["screening"] if t.network in {of.plain for of in ours}]
        out.append(f"{data:10} {size:5,} {_mean(clock, plain)}, {_mean(clock, ours)}")
    return "\n".join(out)


def _mean(clock: Clock, trainings: Sequence[Training]) -> str:
    measured = all(clock.done(training) is not None for training in trainings)
    return f"{statistics.fmean(map(clock.seconds, trainings)):.0f}{'*' if measured else ''}"
