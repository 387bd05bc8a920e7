"""How long does the export of a front take, and where does the time go?

`python benchmarks/export_speed.py` trains 20 networks of three families on the keywords task for a few epochs, puts them into
a run folder as if a search had found them, and exports it in three ways, in turn, each time in a new process:

- `one by one`: each network through torch's exporter on its own, fine-tuned ones once more, everything in one process (what
  `automl export` did before);
- `together`: ten networks in one run of the exporter, weights of fine-tuned ones put into the graphs that exist, one process;
- `helpers`: the same with the helper processes that the machine has cores for; the default.

All must write the same bytes. Writes results/export_speed.json and a section of README.md; takes five minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import joblib
import torch
from section import replace_section

import dendrite_automl as da
from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.export.onnx import graphs, int8, quantise
from dendrite_automl.measure import measure_cost
from dendrite_automl.networks.weights import save_weights
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.run import Journal, Run, RunInfo, create_run
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data, FitSettings, fit_

RESULTS = Path(__file__).parent / "results" / "export_speed.json"
SIDES, ROUNDS, EPOCHS = ("one by one", "together", "helpers"), 2, 6
DESIGNS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("sepconv1d", {"width": width, "kernel": kernel}) for width in (0.25, 0.5, 1.0, 1.5, 2.0) for kernel in (5, 9)),
    *(("ressep1d", {"channels": channels}) for channels in (3, 4, 5, 6, 8)),
    *(("dscnn", {"channels": channels}) for channels in (3, 4, 6, 8, 10)),
)


def main() -> None:
    """Make the run, export it in all ways, write the results."""
    if len(sys.argv) == 3:
        print(json.dumps(export(sys.argv[1], Path(sys.argv[2]))))
        return
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run")
        written = set()
        for _ in range(ROUNDS):
            for side in SIDES:
                command = [sys.executable, __file__, side, str(run.path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[side].append(json.loads(done.stdout))
                written.add(digest(run.path))
    if len(written) > 1:
        raise SystemExit("export_speed: the ways of exporting wrote different files")
    about: dict[str, Any] = {
        "load": os.getloadavg()[2],
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "members": len(DESIGNS),
    }
    result = {**about, "versions": {"torch": torch.__version__}, "runs": runs}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    replace_section("export_speed", render(result))


def make_run(path: Path) -> Run:
    """A run folder with 20 trained networks; their accuracies are made up, so that all of them are on the front."""
    task = load_task("keywords")
    data = Data.from_splits(task.train, task.val, len(task.classes))
    info = {
        "format": 2,
        "request": {"arms": ["baseline"], "objectives": "val_accuracy,params", "task": "keywords", "seed": 0, "front_size": 99},
        "space": {"name": "keywords_sepconv1d", "text": da.load_space("keywords_sepconv1d").text},
        "reference": {"val_accuracy": 0.1, "params": 1e6, "macs": 1e7},
        "budget": {},
        "data": {"name": task.name, "about": task.about, "sha256": task.fingerprint, "notes": []},
        "command": "benchmarks/export_speed.py",
        "versions": {},
        "created": date.today().isoformat(),
    }
    journal, made = Journal(create_run(path, RunInfo.from_json(info))), []
    for backbone, knobs in DESIGNS:
        torch.manual_seed(0)
        model = build_backbone(backbone, task.input_shape, len(task.classes), knobs)
        fit_(model, data, FitSettings(learning_rate=0.01), epochs=EPOCHS, seed=0)
        made.append((measure_cost(model, task.input_shape).params, backbone, knobs, model))
    for place, (_, backbone, knobs, model) in enumerate(sorted(made, key=lambda each: each[0])):
        cost = measure_cost(model, task.input_shape)
        design = Candidate(
            arm="baseline",
            space="benchmark",
            backbone=backbone,
            network=tuple(sorted(knobs.items())),
            training=(("learning_rate", 0.01),),
            stages=(Stage(op="fit", epochs=EPOCHS),),
        )
        costs = {name: getattr(cost, name) for name in ("params", "macs", "flash_bytes", "peak_ram_bytes")}
        accuracy = 0.5 + 0.01 * place
        snapshot = Snapshot(
            candidate=design.id,
            arm="baseline",
            stages=(0,),
            schedule="fit",
            dendrites=0,
            seeds=(0,),
            accuracies=(accuracy,),
            measurement=Measurement(**costs, val_accuracy=accuracy, trained_epochs=EPOCHS, train_seconds=1.0),
        )
        journal.append({"record": "trial", "candidate": design.id, "value": design.to_json()})
        journal.append({"record": "snapshot", "value": snapshot.to_json()}, weights=save_weights([model]))
    return journal.run


def export(side: str, path: Path) -> dict[str, Any]:
    """Export a run in this process; seconds in all, and of the parts that take most."""
    if side != "helpers":
        setattr(joblib, "cpu_count", lambda: 1)  # noqa: B010
    if side == "one by one":
        graphs._BATCH = 1
        setattr(quantise, "with_weights", lambda graph, old, new: None)  # noqa: B010
    parts: dict[str, float] = {}
    measure(parts, graphs, "_run_exporter")
    measure(parts, quantise, "finetune_int8")
    measure(parts, int8, "quantize_static")
    start = time.perf_counter()
    folders = da.export_run(path)
    seconds = time.perf_counter() - start
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in usage),
        "members": len(folders),
        "parts": parts,
        "fine_tuned": sum(made_by(folder)["epochs"] > 0 for folder in folders),
    }


def made_by(folder: Path) -> dict[str, Any]:
    """How the int8 file of an artifact was made."""
    found: dict[str, Any] = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))["int8"]
    return found


def measure(parts: dict[str, float], module: Any, name: str) -> None:
    """Add the seconds that a function takes to `parts`."""
    call: Callable[..., Any] = getattr(module, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - start

    setattr(module, name, timed)


def digest(run: Path) -> str:
    """SHA-256 over the names and hashes of all files of all artifacts."""
    seals = sorted((run / "artifacts").glob("*/SHA256SUMS"))
    return hashlib.sha256(b"".join(seal.parent.name.encode() + seal.read_bytes() for seal in seals)).hexdigest()


def render(result: dict[str, Any]) -> str:
    """The table."""
    first = result["runs"][SIDES[0]][0]
    head = (
        f"Measured on {result['date']}, {result['cores']} cores with a load of {result['load']:.1f} from other work: "
        f"{first['members']} members, {first['fine_tuned']} of them fine-tuned in int8; the slower of {ROUNDS} rounds "
        "in turn. The "
        "parts are those of the exporting process alone, of one round."
    )
    rows = [
        "| way | seconds | CPU seconds | torch's exporter | int8 fine-tuning | int8 calibration |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for side, runs in result["runs"].items():
        slower = max(runs, key=lambda run: run["seconds"])
        parts = [f"{slower['parts'].get(n, 0):.1f}" for n in ("_run_exporter", "finetune_int8", "quantize_static")]
        rows.append("| " + " | ".join([side, f"{slower['seconds']:.1f}", f"{slower['cpu_seconds']:.1f}", *parts]) + " |")
    return "\n".join([head, "", *rows])


if __name__ == "__main__":
    main()
