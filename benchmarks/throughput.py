"""How many trainings a core completes per minute: stacked replicates against a plain Ray Tune trainable.

Three questions, each answered side by side in one run:

- seed-trainings per CPU minute: our trainable (four replicates stacked, data in the object store, reused actors) against what
  you would write from Ray Tune's introduction: a function with a DataLoader loop that reports every epoch. Same networks,
  epochs, settings and augmentation; the mean validation accuracy of both is shown, because it has to be the same.
- the time of four stacked replicates against one plain eager training, without Ray: our own loop, and the DataLoader loop.
- what Ray and the driver cost: time per trial that is not spent inside it, once the workers are running; and what our searcher
  and scheduler take per trial on a real space (proposals, repairs, decisions, records on disk), with nothing trained.

    python benchmarks/throughput.py            # about 8 minutes on 2 quiet cores
    python benchmarks/throughput.py --driver   # the searcher's own time alone
    python benchmarks/throughput.py --render   # the tables from results/throughput.json only
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from section import replace_section
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage, trial_seed
from dendrite_automl.tasks import Task, load_task
from dendrite_automl.train.augment import Augmentation, augment
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_, fit_replicates_

RESULTS = Path(__file__).parent / "results" / "throughput.json"
REPLICATES, WORKERS, REPEATS, DRIVER_TRIALS = 4, 2, 3, 200
_KEYWORDS: dict[str, Any] = {"learning_rate": 0.01, "batch_size": 64, "weight_decay": 0.01, "shift": 3, "noise": 0.1}
_DIGITS: dict[str, Any] = {"learning_rate": 0.01, "batch_size": 32, "weight_decay": 0.01, "noise": 0.05}
# name: task, backbone, knobs, settings, epochs, goal for seed-trainings per CPU minute
NETWORKS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], int, float]] = {
    "sepconv1d, width 1": ("keywords", "sepconv1d", {"width": 1.0}, _KEYWORDS, 30, 10.0),
    "sepconv1d, width 2": ("keywords", "sepconv1d", {"width": 2.0}, _KEYWORDS, 30, 10.0),
    "conv2d, 4 filters": ("keywords", "conv2d", {"filters": 4}, _KEYWORDS, 30, 5.0),
    "conv2d, 8 filters": ("keywords", "conv2d", {"filters": 8}, _KEYWORDS, 30, 5.0),
    "conv2d on 8 x 8, 6 filters": ("digits", "conv2d", {"filters": 6, "blocks": 2}, _DIGITS, 30, 5.0),
}
STACKED_GOAL, OVERHEAD_GOAL = 1.3, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="tables from the results file, run nothing")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="only some, to try it out: nothing is written then")
    parser.add_argument("--driver", action="store_true", help="measure only the searcher's own time again")
    options = parser.parse_args()
    if options.driver:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) | {"driver": measure_driver()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    chosen = [name for name in NETWORKS if name in options.networks]
    if not (options.render or options.driver):
        results = {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "workers": WORKERS,
            "replicates": REPLICATES,
            "stacked": [measure_stacked(name) for name in chosen],
            "ray": measure_ray(chosen),
            "driver": measure_driver(),
        }
        if len(chosen) < len(NETWORKS):
            json.dump(results, sys.stdout, indent=1)
            return
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    replace_section("throughput", render(json.loads(RESULTS.read_text(encoding="utf-8"))))


def measure_stacked(name: str) -> dict[str, Any]:
    """CPU seconds of one eager training, one with a DataLoader, and four stacked; medians over several rounds in turn."""
    torch.set_num_threads(1)
    task, backbone, knobs, values, epochs, _ = NETWORKS[name]
    data, settings = load(load_task(task)), FitSettings(**values)
    epochs = max(2, epochs // 10)

    def build(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return build_backbone(backbone, data.input_shape, data.classes, knobs)

    def stacked() -> None:
        for _ in fit_replicates_([build(r) for r in range(REPLICATES)], data, settings, epochs=epochs, seed=0):
            pass

    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: fit_(build(0), data, settings, epochs=epochs, seed=0),
        "dataloader": lambda: train_plainly(build(0), data, settings, epochs, seed=0),
        "stacked": stacked,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(REPEATS):
        for way, train in ways.items():
            start = time.process_time()
            train()
            seconds[way].append(time.process_time() - start)
    row = {way: round(statistics.median(values), 3) for way, values in seconds.items()}
    print(name, row, flush=True)
    return {"network": name, "epochs": epochs, **row}


def train_plainly(
    model: torch.nn.Module, data: Data, settings: FitSettings, epochs: int, seed: int, report: Callable[[float], object] = print
) -> None:
    """The textbook loop: a DataLoader, the stock optimizer, accuracy after every epoch."""
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=settings.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=epochs * len(loader), pct_start=0.1, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            x = augment(x, Augmentation(shift=settings.shift, noise=settings.noise), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        found = accuracy(model, data.x_val, data.y_val)
        if report is not print:
            report(found)


def measure_ray(names: list[str]) -> list[dict[str, Any]]:
    """Both ways under Ray Tune, one after the other for each network."""
    from dendrite_automl.search_loop.ray_process import new_ray_folder, ray_for, remove_ray

    folder = new_ray_folder()
    rows = []
    try:
        with ray_for(folder, WORKERS):
            for name in names:
                rows.append({"network": name, "plain": run_plain(name, folder), "ours": run_ours(name, folder)})
                print(rows[-1], flush=True)
    finally:
        remove_ray(folder)
    return rows


def run_plain(name: str, folder: Path) -> dict[str, Any]:
    """One function trainable per seed."""
    from ray import tune

    task = load_task(NETWORKS[name][0])
    trials = 3 * WORKERS
    start = time.perf_counter()
    found = tune.Tuner(
        tune.with_parameters(plain_trainable, task=task),
        param_space={"network": name, "seed": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=WORKERS),
        run_config=tune.RunConfig(name="plain", storage_path=tempfile.mkdtemp(dir=folder), verbose=0),
    ).fit()
    seconds = time.perf_counter() - start
    accuracies = [result.metrics["val_accuracy"] for result in map(found.__getitem__, range(len(found))) if result.metrics]
    return _rate(trials, seconds, accuracies)


def plain_trainable(config: dict[str, Any], task: Task) -> None:
    """The function that Ray Tune calls for each seed."""
    from ray import tune

    _, backbone, knobs, values, epochs, _ = NETWORKS[config["network"]]
    data = load(task)
    torch.manual_seed(config["seed"])
    model = build_backbone(backbone, data.input_shape, data.classes, knobs)
    settings = FitSettings(**values)
    train_plainly(model, data, settings, epochs, config["seed"], lambda found: tune.report({"val_accuracy": found}))


def run_ours(name: str, folder: Path) -> dict[str, Any]:
    """Our trainable: each trial trains four replicates."""
    from ray import tune
    from ray.tune.search import Searcher

    from dendrite_automl.search_loop.trainable import TrialTrainable

    task_name, backbone, knobs, values, epochs, _ = NETWORKS[name]
    task = load_task(task_name)
    candidate = Candidate(
        arm="baseline",
        space="throughput",
        backbone=backbone,
        network=tuple(knobs.items()),
        training=tuple(values.items()),
        stages=(Stage(op="fit", epochs=epochs),),
    )
    trials = 4 * WORKERS
    accuracies: list[float] = []
    inside: list[float] = []
    ends: list[tuple[float, float]] = []

    class Fixed(Searcher):
        asked = 0

        def suggest(self, trial_id: str) -> Any:
            if self.asked == trials:
                return Searcher.FINISHED
            self.asked += 1
            seeds = [trial_seed(self.asked, candidate.id, r) for r in range(REPLICATES)]
            return {"candidate": json.dumps(candidate.to_json()), "seeds": seeds, "done": "[]", "weights": b"", "rungs": []}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if "snapshot" in result:
                snapshot = json.loads(result["snapshot"])
                accuracies.extend(snapshot["accuracies"])
                inside.append(snapshot["measurement"]["train_seconds"])

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            ends.append((time.perf_counter(), time.process_time()))

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

        def __getstate__(self) -> dict[str, Any]:
            return {}

    trainable = tune.with_parameters(TrialTrainable, train=task.train, val=task.val, classes=len(task.classes), device=None)
    start = time.perf_counter()
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=Fixed(), num_samples=-1, max_concurrent_trials=WORKERS, reuse_actors=True),
        run_config=tune.RunConfig(name="ours", storage_path=tempfile.mkdtemp(dir=folder), verbose=0),
    ).fit()
    seconds = time.perf_counter() - start
    # After its first trial a worker does nothing but trials: time that is not inside them is overhead.
    (first, cpu_first), (last, cpu_last) = ends[WORKERS - 1], ends[-1]
    return _rate(trials * REPLICATES, seconds, accuracies) | {
        "seconds_inside_a_trial": round(statistics.fmean(inside[WORKERS:]), 3),
        "seconds_per_trial": round(WORKERS * (last - first) / (trials - WORKERS), 3),
        "driver_cpu_seconds_per_trial": round((cpu_last - cpu_first) / (trials - WORKERS), 4),
    }


def measure_driver() -> dict[str, Any]:
    """CPU seconds that searcher and scheduler take per trial of a search whose trainings are made up."""
    from dendrite_automl.plan import make_plan
    from dendrite_automl.run import Journal, create_run
    from dendrite_automl.search_loop.halving import FrontHalving
    from dendrite_automl.search_loop.relay import Relay
    from dendrite_automl.search_loop.searcher import TrialSearcher
    from dendrite_automl.search_loop.stop import Stop

    plan = make_plan({"budget": "2k-params", "task": "keywords", "trials": DRIVER_TRIALS})
    rng = random.Random(0)
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", plan.new_info())
        searcher = TrialSearcher(plan, Journal(run), stopped=lambda: False)
        scheduler = FrontHalving(Relay(searcher, Stop()), searcher.ledger, plan.goal)
        for number in range(DRIVER_TRIALS):
            start = time.process_time()
            config = searcher.suggest(str(number))
            seconds = time.process_time() - start
            results = made_up(Candidate.from_json(json.loads(config["candidate"])), config, plan, rng)
            start = time.process_time()
            for result in results:
                if scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(number)), result) == FrontHalving.STOP:
                    break
            searcher.on_trial_complete(str(number), {"ending": "done"})
            spent.append(seconds + time.process_time() - start)
    return {
        "trials": DRIVER_TRIALS,
        "cpu_seconds_per_trial": round(statistics.fmean(spent), 4),
        "cpu_seconds_per_trial_last_quarter": round(statistics.fmean(spent[-DRIVER_TRIALS // 4 :]), 4),
        "proposed_more": len(run.of_kind("refused")),
    }


def made_up(candidate: Candidate, config: dict[str, Any], plan: Any, rng: random.Random) -> list[dict[str, Any]]:
    """Results of a trial as its worker would report them, with true costs and an accuracy that grows with the size."""
    from dendrite_automl.errors import CandidateFailed
    from dendrite_automl.feasibility.estimate import estimate_costs
    from dendrite_automl.result import Measurement, Snapshot

    try:
        costs = estimate_costs(candidate, plan.task.input_shape, len(plan.task.classes))
    except CandidateFailed as error:
        return [{"ending": "failed", "reason": str(error)}]
    results: list[dict[str, Any]] = []
    for stage, cost in enumerate(costs):
        accuracy = 1 - 5 / cost.params**0.5 + rng.gauss(0, 0.01)
        snapshot = Snapshot(
            candidate=candidate.id,
            arm=candidate.arm,
            stages=tuple(range(stage + 1)),
            schedule=" > ".join(str(s) for s in candidate.stages[: stage + 1]),
            dendrites=0,
            seeds=tuple(config["seeds"]),
            accuracies=(accuracy,) * REPLICATES,
            measurement=Measurement(
                **asdict(cost), val_accuracy=accuracy, trained_epochs=10, train_seconds=1.0, trained_macs=1000 * cost.macs
            ),
        )
        if stage == 0:
            results += [{**asdict(snapshot.measurement), "rung": epoch, "candidate": candidate.id} for epoch in config["rungs"]]
        results.append({"snapshot": json.dumps(snapshot.to_json()), "weights": bytes(4 * cost.params * REPLICATES)})
    return results


def _rate(trainings: int, seconds: float, accuracies: list[float]) -> dict[str, Any]:
    return {
        "seed_trainings": trainings,
        "seconds": round(seconds, 2),
        "per_cpu_minute": round(60 * trainings / (WORKERS * seconds), 2),
        "val_accuracy": round(statistics.fmean(accuracies), 4),
        "val_accuracy_se": round(statistics.stdev(accuracies) / len(accuracies) ** 0.5, 4),
    }


def load(task: Task) -> Data:
    """Tensors of the training and validation split."""
    return Data.from_splits(task.train, task.val, len(task.classes))


def render(results: dict[str, Any]) -> str:
    """The tables for benchmarks/README.md."""
    lines = [
        f"Measured on {results['date']}, torch {results['torch']}, {results['workers']} workers with one thread each, "
        f"{results['replicates']} replicates.",
        "",
        "**Seed-trainings per CPU minute** under Ray Tune, 30 epochs each, worker start-up included.",
        "",
        "| network | plain: function, DataLoader | ours: stacked | ratio | goal | validation accuracy, plain | ours |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for row in results["ray"]:
        plain, ours, goal = row["plain"], row["ours"], NETWORKS[row["network"]][5]
        ratio = ours["per_cpu_minute"] / plain["per_cpu_minute"]
        lines.append(
            f"| {row['network']} | {plain['per_cpu_minute']:.1f} | {ours['per_cpu_minute']:.1f} | {ratio:.1f} | "
            f"{goal:.0f}: {'met' if ratio >= goal else 'missed'} | {_percent(plain)} | {_percent(ours)} |"
        )
    lines += [
        "",
        f"**Four stacked replicates against one eager training** (CPU time, no Ray). Goal: at most {STACKED_GOAL} times.",
        "",
        "| network | eager, s | DataLoader loop, s | four stacked, s | stacked / eager | stacked / DataLoader | goal |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in results["stacked"]:
        ratio = row["stacked"] / row["eager"]
        lines.append(
            f"| {row['network']} | {row['eager']:.2f} | {row['dataloader']:.2f} | {row['stacked']:.2f} | {ratio:.2f} | "
            f"{row['stacked'] / row['dataloader']:.2f} | {'met' if ratio <= STACKED_GOAL else 'missed'} |"
        )
    lines += [
        "",
        f"**Overhead of Ray and the driver**, workers running. Goal: at most {OVERHEAD_GOAL:.0%} of five-second trials.",
        "",
        "| network | seconds inside a trial | seconds per trial | overhead, s | of five seconds | goal | driver's CPU, s |",
        "|---|--:|--:|--:|--:|---|--:|",
    ]
    for row in results["ray"]:
        ours = row["ours"]
        overhead = ours["seconds_per_trial"] - ours["seconds_inside_a_trial"]
        lines.append(
            f"| {row['network']} | {ours['seconds_inside_a_trial']:.2f} | {ours['seconds_per_trial']:.2f} | {overhead:.2f} | "
            f"{overhead / 5:.1%} | {'met' if overhead / 5 <= OVERHEAD_GOAL else 'missed'} | "
            f"{ours['driver_cpu_seconds_per_trial']:.2f} |"
        )
    driver = results["driver"]
    lines += [
        "",
        f"Our searcher and scheduler take {1e3 * driver['cpu_seconds_per_trial']:.0f} ms of CPU per trial of keywords in the "
        f"default space (mean of {driver['trials']} trials, nothing trained; "
        f"{1e3 * driver['cpu_seconds_per_trial_last_quarter']:.0f} ms in the last quarter): proposal, costs, repair, decisions "
        "at rungs, records on disk. One driver serves all workers.",
    ]
    return "\n".join(lines)


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['val_accuracy']:.1f} ± {100 * row['val_accuracy_se']:.1f}"


if __name__ == "__main__":
    import throughput  # as a module, which Ray's workers can import: not everything in __main__ can be sent to them

    throughput.main()
