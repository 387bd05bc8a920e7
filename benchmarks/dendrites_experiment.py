"""Do cheap dendrites pay? The experiment of dendrites_protocol.md, which was fixed before its first run.

    python benchmarks/dendrites_experiment.py --estimate                      # CPU hours of both stages, done and to be done
    python benchmarks/dendrites_experiment.py --cache DIR --minutes 60        # the screening; resumable, training by training
    python benchmarks/dendrites_experiment.py --cache DIR --minutes 60 --stage confirmation
    python benchmarks/dendrites_experiment.py --render  # the section of README.md from results/dendrites_experiment.jsonl only

Its networks are found by dendrites_experiment_networks.py; its tables are those of dendrites_experiment_report.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from data_sets import load, thin
from data_sources import Folders
from dendrites_experiment_cost import estimate, within
from dendrites_experiment_networks import BELOW, PLAIN, SETTINGS, Network, Pair, find_pair, known_kinds
from dendrites_experiment_report import going_on, known, render
from designs import EXAMPLES, is_done, load_lines, parser, train_missing
from section import replace_section
from torch import Tensor, nn

import dendrite_automl
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.train.fit import Data, accuracy, fit_replicates_

RESULTS = Path(__file__).parent / "results" / "dendrites_experiment.jsonl"
KNOWN = Path(dendrite_automl.__file__).parent / "comparison" / "kinds.json"  # what reports say of a kind
EPOCHS, TOGETHER = 32, 8  # seeds trained together: more of them would gain nothing
SIZES = (1500, 700, 3000)
DEFAULT, OTHER = "hard_swish", "relu"
STAGES = {"screening": (0, 8), "confirmation": (100, 124)}  # seeds
# What is trained one after the other. If the bound is reached, the last ones are missing: first those that the protocol names.
PHASES = ("H1", "H2 and H3", "H4", "H5", "equal work", "H5 at 3,000", "hapt at 3,000")
_WORK_ALIKE = 0.05
_SMOKE_EPOCHS, _SMOKE_EXAMPLES = 2, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Some seeds of a network, trained together.

    Attributes:
        first: of the seeds.
        grown: dendrites are added after half of the epochs, not at the start.
        size: parameters that a dendritic network is within; 0 for a plain one, which may be the rival of several.
        rivals: widths of the plain networks that it is compared with; see `Pair`.
        work_epochs: of the plain network with as many parameters, for as much work; 0 if the work is about the same.
        optimizer: the protocol's, unless another script asks for another one.
    """

    network: Network
    epochs: int = EPOCHS
    first: int = 0
    grown: bool = False
    size: int = 0
    rivals: tuple[tuple[str, float], ...] = ()
    work_epochs: int = 0
    examples: int = EXAMPLES
    optimizer: str = "adamw"

    @property
    def plain(self) -> Network:
        """The plain network with as many parameters."""
        return replace(self.network, kind=PLAIN, width=dict(self.rivals)["params"])

    @property
    def data(self) -> str:
        """The data set."""
        return self.network.data

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in the results file."""
        of = self.network
        facts = {"data": of.data, "kind": of.kind, "nonlinearity": of.nonlinearity, "size": self.size, "width": of.width}
        return {**facts, "grown": self.grown, "epochs": self.epochs, "first": self.first}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Costs of the network, and the accuracy of each seed whose training did not diverge."""
        task, setting = thin(load(self.data, folders), self.examples), SETTINGS[self.data]
        if (task.input_shape, len(task.classes)) != (setting.input_shape, setting.classes):
            raise RequestError(f"{self.data}: expected {setting.input_shape} and {setting.classes} classes, got other data")
        data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
        models = self._train(data)
        x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
        found = [(_judge(model, data.x_val, data.y_val), _judge(model, x, y)) for model in models]
        whole = [(val, tested) for val, tested in found if val is not None and tested is not None]
        rivals = {"rivals": dict(self.rivals), "work_epochs": self.work_epochs} if self.rivals else {}
        accuracies = {"val": [val for val, _ in whole], "test": [tested for _, tested in whole]}
        return {**self.network.costs, **rivals, "examples": len(task.train), "seeds": TOGETHER, **accuracies}

    def _train(self, data: Data) -> list[nn.Module]:
        """The networks after all epochs; those that diverged are left out."""
        models = []
        for seed in range(self.first, self.first + TOGETHER):
            torch.manual_seed(seed)
            models.append(self.network.build())
        plain_epochs = self.epochs // 2 if self.grown else 0
        try:
            if plain_epochs:
                self._fit_(models, data, plain_epochs)
            for seed, model in enumerate(models, self.first):
                torch.manual_seed(10_000 + seed)
                self.network.grow_(model)
            self._fit_(models, data, self.epochs - plain_epochs)
        except CandidateFailed:  # all of them diverged
            return []
        return models

    def _fit_(self, models: list[nn.Module], data: Data, epochs: int) -> None:
        settings = replace(SETTINGS[self.data].family.settings, optimizer=self.optimizer)
        for _ in fit_replicates_(models, data, settings, epochs=epochs, seed=self.first):
            pass


def _judge(model: nn.Module, x: Tensor, y: Tensor) -> float | None:
    try:
        return round(accuracy(model, x, y), 5)
    except CandidateFailed:  # a logit is not finite
        return None


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--stage", choices=tuple(STAGES), default="screening", help="the second is for the kinds that go on")
    flags.add_argument("--hours", type=float, default=6.0, help="bound for the CPU time of both stages; default: %(default)s")
    flags.add_argument("--phases", help=f"some of {', '.join(PHASES)}, separated by commas; default: all")
    flags.add_argument("--kinds", help="dendritic networks of these kinds only, separated by commas; default: all that go on")
    flags.add_argument("--estimate", action="store_true", help="only print how much CPU time is needed")
    flags.add_argument("--results", type=Path, help="another results file; the section is then printed")
    flags.add_argument(
        "--smoke", action="store_true", help="a few examples and epochs, to see whether all works; needs --results"
    )
    asked = flags.parse_args()
    torch.set_num_threads(1)
    if asked.smoke and asked.results is None:
        raise SystemExit("--smoke: expected a results file of its own, got none; give --results FILE")
    results = asked.results or RESULTS
    say_unsuited(known_kinds())
    lines = load_lines(results)
    if asked.estimate:
        print(estimate(plans(lines, smoke=asked.smoke), lines, asked.hours))
        return
    if not asked.render:
        train(asked, plans(lines, smoke=asked.smoke), results)
        lines = load_lines(results)
    planned = plans(lines, smoke=asked.smoke)
    section = render(lines, {stage: [training for _, training in steps] for stage, steps in planned.items()})
    if asked.results is None:
        replace_section("dendrites_experiment", section)
        KNOWN.write_text(json.dumps(known(lines), indent=1) + "\n", encoding="utf-8")
    else:
        print(section)


Plan = list[tuple[str, Training]]  # phase, training


def train(asked: argparse.Namespace, planned: dict[str, Plan], results: Path) -> None:
    """Do what a stage lacks, within the bound."""
    lines, steps = load_lines(results), planned[asked.stage]
    left = sum(not is_done(training, lines) for _, training in planned["screening"])
    if asked.stage == "confirmation" and left:
        raise SystemExit(f"--stage confirmation: expected a whole screening, got one that lacks {left} trainings; do it first")
    steps = [step for step in steps if is_asked(step, asked)]
    chosen = within(steps, lines, asked.hours)
    if len(chosen) < len(steps):
        print(f"--hours {asked.hours:g}: the last {len(steps) - len(chosen)} trainings are left out", file=sys.stderr)
    train_missing(chosen, results, asked)


def is_asked(step: tuple[str, Training], asked: argparse.Namespace) -> bool:
    """Whether a training is in one of the phases, and of one of the kinds, that were asked for; plain networks always are."""
    phase, training = step
    kinds = None if asked.kinds is None else (PLAIN, *asked.kinds.split(","))
    return (asked.phases is None or phase in asked.phases.split(",")) and (kinds is None or training.network.kind in kinds)


def plans(lines: Sequence[dict[str, Any]], *, smoke: bool = False) -> dict[str, Plan]:
    """What each stage trains; the confirmation is for all kinds until the screening is done."""
    screening = plan("screening", known_kinds(), smoke=smoke)
    whole = all(is_done(training, lines) for _, training in screening)
    return {
        "screening": screening,
        "confirmation": plan("confirmation", going_on(lines) if whole else known_kinds(), smoke=smoke),
    }


def plan(stage: str, kinds: Sequence[str], *, smoke: bool = False) -> Plan:
    """What a stage trains, in order: phase by phase, in each the seeds outermost, so that an unfinished one is balanced."""
    found: dict[Training, str] = {}
    for training, phase in networks(kinds, confirm=stage == "confirmation", epochs=_SMOKE_EPOCHS if smoke else EPOCHS):
        earlier = found.get(training, phase)
        found[training] = min(phase, earlier, key=PHASES.index)
    examples = _SMOKE_EXAMPLES if smoke else EXAMPLES
    seeds = range(*STAGES[stage], TOGETHER)
    steps = itertools.product(PHASES, seeds, found.items())
    return [(step, replace(t, first=first, examples=examples)) for step, first, (t, phase) in steps if phase == step]


def networks(kinds: Sequence[str], *, confirm: bool, epochs: int) -> Iterator[tuple[Training, str]]:
    """Every dendritic network, each followed by its rivals, with their phases.

    A screening has those that it decides on: the default nonlinearity, at equal parameters.
    """
    nonlinearities = (DEFAULT, OTHER) if confirm else (DEFAULT,)
    for nonlinearity, size, data, kind in itertools.product(nonlinearities, SIZES, SETTINGS, kinds):
        pair = pair_or_none(data, nonlinearity, size, kind)
        if pair is None:
            continue
        whole = confirm and nonlinearity == DEFAULT
        phase = phase_of(data, nonlinearity, size)
        rivals = tuple((name, width) for name, width in pair.rivals if whole or name in ("params", BELOW))
        longer = round(epochs * (1 + pair.excess)) if whole and pair.excess > _WORK_ALIKE else 0
        ours = Training(network=pair.network, epochs=epochs, size=size, rivals=rivals, work_epochs=longer)
        yield ours, phase
        for name, _ in rivals:
            own = phase if name in ("params", BELOW) else later(phase, "H2 and H3")
            yield Training(network=pair.plain(name), epochs=epochs), own
        if longer:
            yield Training(network=pair.plain("params"), epochs=longer), later(phase, "equal work")
        if whole:
            yield replace(ours, grown=True, work_epochs=0), later(phase, "H4")


def phase_of(data: str, nonlinearity: str, size: int) -> str:
    """When a network with dendrites from the start is trained."""
    if (data, size) == ("hapt", 3000):
        return "hapt at 3,000"
    if nonlinearity == DEFAULT:
        return "H1"
    return "H5 at 3,000" if size == 3000 else "H5"


def later(one: str, other: str) -> str:
    """The later of two phases."""
    return max(one, other, key=PHASES.index)


def pair_or_none(data: str, nonlinearity: str, size: int, kind: str) -> Pair | None:
    """None if the kind does not suit the backbone."""
    try:
        return find_pair(data, nonlinearity, size, kind)
    except RequestError:
        return None


def say_unsuited(kinds: Sequence[str]) -> None:
    """Print which kinds are left out of which cells, and why."""
    for kind, data in itertools.product(kinds, SETTINGS):
        try:
            find_pair(data, DEFAULT, SIZES[0], kind)
        except RequestError as error:
            print(f"{kind} is left out on {data}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
