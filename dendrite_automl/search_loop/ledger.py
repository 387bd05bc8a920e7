"""Ledger: what happened in a search. Every event is on disk before it is known here; on resume, the disk is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dendrite_automl.candidate import Candidate
from dendrite_automl.result import Ending, Snapshot
from dendrite_automl.run import Journal
from dendrite_automl.space import Point

Row = dict[str, Any]

# Of those that have reached a rung or the end of a stage, the latest, which a trial is compared with: a search gets better, so
# they are the stricter measure, and a decision takes the same time after 100,000 trials as after 300.
_MOST_RIVALS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How a trial did before its first snapshot: the objectives' values at an epoch, and the work so far."""

    epoch: int
    values: Row
    trained_macs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a candidate was repaired from: a point too large for the budget, and by how much."""

    candidate: str
    point: Point
    excess: Mapping[str, float]


class Ledger:
    """Trials, rungs, snapshots and endings of the search, and the work of each arm.

    Work is counted in multiply-accumulates (see `Measurement.trained_macs`); in epochs if the run was begun before they were
    counted. A running trial counts with what its epochs will take at its arm's mean, so that the arms stay level meanwhile.

    Args:
        arms: those that take part, including those added on resume.
        replicates: the number that each trial trains.

    Attributes:
        known: ids of all candidates that were started, refused, or replaced by a smaller one.
        unfinished: trials that were started and have not ended: those of an earlier session, those whose worker was lost.
        started: number of trials.
    """

    def __init__(self, journal: Journal, *, arms: Sequence[str], replicates: int) -> None:
        self._journal, self._replicates = journal, replicates
        run = journal.run
        self._snapshots: dict[str, list[Snapshot]] = {}
        for snapshot in run.snapshots():
            self._snapshots.setdefault(snapshot.candidate, []).append(snapshot)
        self._rungs: dict[str, dict[int, Rung]] = {}  # candidate -> epoch
        for line in run.of_kind("rung"):
            rung = Rung(epoch=line["epoch"], values=line["values"], trained_macs=line.get("trained_macs", 0))
            self._rungs.setdefault(line["candidate"], {})[rung.epoch] = rung
        self._running: dict[str, Candidate] = {}
        self._left: dict[str, int] = {}  # epochs that a running trial has still to train, of all replicates
        self._waiting = dict.fromkeys(arms, 0)  # their sum over the running trials of an arm
        self._rivals: dict[tuple[object, ...], dict[str, Row]] = {}  # by rung or stage, see below: the latest, by trial
        self._behind: dict[str, str] = {}
        trials = run.of_kind("trial")
        ended = {line["candidate"] for line in run.of_kind("end")}
        self.unfinished: list[tuple[Candidate, Point]] = []
        candidates = run.candidates()
        for line in trials:
            candidate = candidates[line["candidate"]]
            for rung in self._rungs.get(candidate.id, {}).values():
                self._take_in(_at_rung(candidate, rung.epoch), candidate.id, rung.values)
            if candidate.id not in ended:
                self.unfinished.append((candidate, line["point"]))
        for snapshot in run.snapshots():
            self._take_in(_at_stage(snapshot), snapshot.candidate, snapshot.values())
        self.known = {line["candidate"] for line in (*trials, *run.of_kind("refused"))}
        self.known |= {line["repaired_from"] for line in trials if "repaired_from" in line}
        self.started = len(trials)
        epochs, macs = run.trained_epochs(), run.trained_macs()
        self._epochs = {arm: epochs.get(arm, 0) for arm in arms}
        self._macs = {arm: macs.get(arm, 0) for arm in arms} if macs is not None else None

    def next_arm(self) -> str:
        """The arm with the least work."""
        waiting, done = self._waiting, self._macs or self._epochs
        work = {arm: done[arm] + self._macs_an_epoch(arm) * waiting[arm] for arm in self._epochs}
        return min(work, key=lambda arm: work[arm])

    def start(self, candidate: Candidate, point: Point, origin: Origin | None = None) -> None:
        """A new trial starts."""
        record = {"record": "trial", "candidate": candidate.id, "point": point, "value": candidate.to_json()}
        if origin is not None:
            record |= {"repaired_from": origin.candidate, "proposed": origin.point, "excess": dict(origin.excess)}
        self._journal.append(record)
        self.known |= {candidate.id, origin.candidate} if origin is not None else {candidate.id}
        self.started += 1
        self._run(candidate)

    def resume_next(self) -> tuple[Candidate, Point]:
        """The first unfinished trial runs again."""
        candidate, point = self.unfinished.pop(0)
        self._run(candidate)
        return candidate, point

    def refuse(self, candidate: Candidate, point: Point, excess: Mapping[str, float], reason: str) -> None:
        """A candidate cannot fit the budget and is never trained."""
        self.known.add(candidate.id)
        record = {"record": "refused", "candidate": candidate.id, "arm": candidate.arm, "point": point}
        self._journal.append({**record, "excess": dict(excess), "reason": reason})

    def add_rung(self, candidate: Candidate, rung: Rung) -> None:
        """A running trial has reached a rung."""
        place = {"candidate": candidate.id, "arm": candidate.arm, "epoch": rung.epoch}
        self._journal.append({"record": "rung", **place, "values": rung.values, "trained_macs": rung.trained_macs})
        self._rungs.setdefault(candidate.id, {})[rung.epoch] = rung
        self._take_in(_at_rung(candidate, rung.epoch), candidate.id, rung.values)

    def add_snapshot(self, snapshot: Snapshot, weights: bytes) -> None:
        """A running trial has finished a stage."""
        self._journal.append({"record": "snapshot", "value": snapshot.to_json()}, weights=weights)
        self._snapshots.setdefault(snapshot.candidate, []).append(snapshot)
        stages = self._running[snapshot.candidate].stages
        self._take_in(_at_stage(snapshot), snapshot.candidate, snapshot.values())
        epochs = stages[snapshot.stage].epochs * len(snapshot.seeds)
        self._epochs[snapshot.arm] += epochs
        self._waiting[snapshot.arm] -= epochs
        self._left[snapshot.candidate] -= epochs
        if self._macs is not None:
            before = next((s for s in self._snapshots[snapshot.candidate] if s.id == snapshot.base), None)
            earlier = before.measurement.trained_macs if before else 0
            self._macs[snapshot.arm] += (snapshot.measurement.trained_macs or 0) - (earlier or 0)

    def mark_behind(self, candidate: Candidate, where: str) -> None:
        """The scheduler has stopped a running trial."""
        self._behind[candidate.id] = where

    def behind(self, candidate: Candidate) -> str | None:
        """Where the scheduler stopped a trial; None if it did not."""
        return self._behind.get(candidate.id)

    def end(self, candidate: Candidate, ending: Ending, reason: str = "") -> None:
        """A trial is over; the work up to its last rung counts if it has no snapshot."""
        rungs = () if self.snapshots_of(candidate) else self.rungs_of(candidate)
        epochs, macs = (rungs[-1].epoch * self._replicates, rungs[-1].trained_macs) if rungs else (0, 0)
        record = {"record": "end", "candidate": candidate.id, "status": ending.value, "reason": reason}
        self._journal.append({**record, "epochs": epochs, "trained_macs": macs})
        self._epochs[candidate.arm] += epochs
        if self._macs is not None:
            self._macs[candidate.arm] += macs
        self.leave(candidate)

    def put_back(self, candidate: Candidate, point: Point) -> None:
        """A trial whose worker was lost waits to run again, from its last snapshot on."""
        self.leave(candidate)
        self.unfinished.append((candidate, point))

    def leave(self, candidate: Candidate) -> None:
        """A trial no longer runs; without an ending, the next session finds it unfinished."""
        del self._running[candidate.id]
        self._waiting[candidate.arm] -= self._left.pop(candidate.id)
        self._behind.pop(candidate.id, None)

    def running(self, candidate: str) -> Candidate | None:
        """The candidate with this id, if it is being searched at the moment."""
        return self._running.get(candidate)

    def snapshots_of(self, candidate: Candidate) -> list[Snapshot]:
        """A candidate's snapshots so far, in order."""
        return self._snapshots.get(candidate.id, [])

    def rungs_of(self, candidate: Candidate) -> list[Rung]:
        """A candidate's rungs so far, in order."""
        return list(self._rungs.get(candidate.id, {}).values())

    def others_at_rung(self, candidate: Candidate, epoch: int) -> list[Row]:
        """What the latest other trials of the arm with the same form had at a rung."""
        return self._others(_at_rung(candidate, epoch), candidate.id)

    def others_at_stage(self, snapshot: Snapshot) -> list[Row]:
        """What the latest other trials of the arm had after the same stage."""
        return self._others(_at_stage(snapshot), snapshot.candidate)

    def weights_of(self, snapshot: Snapshot) -> bytes:
        """The stored weights of a snapshot's replicates."""
        return self._journal.run.weights_path(snapshot.id).read_bytes()

    def _run(self, candidate: Candidate) -> None:
        self._running[candidate.id] = candidate
        self._left[candidate.id] = candidate.epochs * self._replicates - self._trained_by(candidate)
        self._waiting[candidate.arm] += self._left[candidate.id]

    def _take_in(self, place: tuple[object, ...], name: str, values: Row) -> None:
        reached = self._rivals.setdefault(place, {})
        reached[name] = values
        if len(reached) > _MOST_RIVALS + 1:  # the one that is judged is among them
            del reached[next(iter(reached))]

    def _others(self, place: tuple[object, ...], name: str) -> list[Row]:
        return [values for other, values in self._rivals.get(place, {}).items() if other != name]

    def _macs_an_epoch(self, arm: str) -> float:
        """Mean work of an arm's epochs; before it has any, that of all arms."""
        if self._macs is None:
            return 1.0
        arms = [arm] if self._epochs[arm] else list(self._epochs)
        return sum(self._macs[of] for of in arms) / max(1, sum(self._epochs[of] for of in arms)) or 1.0

    def _trained_by(self, candidate: Candidate) -> int:
        return sum(candidate.stages[s.stage].epochs * len(s.seeds) for s in self.snapshots_of(candidate))


def _at_rung(candidate: Candidate, epoch: int) -> tuple[object, ...]:
    """Where trials of one arm and form are compared."""
    return candidate.arm, "rung", epoch, candidate.form


def _at_stage(snapshot: Snapshot) -> tuple[object, ...]:
    """Where all trials of an arm are compared."""
    return snapshot.arm, "stage", snapshot.stage
