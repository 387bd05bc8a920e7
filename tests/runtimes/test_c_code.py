"""The figures of the C code before training, against those of the code that is generated from the exported files."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dendrite_automl as da
from dendrite_automl.backbones import build_backbone
from dendrite_automl.budget import Budget
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.size import estimate_code, estimate_stack
from dendrite_automl.c99.source import make_source
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.devices import get_device
from dendrite_automl.errors import ArtifactMismatch, CandidateFailed, RequestError
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Member, Validation
from dendrite_automl.export.artifact.seal import write_seal
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.measure import folded_copy, measure_cost
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.runtimes import make_runtime
from dendrite_automl.runtimes.verify import verify_artifact
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import run_trial
from tests.c99.compiled import CASES, NETWORKS, build, write, written

LABELS = ("a", "b", "c", "d", "e", "ü")
C = make_runtime("c", LABELS)
# One weight per channel is always -127 or 127 in int8: equal arrays are likely, and the code has them only once.
MAY_SHARE = ("reuse", "gate", "low_rank", "fan_out")


@pytest.mark.parametrize(("name", "kind", "placement"), CASES)
def test_figures_before_training_are_those_of_the_generated_code(name, kind, placement) -> None:
    model, shape = build(name, kind, placement)
    found = C.need_of_network(folded_copy(model), shape)
    files = written(name, kind, placement)
    source = make_source(lower(files[1]), name="net", title="", labels=LABELS)
    assert f"#define NET_ARENA_BYTES {found.arena_bytes}\n" in source.header
    assert found.stack_bytes == estimate_stack(source)
    assert found.code_bytes == estimate_code(source)
    assert found.constant_bytes >= source.constant_bytes
    if kind not in MAY_SHARE:
        assert found.constant_bytes == source.constant_bytes
    assert C.need_of_files(*files)[1] == dataclasses.replace(found, constant_bytes=source.constant_bytes)


@pytest.mark.parametrize(("name", "kind"), [("conv2d", "gradient"), ("sepconv1d", "product"), ("mlp", None)])
def test_training_does_not_change_the_figures(name, kind) -> None:
    model, shape = build(name, kind, "all")
    trained = C.need_of_network(folded_copy(model), shape)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert C.need_of_network(folded_copy(model), shape) == trained


class Functions(nn.Module):
    """A network as users write them: calls of functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, padding="same"), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu_(self.first(x)), 2)
        x = x + nn.functional.leaky_relu(self.second(x), 0.1)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).reshape(-1, 6))


class Sequence(nn.Module):
    """Pooling along one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(5, 8, 3, stride=2), nn.Linear(24, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool1d(nn.functional.hardswish(self.first(x)), 3)
        return self.head(torch.flatten(x, 1))


@pytest.mark.parametrize(("network", "shape"), [(Functions, (1, 9, 8)), (Sequence, (5, 20))])
def test_a_network_of_the_users_own(network, shape, tmp_path) -> None:
    torch.manual_seed(0)
    model = network().eval()
    assert C.need_of_network(folded_copy(model), shape) == C.need_of_files(*write(model, shape, tmp_path))[1]


class Turned(nn.Module):
    """It transposes, for which C has no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(8, 8, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x.squeeze(1))).transpose(1, 2).flatten(1))


class Rows(nn.Module):
    """A linear layer on each row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.Linear(8, 4), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.rows(x.squeeze(1))).flatten(1))


def test_what_c_cannot_express_is_refused_before_the_search(tmp_path) -> None:
    why = "compress: model: .* the operator transpose has no kernel; supported: Add, .*; use --runtime interpreter"
    with pytest.raises(RequestError, match=f"runtime: {why}, or other layers"):
        da.compress(Turned().eval(), task="digits", runtime="c", budget="1k-params", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_linear_layer_on_rows_is_refused() -> None:
    with pytest.raises(CandidateFailed, match=r"expected the batch as first axis, got \[8, 8\]"):
        C.need_of_network(Rows().eval(), (1, 8, 8))


def test_activations_that_int8_merges_into_drives_are_refused() -> None:
    model = build_backbone("conv2d", (1, 8, 8), 6, NETWORKS["conv2d"][1]).eval()
    for _ in range(2):
        add_untrained_(model, kind="gradient", placement="all", activation="relu")
    with pytest.raises(CandidateFailed, match=r"\(Relu\): expected another activation of dendrites on a linear layer"):
        C.need_of_network(folded_copy(model), (1, 8, 8))


CANDIDATE = Candidate(
    arm="dendritic",
    space="digits_conv2d",
    backbone="conv2d",
    network=(("filters", 4), ("blocks", 1)),
    training=(("learning_rate", 0.02),),
    stages=(Stage(op="fit", epochs=1), Stage(op="grow", epochs=4, kind="gradient", placement="all", activation="tanh")),
)


@pytest.fixture(scope="module")
def grown() -> tuple[Member, nn.Module, BundleContext]:
    task = load_task("digits")
    data, runtime = Data.from_splits(task.train, task.val, 10), make_runtime("c", task.classes)
    device = get_device("nano33ble")
    snapshot, [model] = list(run_trial(CANDIDATE, data, [1], device=device, runtime=runtime))[-1]
    validation = Validation(accuracy=0.9, error=None, replicates=1, selected=None, exported=0.9)
    context = BundleContext(
        task=task, data=data, test=task.open_test(), provenance={"command": "x", "seed": 1}, device=device, runtime=runtime
    )
    return Member(snapshot=snapshot, candidate=CANDIDATE, validation=validation), model, context


def test_estimate_snapshot_and_artifact_agree_at_the_budget(grown, tmp_path) -> None:
    """At n - 1 bytes all refuse, at n and n + 1 all accept; the device's interpreter is not counted."""
    member, model, context = grown
    [*_, cost] = estimate_costs(CANDIDATE, (1, 8, 8), 10, context.device, runtime=context.runtime)
    measured = member.snapshot.measurement
    assert (cost.flash_bytes, cost.peak_ram_bytes) == (measured.flash_bytes, measured.peak_ram_bytes)
    for word, need in (("ram", cost.peak_ram_bytes), ("flash", cost.flash_bytes)):
        for change in (-1, 0, 1):
            budget, folder = Budget.parse(f"{need + change}B-{word}"), tmp_path / f"{word}{change}"
            folder.mkdir()
            assert budget.fits(cost.values()) == budget.fits(measured.values()) == (change >= 0)
            tight = dataclasses.replace(context, budget=budget)
            if change < 0:
                with pytest.raises(ArtifactMismatch, match=rf"{word}_bytes <= [\d,]+, its int8 C code needs {need:,}"):
                    export_artifact(model, member, folder, tight)
            else:
                artifact = export_artifact(model, member, folder, tight)
                assert getattr(artifact, f"{'peak_ram' if word == 'ram' else 'flash'}_bytes_int8") == need
    _check_artifact(tmp_path / "ram0", cost.peak_ram_bytes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda said: said["code"]["int8"].update(arena_bytes=1), r"code: int8: arena_bytes: expected \d+ as .*, got 1"),
        (lambda said: said["code"]["float32"].update(code_bytes=7), r"code: float32: code_bytes: expected \d+ as .*, got 7"),
        (lambda said: said["labels"].__setitem__(0, "another"), r"code: float32: constant_bytes: expected \d+"),
        (lambda said: said["snapshot"]["measurement"].update(peak_ram_bytes=9), r"expected the RAM of its snapshot .*, 9 and"),
        (
            lambda said: said["snapshot"]["measurement"].update(flash_bytes=9),
            r"at most its flash, .* and 9; int8 code needs",
        ),
    ],
)
def test_other_figures_than_those_of_the_code_are_refused(grown, tmp_path, change, says) -> None:
    member, model, context = grown
    export_artifact(model, member, tmp_path, context)
    said = json.loads((tmp_path / "artifact.json").read_text())
    change(said)
    (tmp_path / "artifact.json").write_text(json.dumps(said))
    write_seal(tmp_path)
    with pytest.raises(ArtifactMismatch, match=says):
        verify_artifact(tmp_path)


def _check_artifact(folder: Path, ram: int) -> None:
    """The card and artifact.json say what RAM is of, with the figures of the README of the generated code."""
    said, card = json.loads((folder / "artifact.json").read_text()), (folder / "CARD.md").read_text()
    assert said["runtime"] == "c"
    code = said["code"]["int8"]
    assert code["arena_bytes"] + code["stack_bytes"] == ram
    assert re.search(rf"\| RAM of the C code, bytes \| [\d,]+ \| {ram:,} \| {ram:,} \|", card)
    assert "that `automl export --c` writes (runtime `c`), and their limits hold for int8" in card
    verify_artifact(folder)
    readme = (da.export_c(folder) / "README.md").read_text()
    for line, figure in (
        ("arena: all RAM but the stack", "arena_bytes"),
        ("stack, about", "stack_bytes"),
        ("flash: constants", "constant_bytes"),
        ("flash: code for a Cortex-M4, about", "code_bytes"),
    ):
        row = next(text for text in readme.splitlines() if text.startswith(f"| {line} |"))
        assert row.endswith(f"| {code[figure]:,} B |")


def test_the_interpreter_is_the_default_and_is_unchanged() -> None:
    model, shape = build("conv2d", None, "head")
    assert make_runtime("interpreter", LABELS) is None
    assert measure_cost(model, shape).flash_bytes == 4 * measure_cost(model, shape).params
