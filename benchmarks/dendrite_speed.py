"""How much time dendrites cost: the dendrite phase from its cache, and a training step with dendrites.

Questions, on the conv2d keywords network (filters 4: 1,214 parameters; filters 8: 4,150):

- phase: how much faster are 10 epochs of `train_dendrites_` by default (from the cache, on a sample of positions), and from the
  cache on all positions, than without a cache on all positions (`cache_bytes=0, positions=None`)? And than a plain version
  without a cache, in which autograd differentiates the correlation? Goal: the default 5 times faster than without a cache.
- correlation: what do dendrites trained by default and on all positions reach on a trained network, over all positions?
- layer: one step (forward, backward, AdamW; batch 64) of a layer with D dendrite sets against a plain layer with as many
  weights, which has (1 + D) times the output channels. Goal: at most 1.25 times.
- network: one step of the network with D sets per layer against the plain conv2d network with the nearest MACs.
- peer: the same step with one set on the convolutions in `perforatedai` (open version: dendrites learn by back-propagation).

Each figure is a median of processor times on one thread; whatever is compared takes turns within one process, so that noise
hits all alike. Writes results/dendrite_speed.json and updates the section in benchmarks/README.md.

    python benchmarks/dendrite_speed.py            # about 15 minutes of one core
    python benchmarks/dendrite_speed.py --peer DIR # DIR: where `pip install --no-deps --target DIR perforatedai` put the peer
    python benchmarks/dendrite_speed.py --render   # the section only, from the results file
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers, train_dendrites_
from dendrite_automl.dendrites.layer import ACTIVATIONS, Growable
from dendrite_automl.dendrites.phase import POSITIONS
from dendrite_automl.dendrites.sums import Sums
from dendrite_automl.dendrites.tape import iterate, record_errors
from dendrite_automl.measure import count_macs, folded_copy
from dendrite_automl.tasks import load_task

RESULTS = Path(__file__).parent / "results" / "dendrite_speed.json"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- dendrite_speed: written by benchmarks/dendrite_speed.py -->", "<!-- end of dendrite_speed -->"
SHAPE, CLASSES, SEED = (13, 50), 6, 0
FILTERS, PLACEMENTS, SETS, TIMED_KINDS = (4, 8), ("head", "convs", "all"), (1, 2, 3), ("gradient", "perforated")
EPOCHS, PHASE_BATCH, STEP_BATCH = 10, 512, 64
PHASE_REPEATS, STEP_REPEATS = 3, 60
CORRELATED_KINDS, CORRELATED_SEEDS = ("perforated", "low_rank", "subset", "pool"), (0, 1, 2)
TRAINING_EPOCHS, TRAINING_RATE = 6, 0.005  # before dendrites whose correlation is measured: to about 85 %
PHASE_GOAL, STEP_GOAL = 5.0, 1.25
# name -> the layer, its input without the batch; convolutions as in the networks with 4 and 8 filters
LAYERS: dict[str, tuple[Callable[[int], Growable], tuple[int, ...]]] = {
    "conv 1-8": (lambda times: nn.Conv2d(1, 8 * times, 3, padding=1), (1, 13, 50)),
    "conv 4-8": (lambda times: nn.Conv2d(4, 8 * times, 3, padding=1), (4, 6, 25)),
    "conv 8-16": (lambda times: nn.Conv2d(8, 16 * times, 3, padding=1), (8, 6, 25)),
    "conv 16-16": (lambda times: nn.Conv2d(16, 16 * times, 3, padding=1), (16, 3, 12)),
    "linear 96-6": (lambda times: nn.Linear(96, 6 * times), (96,)),
}
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="DIR", help="folder with an installed perforatedai")
    parser.add_argument("--render", action="store_true", help="update benchmarks/README.md from the results file, run nothing")
    options = parser.parse_args()
    if not options.render:
        RESULTS.write_text(json.dumps(measure(options.peer), indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    README.write_text(before + BEGIN + "\n" + render(result) + END + after, encoding="utf-8")


def measure(peer: Path | None) -> dict[str, Any]:
    """All measurements."""
    torch.set_num_threads(1)
    train = load_task("keywords").train
    x, y = torch.from_numpy(train.x.copy()), torch.from_numpy(train.y.copy())
    return {
        "date": date.today().isoformat(),
        "seed": SEED,
        "threads": 1,
        "clock": "processor time",
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "examples": len(x),
        "positions": POSITIONS,
        "phase": [measure_phase(x, y, filters, placement) for filters in FILTERS for placement in PLACEMENTS],
        "correlation": [row for filters in FILTERS for row in measure_correlations(x, y, filters)],
        "layer": [measure_layer(name, sets) for name in LAYERS for sets in SETS],
        "network": [measure_network(x, y, f, placement, sets) for f in FILTERS for placement in PLACEMENTS for sets in SETS],
        "peer": measure_peer(x, y, peer),
    }


def take_turns(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median processor time of each step in ms; every repetition runs all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat:  # the first warms up
                times[name].append(1e3 * (time.process_time() - start))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def measure_phase(x: Tensor, y: Tensor, filters: int, placement: str) -> dict[str, Any]:
    """Ten epochs of the dendrite phase of one perforated set."""

    def run(phase: Callable[[nn.Module], object]) -> None:
        phase(grow(filters, "perforated", placement, 1))

    train = partial(train_dendrites_, data=(x, y), loss_fn=F.cross_entropy, epochs=EPOCHS)
    steps: dict[str, Step] = {
        "default": partial(run, train),
        "all_positions": partial(run, partial(train, positions=None)),
        "uncached": partial(run, partial(train, positions=None, cache_bytes=0)),
        "plain": partial(run, lambda model: train_plainly_(model, x, y)),
    }
    times = take_turns(steps, PHASE_REPEATS)
    ratios = {f"uncached_to_{name}": times["uncached"] / times[name] for name in ("default", "all_positions")}
    ratios["plain_to_default"] = times["plain"] / times["default"]
    return {"filters": filters, "placement": placement, "ms": times, **rounded(ratios)}


def measure_correlations(x: Tensor, y: Tensor, filters: int) -> list[dict[str, Any]]:
    """Correlation that one set reaches on a trained network, over all positions; each seed gives a network and dendrites."""
    networks = {seed: train_backbone(x, y, filters, seed) for seed in CORRELATED_SEEDS}
    rows = []
    for kind in CORRELATED_KINDS:
        for placement in PLACEMENTS:
            found: dict[str, list[float]] = {"default": [], "all_positions": []}
            for seed, network in networks.items():
                for name, positions in (("default", POSITIONS), ("all_positions", None)):
                    model = copy.deepcopy(network)
                    torch.manual_seed(seed)
                    add_dendrites_(model, kind=kind, placement=placement)
                    train_dendrites_(model, (x, y), F.cross_entropy, epochs=EPOCHS, positions=positions)
                    found[name].append(round(correlation_over_all_positions(model, x, y), 4))
            rows.append({"filters": filters, "kind": kind, "placement": placement, "correlation": found})
    return rows


def train_backbone(x: Tensor, y: Tensor, filters: int, seed: int) -> nn.Module:
    """The plain network after a short training, in evaluation mode."""
    model = backbone(filters, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=TRAINING_RATE)
    for _ in range(TRAINING_EPOCHS):
        for inputs, targets in iterate((x, y), STEP_BATCH, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def correlation_over_all_positions(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean of the layers' mean magnitude of the correlation between the newest dendrites and their neurons' errors."""
    layers = dendritic_layers(model)
    sums = {name: Sums() for name in layers}
    for inputs, targets in iterate((x, y), PHASE_BATCH):
        for name, seen in record_errors(model, list(layers), inputs, targets, F.cross_entropy).items():
            layer = layers[name]
            owners = dict(layer.named_buffers(recurse=False)).get(f"owners_{len(layer.dendrites) - 1}")
            error = seen.error if owners is None else seen.error.index_select(layer.channel_axis, owners)
            sums[name].add(layer.dendrite_outputs(seen.x)[-1], error, layer.channel_axis)
    return statistics.mean(total.correlation().mean().item() for total in sums.values())


def train_plainly_(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The dendrite phase as you would first write it: the whole network for every batch, all gradients by autograd."""
    layers = dendritic_layers(model)
    optimizer = torch.optim.Adam([p for layer in layers.values() for p in layer.dendrites[-1].parameters()], lr=0.05)
    for epoch in range(EPOCHS):
        for inputs, targets in iterate((x, y), PHASE_BATCH, shuffle=epoch > 0):
            scores = []
            for name, seen in record_errors(model, list(layers), inputs, targets, F.cross_entropy).items():
                layer = layers[name]
                a = ACTIVATIONS[layer.activation](layer.dendrites[-1](seen.x)).movedim(layer.channel_axis, 0).flatten(1)
                e = seen.error.movedim(layer.channel_axis, 0).flatten(1)
                a, e = a - a.mean(1, keepdim=True), e - e.mean(1, keepdim=True)
                scores.append(((a * e).sum(1).abs() / (a.square().sum(1) * e.square().sum(1) + 1e-12).sqrt()).mean())
            optimizer.zero_grad()
            (-torch.stack(scores).sum()).backward()
            optimizer.step()


def measure_layer(name: str, sets: int) -> dict[str, Any]:
    """One step of a single layer; every layer but the network's first one passes an error on to its input."""
    build, shape = LAYERS[name]
    torch.manual_seed(SEED)
    x = torch.randn(STEP_BATCH, *shape, requires_grad=shape[0] > 1)
    steps: dict[str, Step] = {"plain": layer_step(build(1 + sets), x)}
    for kind in TIMED_KINDS:
        layer = DendriticLayer(build(1), kind=KINDS[kind])
        for _ in range(sets):
            layer.add_set_()
        if layer.perforated:
            layer.freeze_()
        steps[kind] = layer_step(layer, x)
    return {"layer": name, "sets": sets, **compared(steps)}


def layer_step(layer: nn.Module, x: Tensor) -> Step:
    """A step that gets its error from outside."""
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], fused=True)
    error = torch.randn_like(layer(x))

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        layer(x).backward(error)
        optimizer.step()

    return step


def measure_network(x: Tensor, y: Tensor, filters: int, placement: str, sets: int) -> dict[str, Any]:
    """One step of the network, and of the plain network with the nearest MACs."""
    models = {kind: grow_for_step(filters, kind, placement, sets) for kind in TIMED_KINDS}
    macs = macs_of(models["gradient"])
    nearest = min(range(filters, 4 * filters), key=lambda f: abs(macs_of(backbone(f)) - macs))
    wide = backbone(nearest)
    steps = {name: network_step(model, x, y) for name, model in {"plain": wide, **models}.items()}
    sizes = {"plain_filters": nearest, "macs": macs, "plain_macs": macs_of(wide)}
    return {"filters": filters, "placement": placement, "sets": sets, **sizes, **compared(steps)}


def network_step(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """A step of ordinary training on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x[:STEP_BATCH]), y[:STEP_BATCH]).backward()
        optimizer.step()

    return step


def measure_peer(x: Tensor, y: Tensor, folder: Path | None) -> dict[str, Any]:
    """One step with one set on the convolutions of the smaller network, in the peer and here."""
    if folder is None:
        return {"measured": False, "reason": "not asked for (--peer)"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:  # it writes a folder into the working directory
        os.chdir(scratch)
        try:
            peer = grow_peer(folder)
        finally:
            os.chdir(before)
    models = {"peer": peer, **{kind: grow_for_step(FILTERS[0], kind, "convs", 1) for kind in TIMED_KINDS}}
    steps = {name: network_step(model, x, y) for name, model in models.items()}
    times = take_turns(steps, STEP_REPEATS)
    ratios = {f"peer_to_{kind}": times["peer"] / times[kind] for kind in TIMED_KINDS}
    return {"measured": True, "version": version("perforatedai"), "ms": times, **rounded(ratios)}


def grow_peer(folder: Path) -> nn.Module:
    """The smaller network with one dendrite set on each convolution, with the peer's public functions and tanh, as here."""
    sys.path.append(str(folder))
    import matplotlib

    matplotlib.use("Agg")
    from perforatedai import globals_perforatedai as settings  # type: ignore[import-not-found,unused-ignore]
    from perforatedai import utils_perforatedai as functions  # type: ignore[import-not-found,unused-ignore]

    config = settings.pc
    for name in ("silent", "unwrapped_modules_confirmed", "configuration_confirmed", "checked_skipped_modules"):
        getattr(config, f"set_{name}")(True)
    for name in ("verbose", "testing_dendrite_capacity", "pai_saves", "dashboard_events_enabled", "use_cuda"):
        getattr(config, f"set_{name}")(False)
    config.set_weight_decay_accepted(True)
    config.set_device(torch.device("cpu"))
    config.set_pai_forward_function(torch.tanh)
    config.set_modules_to_perforate([nn.Conv2d])
    config.set_modules_to_track([nn.Linear])
    config.set_max_dendrites(1)
    config.set_switch_mode(config.DOING_FIXED_SWITCH)  # a set after one epoch
    for name in ("fixed_switch_num", "first_fixed_switch_num", "n_epochs_to_switch"):
        getattr(config, f"set_{name}")(1)
    model: nn.Module = functions.perforate_model(backbone(FILTERS[0]), save_name="peer")
    settings.pai_tracker.set_optimizer_instance(torch.optim.AdamW(model.parameters()))
    model(torch.zeros(2, *SHAPE)).sum().backward()
    model, grown, _ = settings.pai_tracker.add_validation_score(0.0, model)
    if not grown:
        raise RuntimeError("peer: expected a dendrite set after one epoch, got none")
    return model


def backbone(filters: int, seed: int = SEED) -> nn.Module:
    """The plain network."""
    torch.manual_seed(seed)
    return build_backbone("conv2d", SHAPE, CLASSES, {"filters": filters})


def grow(filters: int, kind: str, placement: str, sets: int) -> nn.Module:
    """The network with fresh dendrite sets."""
    model = backbone(filters)
    for _ in range(sets):
        add_dendrites_(model, kind=kind, placement=placement)
    return model


def grow_for_step(filters: int, kind: str, placement: str, sets: int) -> nn.Module:
    """The network as it is after a dendrite phase, if the kind has one; its speed does not depend on the weights."""
    model = grow(filters, kind, placement, sets)
    for layer in dendritic_layers(model).values():
        if layer.perforated:
            layer.freeze_()
    return model


def macs_of(model: nn.Module) -> int:
    """Multiply-accumulates of one inference."""
    return count_macs(folded_copy(model), SHAPE)


def compared(steps: dict[str, Step]) -> dict[str, Any]:
    """Times of plain and dendritic steps, and their ratios."""
    times = take_turns(steps, STEP_REPEATS)
    return {"ms": times, **rounded({f"{kind}_to_plain": times[kind] / times["plain"] for kind in TIMED_KINDS})}


def rounded(ratios: dict[str, float]) -> dict[str, float]:
    """Ratios to two places."""
    return {name: round(ratio, 2) for name, ratio in ratios.items()}


def render(result: dict[str, Any]) -> str:
    """Markdown: tables of ratios and correlations, and a line on the peer."""
    lines = [
        f"Measured on {result['date']}, torch {result['versions']['torch']}, one thread, processor time.",
        "",
        f"**Dendrite phase**, {EPOCHS} epochs on {result['examples']:,} examples, kind `perforated`, against the same phase "
        f"without a cache on all positions. Goal: the default at least {PHASE_GOAL:g} times faster. *Default*: from the cache, "
        f"on a sample of {result['positions']} positions per example in each layer that has more. *All positions*: also "
        "cached. *Plain*: no cache, all positions and all gradients by autograd, against the default.",
        "",
        "| filters | placement | default, s | default | all positions | plain | goal |",
        "|--:|---|--:|--:|--:|--:|---|",
    ]
    for row in result["phase"]:
        ratios = [row[name] for name in ("uncached_to_default", "uncached_to_all_positions", "plain_to_default")]
        cells = [row["filters"], row["placement"], f"{row['ms']['default'] / 1e3:.2f}", *(f"{ratio:.1f}x" for ratio in ratios)]
        lines.append(table_row([*cells, verdict(row["uncached_to_default"] >= PHASE_GOAL)]))
    lines += ["", *correlation_table(result["correlation"])]
    step = f"Goal: at most {STEP_GOAL:g} times. Per cell: D = {', '.join(map(str, SETS))}."
    lines += ["", f"**Step of a layer** (batch {STEP_BATCH}) against a plain layer with as many weights. {step}", ""]
    lines += ratio_table(result["layer"], ("layer",))
    lines += ["", f"**Step of the network** against the plain conv2d network with the nearest MACs. {step}", ""]
    lines += ratio_table(result["network"], ("filters", "placement"))
    return "\n".join([*lines, "", render_peer(result["peer"])]) + "\n"


def correlation_table(rows: list[dict[str, Any]]) -> list[str]:
    """What the speed costs: means over the seeds, and the default as a fraction of what all positions reach."""
    lines = [
        f"**Correlation reached** after the same phase on a trained network, over all positions of the training set, mean of "
        f"{len(CORRELATED_SEEDS)} seeds: dendrites trained by default, those trained on all positions, and the fraction kept.",
        "",
        table_row(["filters", "kind", "placement", "default", "all positions", "kept"]),
        "|--:|---|---|--:|--:|--:|",
    ]
    for row in rows:
        default, whole = (statistics.mean(row["correlation"][name]) for name in ("default", "all_positions"))
        lines.append(
            table_row(
                [row["filters"], row["kind"], row["placement"], f"{default:.3f}", f"{whole:.3f}", f"{default / whole:.0%}"]
            )
        )
    return lines


def ratio_table(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """One line per layer or network, the numbers of sets side by side."""
    lines = [table_row([*keys, *TIMED_KINDS, "goal"]), "|" + "---|" * (len(keys) + len(TIMED_KINDS) + 1)]
    for first in (row for row in rows if row["sets"] == SETS[0]):
        alike = [row for row in rows if all(row[key] == first[key] for key in keys)]
        ratios = {kind: [row[f"{kind}_to_plain"] for row in alike] for kind in TIMED_KINDS}
        cells = [", ".join(f"{ratio:.2f}" for ratio in ratios[kind]) for kind in TIMED_KINDS]
        met = ", ".join(f"{kind}: {verdict(max(ratios[kind]) <= STEP_GOAL)}" for kind in TIMED_KINDS)
        lines.append(table_row([*(first[key] for key in keys), *cells, met]))
    return lines


def render_peer(peer: dict[str, Any]) -> str:
    """One line."""
    if not peer["measured"]:
        return f"**Peer** `perforatedai`: not measured; {peer['reason']}."
    times = ", ".join(f"{name} {ms:.2f}" for name, ms in peer["ms"].items())
    return (
        f"**Peer** `perforatedai` {peer['version']} (open version: dendrites learn by back-propagation), network with "
        f"{FILTERS[0]} filters, one set on the convolutions, ms per step: {times}. Its step takes "
        f"{peer['peer_to_gradient']:.2f} times as long as ours of kind `gradient`, "
        f"{peer['peer_to_perforated']:.2f} times as long as `perforated`."
    )


def table_row(cells: list[object]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def verdict(met: bool) -> str:
    """In words."""
    return "met" if met else "missed"


if __name__ == "__main__":
    main()
