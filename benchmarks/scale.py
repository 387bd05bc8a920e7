"""How many workers can one driver keep busy, and how large can a run folder get? Both without training anything.

- Workers: the driver's real code (proposer, ledger, journal, decisions at rungs) serves simulated workers on a simulated clock.
  A trial takes 10 s there; the CPU time that the driver really takes for a proposal or a result goes by on the same clock, and
  workers wait meanwhile. Results are made up. The time that Ray Tune itself takes per trial, measured by throughput.py, is not
  in the simulation; what it would add is computed.
- Run folder: made-up trials, then what reads them, each in a process of its own: seconds and peak memory.

    python benchmarks/scale.py                  # everything
    python benchmarks/scale.py --only workers   # or: folder
    python benchmarks/scale.py --render         # the tables from results/scale.json only
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from section import replace_section

RESULTS = Path(__file__).parent / "results" / "scale.json"
SEED, TRIAL_SECONDS, GOAL, GOAL_WORKERS = 0, 10.0, 0.05, 500
WORKERS = (50, 100, 500, 1000)
TRIALS = 100_000
MOST_SECONDS = 300  # for one way of reading
READERS = ("Run.open", "tables", "automl show", "automl report", "automl watch", "resume")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="tables from the results file, run nothing")
    parser.add_argument("--only", choices=("workers", "folder"), help="measure only this again")
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)), help="numbers of simulated workers")
    parser.add_argument("--rounds", type=float, default=20.0, help="trials per simulated worker")
    parser.add_argument("--trials", type=int, default=TRIALS, help="made-up trials of the run folder")
    parser.add_argument("--read", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        what, folder = options.read
        if what == "make":
            make_folder(Path(folder), options.trials)
        else:
            read(what, folder)
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if not options.render:
        results |= {
            "date": date.today().isoformat(),
            "seed": SEED,
            "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 1),
            "versions": library_versions(),
        }
        if options.only != "folder":
            results["workers"] = []
            for workers in map(int, options.workers.split(",")):
                results["workers"].append(simulate(workers, round(options.rounds * workers)))
                keep(results)
        if options.only != "workers":
            results["folder"] = measure_folder(options.trials)
            keep(results)
    replace_section("scale", render(results))


def keep(results: dict[str, Any]) -> None:
    """After each part: a long measurement that is interrupted has not been for nothing."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Of what the driver's time depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "optuna", "scikit-learn", "numpy")}


def simulate(workers: int, trials: int) -> dict[str, Any]:
    """Share of the time that simulated workers wait for the driver, once each has had its first trial."""
    from throughput import made_up

    from dendrite_automl.candidate import Candidate
    from dendrite_automl.plan import make_plan
    from dendrite_automl.run import Journal, create_run
    from dendrite_automl.search_loop.halving import FrontHalving
    from dendrite_automl.search_loop.relay import Relay
    from dendrite_automl.search_loop.searcher import TrialSearcher
    from dendrite_automl.search_loop.stop import Stop

    plan = make_plan({"budget": "2k-params", "task": "keywords", "trials": trials, "seed": SEED})
    rng, order, stop = random.Random(SEED), count(), Stop()
    events: list[tuple[float, int, str, Any]] = [(0.0, next(order), "free", None) for _ in range(workers)]
    clock = waited = worked = filled = 0.0
    proposing, deciding = [], []
    started = 0
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", plan.new_info())
        searcher = TrialSearcher(plan, Journal(run), stopped=lambda: False)
        scheduler = FrontHalving(Relay(searcher, stop), searcher.ledger, plan.goal)
        while events and started < trials:
            when, _, kind, what = heapq.heappop(events)
            clock = max(clock, when)
            before = time.process_time()
            if kind == "free":  # the worker waits until the driver has a trial for it
                name = str(started)
                config = searcher.suggest(name)
                started += 1
                proposing.append(time.process_time() - before)
                clock += proposing[-1]
                if started == workers:
                    filled, waited, worked = clock, 0.0, 0.0
                waited += clock - when
                results = made_up(Candidate.from_json(json.loads(config["candidate"])), config, plan, rng)
                part = TRIAL_SECONDS / len(results)
                heapq.heappush(events, (clock + part, next(order), "result", (name, results, part)))
                continue
            name, results, part = what
            first, *later = results
            is_over = scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), first) == FrontHalving.STOP or not later
            if is_over:
                searcher.on_trial_complete(name, {"ending": "done"})
            deciding.append(time.process_time() - before)
            clock += deciding[-1]
            worked += part
            again = (clock, next(order), "free", None) if is_over else (when + part, next(order), "result", (name, later, part))
            heapq.heappush(events, again)
            if stop.error is not None:
                raise stop.error
    steady = proposing[workers:]
    row = {
        "workers": workers,
        "trials": started,
        "idle_share": round(waited / (waited + worked), 4),
        "seconds_until_all_work": round(filled, 2),
        "proposal_seconds": round(sum(steady) / max(1, len(steady)), 4),
        "results_seconds_per_trial": round(sum(deciding) / started, 4),
    }
    print(row, flush=True)
    return row


def measure_folder(trials: int) -> dict[str, Any]:
    """Seconds and peak memory of what reads a run folder, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        # in a process of its own, too: what is forked from a large one begins with its memory
        subprocess.run([sys.executable, __file__, "--trials", str(trials), "--read", "make", str(path)], check=True)
        size = sum(file.stat().st_size for file in path.glob("*.jsonl"))
        found: dict[str, Any] = {"trials": trials, "bytes": size, "readers": {}}
        for what in READERS:
            command = [sys.executable, __file__, "--read", what, str(path)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=MOST_SECONDS)
                found["readers"][what] = json.loads(done.stdout.splitlines()[-1])
            except subprocess.TimeoutExpired:
                found["readers"][what] = None
            print(what, found["readers"][what], flush=True)
        found["report_bytes"] = (path / "report.html").stat().st_size
    return found


def make_folder(path: Path, trials: int) -> None:
    """A finished search with made-up trials: two thirds stopped at a rung, the others with every snapshot of their schedule."""
    from dendrite_automl.plan import make_plan
    from dendrite_automl.run import Journal, create_run
    from dendrite_automl.run.finished import reported_front

    plan = make_plan({"budget": "2k-params", "task": "keywords", "trials": trials, "seed": SEED})
    run, rng = create_run(path, plan.new_info()), random.Random(SEED)
    with (path / "results.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(trials):
            for line in made_up_lines(plan, rng):
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
    run = type(run).open(path)
    rows = [
        {**row, "artifact": "", "test_accuracy": None, "test_accuracy_int8": None, "finished": None}
        for row in reported_front(run, plan.goal).members
    ]
    Journal(run).write_tables(rows)


def made_up_lines(plan: Any, rng: random.Random) -> list[dict[str, Any]]:
    """What a search records of one trial."""
    from dendrite_automl.candidate import make_candidate
    from dendrite_automl.result import Cost, Measurement, Snapshot

    point = plan.space.sample(rng)
    size = round(10 ** rng.uniform(0.5, 2), 3)
    arm = rng.choice(plan.arms)
    candidate = make_candidate(plan.space, plan.space.with_size(point, size), arm=arm, epochs=plan.effort.epochs)
    params = int(100 + 1900 * rng.random() ** 2)
    cost = Cost(params=params, macs=params * rng.randint(10, 40), flash_bytes=4 * params, peak_ram_bytes=2000 + 2 * params)
    accuracy = 1 - 5 / params**0.5 - abs(rng.gauss(0, 0.1))
    spent = 3000 * 3 * cost.macs
    lines: list[dict[str, Any]] = [
        {"record": "trial", "candidate": candidate.id, "point": point, "value": candidate.to_json()},
    ]
    values = {"val_accuracy": accuracy, "params": cost.params, "macs": cost.macs}
    place = {"candidate": candidate.id, "arm": arm}
    stopped = rng.random() < 2 / 3
    for epoch in (3, 10)[: rng.choice((1, 2)) if stopped else 2]:
        lines.append({"record": "rung", **place, "epoch": epoch, "values": values, "trained_macs": epoch * spent})
    for stage in range(0 if stopped else len(candidate.stages)):
        measured = Measurement(
            **cost.values(), val_accuracy=accuracy, trained_epochs=40, train_seconds=TRIAL_SECONDS, trained_macs=40 * spent
        )
        snapshot = Snapshot(
            candidate=candidate.id,
            arm=arm,
            stages=tuple(range(stage + 1)),
            schedule=" > ".join(str(s) for s in candidate.stages[: stage + 1]),
            dendrites=0,
            seeds=(rng.getrandbits(62), rng.getrandbits(62)),
            accuracies=(accuracy - 0.01, accuracy + 0.01),
            measurement=measured,
        )
        lines.append({"record": "snapshot", "value": snapshot.to_json()})
    ending = {"status": "stopped" if stopped else "done", "reason": "", "epochs": 10 * stopped, "trained_macs": 0}
    return [*lines, {"record": "end", "candidate": candidate.id, **ending}]


def read(what: str, folder: str) -> None:
    """One way of reading, in this process; prints its seconds, imports included, and the process's peak memory."""
    start = time.perf_counter(), time.process_time()
    if what.startswith("automl "):
        from dendrite_automl.cli.entry import main as automl

        automl([what.removeprefix("automl "), folder])
    else:
        read_in_python(what, folder)
    found = {
        "seconds": round(time.perf_counter() - start[0], 1),
        "cpu_seconds": round(time.process_time() - start[1], 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(f"\n{json.dumps(found)}")


def read_in_python(what: str, folder: str) -> None:
    """Run.open alone, the tables written again, or what a resume does before its first trial."""
    from dendrite_automl.run import Journal, Run

    if what == "resume":
        from dendrite_automl.plan import make_plan
        from dendrite_automl.search_loop.searcher import TrialSearcher

        plan = make_plan({"budget": "2k-params", "task": "keywords", "trials": TRIALS, "seed": SEED})
        run = Run.open(folder)
        with Journal(run).locked():
            TrialSearcher(plan, Journal(run), stopped=lambda: False)
        return
    run = Run.open(folder)
    if what == "tables":
        Journal(run).write_tables(run.front_rows())


def render(results: dict[str, Any]) -> str:
    """The tables for benchmarks/README.md."""
    ray = [row["ours"] for row in json.loads((RESULTS.parent / "throughput.json").read_text(encoding="utf-8"))["ray"]]
    low, high = (end(row["driver_cpu_seconds_per_trial"] for row in ray) for end in (min, max))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"Measured on {results['date']}, seed {results['seed']}, {versions}; load of other work {results['load']}.", ""]
    if "workers" in results:
        lines += [
            f"**Simulated workers**, trials of {TRIAL_SECONDS:.0f} s, made-up results, default sampler; the driver's own CPU "
            "time on the simulated clock. Idle: share of the workers' time, once each has had a first trial. Goal: at most "
            f"{GOAL:.0%} at {GOAL_WORKERS} workers.",
            "",
            "| workers | trials | all work after, s | proposal, ms | results of a trial, ms | idle | goal "
            "| driver alone, workers at most | with Ray |",
            "|--:|--:|--:|--:|--:|--:|---|--:|--:|",
        ]
        for row in results["workers"]:
            own = row["proposal_seconds"] + row["results_seconds_per_trial"]
            met = "met" if row["idle_share"] <= GOAL else "missed"
            most, least = (TRIAL_SECONDS / (own + end) for end in (low, high))
            lines.append(
                f"| {row['workers']:,} | {row['trials']:,} | {row['seconds_until_all_work']:.0f} "
                f"| {1e3 * row['proposal_seconds']:.0f} | {1e3 * row['results_seconds_per_trial']:.0f} "
                f"| {row['idle_share']:.1%} | {met} "
                f"| {TRIAL_SECONDS / own:.0f} | {least:.0f} to {most:.0f} |"
            )
        lines += [
            "",
            "The last columns are the trial's seconds divided by the driver's per trial: alone, and with the "
            f"{1e3 * low:.0f} to {1e3 * high:.0f} ms of CPU that throughput.py measured in the driver with Ray Tune, whose "
            "trials were fixed. Waiting for the disk, which each record is written to before the search goes on, is not "
            "in these figures.",
            "",
        ]
    if "folder" in results:
        folder = results["folder"]
        lines += [
            f"**A run folder of {folder['trials']:,} made-up trials**, {folder['bytes'] / 1e6:.0f} MB of records; "
            f"report.html has {folder['report_bytes'] / 1e6:.1f} MB. Each row is a process of its own, imports included.",
            "",
            "| what | seconds | of CPU | peak memory, MB |",
            "|---|--:|--:|--:|",
        ]
        for what, row in folder["readers"].items():
            figures = f"more than {MOST_SECONDS} | – | –"
            if row is not None:
                figures = f"{row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {row['peak_bytes'] / 1e6:.0f}"
            lines.append(f"| {what} | {figures} |")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    main()
