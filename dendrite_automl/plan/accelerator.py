"""Where networks are trained: on the CPU, or on GPUs, if there are any and the work is large enough to gain from them."""

from __future__ import annotations

from dataclasses import replace

import torch

from dendrite_automl.errors import RequestError
from dendrite_automl.plan.parse import Machine
from dendrite_automl.plan.plan import Plan
from dendrite_automl.train.fit import batch_of

# Products in the forward pass of a training step: MACs x batch x replicates. At 10^9 a step takes a core 0.14 s (measured with
# two backbones); the few hundred kernels that a GPU starts for it should take some milliseconds (not measured: the project
# has no GPU), so that it gains even if a dozen workers share it. At 10^7 a core takes about as long as the GPU.
WORTH = 10**9


def check_accelerator(machine: Machine) -> None:
    """Check that there is a GPU if one is asked for; those of a cluster are looked for once it is reached.

    Raises:
        RequestError: torch sees none on this machine.
    """
    if machine.accelerator == "cuda" and machine.ray_address is None and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no GPU, or no driver for it"
        raise RequestError(f"accelerator: expected a GPU that torch can use, got none ({why}); use --accelerator cpu or auto")


def choose_accelerator(plan: Plan) -> str:
    """`cpu`; `cuda` if that is asked for; `auto` if GPUs are to be used where there are any.

    Tiny networks are bound by the overhead of each operator, which is larger on a GPU: without a wish, one is used only from
    `WORTH` products in a step on (see `step_products`). That threshold is an estimate.
    """
    machine = plan.machine
    if machine.accelerator != "auto":
        return machine.accelerator
    can_be = machine.ray_address is not None or torch.cuda.is_available()
    return "auto" if can_be and step_products(plan) >= WORTH else "cpu"


def decide_accelerator(plan: Plan) -> Plan:
    """The same plan, on what `choose_accelerator` says."""
    machine = replace(plan.machine, accelerator=choose_accelerator(plan))
    return replace(plan, request=replace(plan.request, machine=machine))


def step_products(plan: Plan) -> int:
    """Multiply-accumulates of one forward pass of all replicates, for the network with most MACs among those that may come."""
    batches = next((knob.choices for knob in plan.space.knobs if knob.name == "batch_size"), (64,))
    batch = batch_of(len(plan.task.train), max(int(size) for size in batches))
    return plan.reach().most_macs(plan.goal.budget) * batch * plan.effort.replicates


def accelerator_here(chosen: str) -> str:
    """`cuda` or `cpu`, for what this process trains itself."""
    return "cuda" if chosen != "cpu" and torch.cuda.is_available() else "cpu"
