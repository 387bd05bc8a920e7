"""Step 3 of 3: check that what was found fits together. All bad input ends here, before anything is started or written."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import nn

from dendrite_automl.backbones import build_backbone, check_space
from dendrite_automl.candidate import make_candidate
from dendrite_automl.dendrites import ACTIVATIONS, KINDS, PLACEMENTS, Kind, add_dendrites_, find_layers
from dendrite_automl.devices import RUNTIMES
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.export.onnx.check import check_export
from dendrite_automl.measure import folded_copy
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.networks.foreign import check_foreign
from dendrite_automl.plan.accelerator import check_accelerator
from dendrite_automl.plan.plan import Plan, code_digest
from dendrite_automl.plan.ray_address import check_address
from dendrite_automl.run import Run
from dendrite_automl.space import PRETRAINED, Value
from dendrite_automl.train.augment import SUITS


def check(plan: Plan) -> Plan:
    """The same plan, if it can be carried out.

    Raises:
        RequestError: the space does not suit the data or the schedule, the data is not that of the run to resume, a
            user-supplied network cannot be exported, or there is no GPU where one is asked for.
        BudgetUnreachable: no network of the space fits the budget.
    """
    check_accelerator(plan.machine)
    if plan.machine.ray_address is not None:
        check_address(plan.machine.ray_address)
    own = None
    if plan.pretrained is None:
        if plan.space.backbone.startswith(PRETRAINED):
            raise RequestError(
                "resume: expected the network that the run starts from, got none; use compress(model, …, resume=True)"
            )
        check_space(plan.space, plan.task.input_shape, plan.classes)
        own = check_foreign(plan.space, plan.task.input_shape, plan.classes)
    elif plan.space.backbone != plan.pretrained.backbone:
        raise RequestError(
            f"resume: expected the network that the run starts from ({plan.space.backbone}), got another one "
            f"({plan.pretrained.backbone}); start a new run"
        )
    _check_schedule_knobs(plan)
    if plan.runtime is not None:
        _check_runtime(plan, plan.runtime, own or plan.start)
    _check_training_knobs(plan)
    _check_epochs(plan)
    if plan.earlier is not None:
        _check_unchanged(plan, plan.earlier)
    plan.reach().check(plan.goal.budget)
    if (own := own or plan.start) is not None and plan.earlier is None:
        check_export(own, plan.task.input_shape, "compress: model" if plan.pretrained else f"backbone {plan.space.backbone}")
    return plan


def _check_unchanged(plan: Plan, earlier: Run) -> None:
    """The data and the user's code must be those that the run was made with."""
    if plan.task.fingerprint != earlier.info.data.sha256:
        raise RequestError(f"resume: the data differs from what {earlier.path} was made with; start a new run")
    if earlier.info.space.code_sha256 != code_digest(plan.space):
        raise RequestError(
            f"resume: the code of {plan.space.backbone} differs from what {earlier.path} was made with; start a new run"
        )


def _check_training_knobs(plan: Plan) -> None:
    """Augmentation must suit the kind and size of the data; distillation needs a teacher."""
    kind, shape = plan.task.kind, plan.task.input_shape
    sizes = {
        "time_mask": shape[-1],
        "channel_mask": shape[0],
        "shift": min(shape[1:] or shape),
        "cutout": min(shape[1:] or shape),
    }
    for knob in plan.space.knobs:
        where, largest = f'space "{plan.space.name}": knob "{knob.name}"', max(knob.choices, key=_amount)
        if knob.section != "training" or not _amount(largest):
            continue
        if kind not in SUITS.get(knob.name, (kind,)):
            suited = " and ".join(f"{word}s" for word in SUITS[knob.name])
            raise RequestError(
                f"{where}: does not apply to {kind}s {list(shape)}, only to {suited}; use --set {knob.name}={_off(largest)}"
            )
        if knob.name in sizes and _amount(largest) >= sizes[knob.name]:
            raise RequestError(
                f"{where}: expected less than the {sizes[knob.name]} steps of the data {list(shape)}, got {largest}"
            )
        if knob.name == "distill" and plan.request.teacher == "none":
            raise RequestError(f"{where}: expected a teacher to learn from, got none; use --teacher auto, or --set distill=0")


def _amount(value: Value) -> float:
    return 0.0 if isinstance(value, str) else float(value)


def _off(value: Value) -> str:
    return "false" if isinstance(value, bool) else "0"


def _check_schedule_knobs(plan: Plan) -> None:
    knobs = {knob.name: knob.choices for knob in plan.space.knobs}
    where = f'space "{plan.space.name}"'
    if not any("grow" in str(stages).split() for stages in knobs["stages"]):
        return
    for name, allowed in (("kind", KINDS), ("activation", ACTIVATIONS), ("placement", PLACEMENTS)):
        for choice in knobs[name]:
            if choice not in allowed:
                raise RequestError(f'{where}: knob "{name}": expected one of {", ".join(allowed)}, got {choice!r}')
    kinds, placements = ([str(choice) for choice in knobs[name]] for name in ("kind", "placement"))
    somas = [kind for kind in kinds if KINDS[kind].soma is not None]
    models, shape = list(_by_head(plan)), plan.task.input_shape
    for model, placement in itertools.product(models, placements if somas != kinds else ()):
        try:
            find_layers(model, placement)
        except RequestError as error:
            raise RequestError(f'{where}: knob "placement": {error}') from None
    for kind in kinds:  # other combinations are refused when they are proposed
        problems = [_misfit(model, KINDS[kind], placement, shape) for model, placement in itertools.product(models, placements)]
        if all(problems):
            raise RequestError(f'{where}: knob "kind": {problems[0]}')
    if somas == kinds and min(map(int, knobs["cycles"])) > 1:
        raise RequestError(f'{where}: knob "cycles": expected 1 among its values: {", ".join(kinds)} have one set per place')


def _check_runtime(plan: Plan, runtime: Runtime, own: nn.Module | None) -> None:
    """The runtime must be able to express the networks; a kind of dendrites that it cannot is refused when it is proposed."""
    for model in _by_head(plan) if own is None else [own]:
        try:
            runtime.need_of_network(folded_copy(model), plan.task.input_shape)
        except CandidateFailed as error:
            who = "compress: model" if plan.pretrained else f"backbone {plan.space.backbone}"
            raise RequestError(
                f"runtime: {who}: expected a network that it can express, got one that it cannot: {error}; "
                f"use --runtime {RUNTIMES[0]}, or other layers"
            ) from None


def _by_head(plan: Plan) -> Iterator[nn.Module]:
    """A network of each family, of the first choice of every knob, with each of its heads: some kinds need a pooling."""
    if plan.pretrained:
        yield plan.pretrained.model
        return
    for part in plan.space.by_family():
        knobs = {knob.name: knob.choices for knob in part.unscaled().knobs if knob.section == "network"}
        first = {name: choices[0] for name, choices in knobs.items()}
        for head in [{"head": head} for head in knobs.get("head", ())] or [{}]:
            yield build_backbone(part.backbone, plan.task.input_shape, len(plan.task.classes), {**first, **head})


@torch.no_grad()
def _misfit(model: nn.Module, kind: Kind, placement: str, input_shape: tuple[int, ...]) -> str:
    """Why dendrites of a kind cannot be placed so; empty if they can."""
    try:
        if kind.soma is None:
            find_layers(model, placement, kind)
        else:  # it may depend on the sizes of maps
            grown = copy.deepcopy(model).eval()
            add_dendrites_(grown, kind=kind, placement=placement)
            grown(torch.zeros(1, *input_shape))
    except RequestError as error:
        return str(error)
    return ""


def _check_epochs(plan: Plan) -> None:
    """Every schedule of the space must have enough epochs for its stages; the longest is named."""
    knobs = {knob.name: knob.choices for knob in plan.space.knobs}
    cycles = max(map(int, knobs.get("cycles", (1,))))

    def count_stages(schedule: Value) -> int:
        return sum(cycles if word == "grow" else 1 for word in str(schedule).split())

    point = {name: choices[0] for name, choices in knobs.items()}
    for stages in sorted(knobs["stages"], key=count_stages, reverse=True):
        for arm in plan.arms:
            make_candidate(plan.space, {**point, "stages": stages, "cycles": cycles}, arm=arm, epochs=plan.effort.epochs)
