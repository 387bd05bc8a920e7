"""A neuron and its dendrites in fewer, larger kernels: used in training where benchmarks/dendrite_speed.py found it faster.

Tracers, exporters, counters and pruners still see the parts one by one: see `can_fuse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CALLS: dict[type[nn.Module], Any] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_fuse(x: Tensor, neuron: nn.Linear | nn.Conv1d | nn.Conv2d, dendrites: nn.ModuleList) -> bool:
    """Whether nothing observes the calls of the single parts: no tracer, exporter or hook, and no dtype choice by autocast."""
    return (
        type(x) is Tensor
        and x.dtype == neuron.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and (isinstance(neuron, nn.Linear) or x.dim() == neuron.weight.dim())  # a batch, not a single example
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
        and not any(part.__dict__[hooks] for part in (neuron, *dendrites) for hooks in _HOOKS)
    )


def are_alike(parts: Sequence[nn.Module]) -> bool:
    """Whether the parts are plain convolutions of the same form, so one call with all their channels computes them all."""
    first: Any = parts[0]
    return (
        type(first) in _CALLS
        and first.groups == 1
        and first.padding_mode == "zeros"
        and all(type(part) is type(first) and _shapes(part) == _shapes(first) for part in parts[1:])
    )


def _shapes(part: Any) -> tuple[torch.Size, bool]:
    """The weight's shape, and whether the bias is missing: a folded neuron has one that its dendrites may lack."""
    return part.weight.shape, part.bias is None


def call_alike(parts: Sequence[Any], x: Tensor) -> Tensor:
    """Outputs of parts that are alike, concatenated along the channels."""
    first = parts[0]
    weight = torch.cat([part.weight for part in parts])
    bias = None if first.bias is None else torch.cat([part.bias for part in parts])
    output: Tensor = _CALLS[type(first)](x, weight, bias, first.stride, first.padding, first.dilation)
    return output


def squash_(z: Tensor, activation: str) -> Tensor:
    """Apply the activation in place.

    tanh z = 2 sigmoid(2z) - 1, because on CPUs torch's sigmoid is ten times faster than its tanh: 0.6 ms versus 6 ms for
    2.7 million numbers with torch 2.13. It differs from tanh by rounding, up to 1e-7 in float32.
    """
    if activation == "tanh":
        return z.mul_(2).sigmoid_().mul_(2).sub_(1)
    return z.sigmoid_() if activation == "sigmoid" else z.relu_()


class Combine(torch.autograd.Function):
    """y = z_0 + sum_d w_d * a_d, a_d = f(z_d + sum_{e<d} v_{d,e} * a_e), of z [B, (1 + D) * C, …], which is overwritten."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, activation: str, sets: int, *scalars: Tensor) -> Tensor:
        """`scalars`: the gains, then the cascade, as in a `DendriticLayer`."""
        gains, cascade = scalars[:sets], iter(scalars[sets:])
        y, *outputs = z.chunk(1 + sets, 1)
        for d, a in enumerate(outputs):
            for e in range(d):
                a.addcmul_(outputs[e], next(cascade))
            squash_(a, activation)
            y = torch.addcmul(y, a, gains[d])
        ctx.activation, ctx.sets = activation, sets
        ctx.save_for_backward(z, *scalars)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of z and of the scalars."""
        z, *scalars = ctx.saved_tensors
        sets = ctx.sets
        gains, cascade = scalars[:sets], scalars[sets:]
        outputs = z.chunk(1 + sets, 1)[1:]
        dz = torch.empty_like(z)
        first, *drives = dz.chunk(1 + sets, 1)
        first.copy_(dy)
        scratch, positions = torch.empty_like(dy), [dim for dim in range(dy.dim()) if dim != 1]

        def total(one: Tensor, other: Tensor) -> Tensor:
            return torch.mul(one, other, out=scratch).sum(positions).view_as(gains[0])

        slopes = [*scalars]
        for d in reversed(range(sets)):
            later = [(e, e * (e - 1) // 2 + d) for e in range(d + 1, sets)]
            da = torch.mul(dy, gains[d], out=drives[d])
            for e, place in later:
                da.addcmul_(drives[e], cascade[place])
                slopes[sets + place] = total(drives[e], outputs[d])
            slopes[d] = total(dy, outputs[d])
            times_derivative_(da, outputs[d], ctx.activation)
        return dz, None, None, *slopes


def times_derivative_(slope: Tensor, a: Tensor, activation: str) -> None:
    """Multiply, in place, by the derivative of an activation whose outputs are a."""
    if activation == "tanh":
        torch.ops.aten.tanh_backward.grad_input(slope, a, grad_input=slope)
    elif activation == "sigmoid":
        torch.ops.aten.sigmoid_backward.grad_input(slope, a, grad_input=slope)
    else:
        slope.mul_(a > 0)
