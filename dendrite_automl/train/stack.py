"""R replicates of one architecture as one network: tiny networks are bound by operator overhead, not by arithmetic.

stacked = stack(models)      # the same forward code; every layer with weights holds those of all replicates
...                          # train it: replicates never mix
unstack_(stacked, models)    # the trained values back into the plain networks

An activation [B, C, …] of one network becomes [B, R * C, …], replicate after replicate along the channels, so code
between the layers (ReLU, pooling, residual sums) computes the same as before. In memory, 1-D activations lie channel by channel
([R * C, B, T], a transposed view), so a pointwise convolution is one batched matrix product over all replicates, and a
depthwise one is a batched product with one banded matrix per channel; 2-D activations use torch's channels_last format.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.backbones.modules import AsImage
from dendrite_automl.dendrites import DendriticLayer, Tied
from dendrite_automl.dendrites.soma import Term
from dendrite_automl.errors import RequestError

# A banded matrix spends T products where a kernel needs K; up to this many steps it is still faster.
_LONGEST_BANDED = 128
_WITHOUT_WEIGHTS = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.Identity,
    nn.Dropout,
    nn.Flatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def can_stack(model: nn.Module) -> bool:
    """Whether every layer is of a type that `stack` knows, and no two share a weight.

    What a model's own code does between them is checked by `agrees`.
    """
    values = list(model.state_dict(keep_vars=True).values())
    return len({id(value) for value in values}) == len(values) and all(map(_can_stack_layer, model.modules()))


def _can_stack_layer(module: nn.Module) -> bool:
    if type(module) in (*_NORMS, nn.Linear, nn.Conv1d, nn.Conv2d):
        options = module.__dict__
        plain = options.get("padding_mode", "zeros") == "zeros" and not isinstance(options.get("padding"), str)
        return plain and module._parameters.keys() <= {"weight", "bias"}  # no weight that is computed from others
    if isinstance(module, nn.Flatten):
        return module.start_dim == 1
    container = bool(module._modules) and not module._parameters and not module._buffers
    if isinstance(module, DendriticLayer):
        return not module.kind.fan_out  # one channel, which all neurons of one replicate hear
    known = type(module) in (*_WITHOUT_WEIGHTS, AsImage)
    return known or container or isinstance(module, Term | Tied | nn.ModuleList | nn.ParameterList)


def stack(models: Sequence[nn.Module]) -> nn.Module:
    """One network that computes all models at once: [B, R * C, …] -> [B, R * classes], replicate after replicate.

    Args:
        models: of one architecture: the same code and the same shapes; they stay as they are.

    Raises:
        RequestError: a layer of a type that cannot be stacked, or shapes that differ.
    """
    first = models[0]
    if not can_stack(first):
        raise RequestError(f"stack: {type(first).__name__} has layers that cannot be stacked; train its replicates one by one")
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in models]
    if any(other != shapes[0] for other in shapes):
        raise RequestError("stack: expected networks of one architecture, got different shapes")
    return _stacked(list(models)).train(first.training)


def agrees(stacked: nn.Module, models: Sequence[nn.Module], x: Tensor) -> bool:
    """Whether a stacked network computes what the networks compute on examples like x [B, …], and learns what they learn.

    It does not if a model's own code mixes channels, for example by a mean over axis 1. That code runs in training mode; single
    layers run in evaluation mode, where they depend neither on chance nor on the batch. Networks on a GPU are compared as
    copies on the CPU: a GPU may round products to 10 bits (TF32), which would look like replicates that mix.
    """
    if x.device.type != "cpu":
        on_cpu = [copy.deepcopy(model).cpu() for model in (stacked, *models)]
        return agrees(on_cpu[0], on_cpu[1:], x.cpu())
    count, training = len(models), models[0].training
    # Each replicate gets the examples with its own noise: equal replicates, or silent inputs, would not reveal mixing.
    chance = torch.Generator().manual_seed(0)
    xs = torch.cat([x + torch.randn(x.shape, generator=chance).to(x) for _ in models])
    for model in (stacked, *models):
        for module in model.modules():
            module.training = bool(module._modules)
    try:
        alone = torch.cat([model(part) for model, part in zip(models, xs.chunk(count), strict=True)], 1)
        together = stacked(side_by_side(xs, count))
        if alone.shape != together.shape:
            return False
        weight = torch.randn(alone.shape, generator=chance).to(alone)
        losses = (alone * weight).chunk(count, 1)
        own = [torch.cat(of_one) for of_one in zip(*map(_slopes, models, losses), strict=True)]
        slopes, theirs = (torch.cat(of_all) for of_all in (own, _slopes(stacked, together * weight)))
        return _close(alone.detach(), together.detach()) and _close(slopes, theirs)
    except Exception:  # whatever a model's own code raises on shapes that it does not expect
        return False
    finally:
        for model in (stacked, *models):
            model.train(training)


def _slopes(model: nn.Module, loss: Tensor) -> list[Tensor]:
    """Gradient of the sum of `loss` with respect to each parameter, flat; 0 where the loss does not depend on it."""
    learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = loss.sum() + sum(0 * parameter.sum() for parameter in learn)
    return [slope.flatten() for slope in torch.autograd.grad(total, learn, retain_graph=True)]


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal up to rounding, which scales with the largest number: replicates that mix are off by far more."""
    scale = one.nan_to_num(0, 0, 0).abs().max().item()
    return one.shape == other.shape and torch.allclose(one, other, 1e-3, 1e-4 * scale, equal_nan=True)


def side_by_side(x: Tensor, replicates: int) -> Tensor:
    """Examples of each replicate [R * B, C, …] -> input of a stacked network [B, R * C, …], channel by channel in memory."""
    if replicates == 1:
        return x
    parts = x.view(replicates, -1, *x.shape[1:]).transpose(1, 2)  # [R, C, B, …]
    return parts.reshape(replicates * x.shape[1], -1, *x.shape[2:]).transpose(0, 1)


@torch.no_grad()
def unstack_(stacked: nn.Module, models: Sequence[nn.Module]) -> None:
    """Copy the values of a stacked network into the networks that it was made from, in place."""
    modules = dict(stacked.named_modules())
    for r, model in enumerate(models):
        for name, module in model.named_modules():
            source: Any = modules[name]
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if key.startswith(("owners_", "places_")):
                    continue  # which neurons own a set's dendrites does not change in training
                stored = getattr(source, key) if not key.isdigit() else source[int(key)]
                tensor.copy_(stored if not stored.dim() else stored.view(len(models), *tensor.shape)[r])


def _stacked(models: list[Any]) -> Any:
    first = models[0]
    if isinstance(first, nn.Linear):
        return StackedLinear(models)
    if isinstance(first, nn.Conv1d):
        return StackedConv1d(models)
    if isinstance(first, nn.Conv2d):
        return _conv2d(models)
    if isinstance(first, _NORMS):
        return _norm(models)
    if isinstance(first, AsImage):
        return StackedAsImage(len(models))
    if isinstance(first, nn.ParameterList):  # gains and cascade of dendrites
        return nn.ParameterList([_parameter([model[i] for model in models]) for i in range(len(first))])
    shell = copy.copy(first)
    shell._modules = {name: _stacked([model._modules[name] for model in models]) for name in first._modules}
    if isinstance(first, DendriticLayer):
        shell.fused = False
        shell._buffers = _placed(models)
    if type(first) is nn.Sequential:
        _relu_in_place_(shell)
    return shell


def _relu_in_place_(layers: nn.Sequential) -> None:
    """After a 2-D norm or convolution, whose output nothing else reads: the caches then hold more of the rest."""
    for before, after in itertools.pairwise(layers):
        if isinstance(before, nn.BatchNorm2d | nn.Conv2d) and isinstance(after, nn.ReLU):
            after.inplace = True


def _parameter(values: list[Tensor]) -> nn.Parameter:
    """[C, …] of each replicate -> [R * C, …]."""
    return nn.Parameter(torch.cat([value.detach() for value in values]), values[0].requires_grad)


def _placed(layers: list[DendriticLayer]) -> dict[str, Tensor]:
    """Which neurons keep a dendrite, in the numbering of the stacked channels."""
    placed: dict[str, Tensor] = {}
    neurons = len(layers[0].neuron.weight)
    for name in layers[0]._buffers:
        values = [layer.get_buffer(name) for layer in layers]
        if name.startswith("owners_"):
            placed[name] = torch.cat([value + r * neurons for r, value in enumerate(values)])
        else:
            kept = len(layers[0].get_buffer(name.replace("places_", "owners_")))
            moved = [torch.where(value < kept, value + r * kept, len(layers) * kept) for r, value in enumerate(values)]
            placed[name] = torch.cat(moved)
    return placed


class StackedLinear(nn.Linear):
    """Linear layers, side by side: [..., R * in] -> [..., R * out]."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        nn.Module.__init__(self)
        first = layers[0]
        self.in_features, self.out_features, self.replicates = first.in_features, first.out_features, len(layers)
        self.weight = _parameter([layer.weight for layer in layers])  # [R * out, in]
        self.bias = None if first.bias is None else _parameter([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        """One batched matrix product."""
        r, out = self.replicates, self.out_features
        rows = x.reshape(-1, r, self.in_features).transpose(0, 1)  # [R, N, in]
        y = _product(
            rows, self.weight.view(r, out, -1).transpose(1, 2), None if self.bias is None else self.bias.view(r, 1, out)
        )
        return y.transpose(0, 1).reshape(*x.shape[:-1], r * out)


class StackedConv1d(nn.Module):
    """1-D convolutions, side by side: [B, R * C_in, T] -> [B, R * C_out, T'], in channel-by-channel memory."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        first = layers[0]
        self.replicates = len(layers)
        self.in_channels, self.out_channels = self.replicates * first.in_channels, self.replicates * first.out_channels
        self.groups = self.replicates * first.groups
        self.kernel_size, self.stride, self.padding, self.dilation = (
            first.kernel_size,
            first.stride,
            first.padding,
            first.dilation,
        )
        self.weight = _parameter([layer.weight for layer in layers])  # [R * C_out, C_in / groups, K]
        self.bias = None if first.bias is None else _parameter([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        """The fastest of three ways; all give the same up to rounding."""
        if self.groups == self.in_channels == self.out_channels > self.replicates and x.shape[2] <= _LONGEST_BANDED:
            rows = x.transpose(0, 1)  # [R * C, B, T]
            bias = None if self.bias is None else self.bias.view(-1, 1, 1)
            return _product(rows, self._bands(x.shape[2]), bias).transpose(0, 1)
        if self.groups == self.replicates and (self.kernel_size == (1,) or not x.requires_grad):
            return self._as_product(x)
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _as_product(self, x: Tensor) -> Tensor:
        r, batch, size = self.replicates, len(x), self.kernel_size[0]
        x = x.transpose(0, 1)  # [R * C_in, B, T]
        if size == 1 and self.stride == (1,) and not self.padding[0]:
            patches = x
        else:
            padded = F.pad(x, (self.padding[0], self.padding[0])) if self.padding[0] else x
            reach = self.dilation[0] * (size - 1) + 1
            windows = padded.unfold(2, reach, self.stride[0])[..., :: self.dilation[0]]  # [R * C_in, B, T', K]
            patches = windows.permute(0, 3, 1, 2)  # [R * C_in, K, B, T']
        steps = patches.shape[-1]
        patches = patches.reshape(r, -1, batch * steps)  # [R, C_in * K, B * T']
        bias = None if self.bias is None else self.bias.view(r, -1, 1)
        y = _product(self.weight.view(r, self.out_channels // r, -1), patches, bias)
        return y.view(-1, batch, steps).transpose(0, 1)

    def _bands(self, steps: int) -> Tensor:
        """[R * C, T, T']: y[o] = sum_t x[t] * w[t - o * stride + padding], the kernel with its dilation."""
        kernel = self.weight.flatten(1)  # [R * C, K]
        if self.dilation[0] > 1:
            spread = kernel.new_zeros(len(kernel), self.dilation[0] * (kernel.shape[1] - 1) + 1)
            spread[:, :: self.dilation[0]] = kernel
            kernel = spread
        padding, reach = int(self.padding[0]), kernel.shape[1]
        outputs = steps + 2 * padding - reach + 1
        padded = F.pad(kernel, (outputs - 1 - padding, steps - reach + padding))
        return padded.unfold(1, outputs, 1).flip(2)[..., :: self.stride[0]]


class StackedAsImage(nn.Module):
    """[B, R * height, width] -> [B, R, height, width]."""

    def __init__(self, replicates: int) -> None:
        super().__init__()
        self.replicates = replicates

    def forward(self, x: Tensor) -> Tensor:
        """One image per replicate."""
        return x.reshape(len(x), self.replicates, -1, x.shape[-1]).contiguous(memory_format=torch.channels_last)


class StackedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over channel-by-channel memory, as one long example."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, R * C] or [B, R * C, T]."""
        if x.dim() == 2:
            return super().forward(x)
        channels = x.transpose(0, 1)  # [R * C, B, T]
        return super().forward(channels.reshape(1, x.shape[1], -1)).view(channels.shape).transpose(0, 1)


def _conv2d(layers: list[Any]) -> Any:
    """2-D convolutions as the groups of a single one, in channels_last format: they are bound by arithmetic."""
    grouped = copy.copy(layers[0])
    grouped._parameters = dict(layers[0]._parameters)
    r = len(layers)
    grouped.in_channels, grouped.out_channels, grouped.groups = (
        r * grouped.in_channels,
        r * grouped.out_channels,
        r * grouped.groups,
    )
    grouped.weight = _parameter([layer.weight for layer in layers])
    if grouped.bias is not None:
        grouped.bias = _parameter([layer.bias for layer in layers])
    return grouped


def _norm(norms: list[Any]) -> Any:
    first = norms[0]
    stacked = copy.deepcopy(first)
    if isinstance(first, nn.BatchNorm1d):
        stacked.__class__ = StackedBatchNorm1d
    stacked.num_features = len(norms) * first.num_features
    for key, value in first._parameters.items():
        stacked._parameters[key] = None if value is None else _parameter([norm._parameters[key] for norm in norms])
    for key, value in first._buffers.items():
        if value is not None and value.dim():
            stacked._buffers[key] = torch.cat([norm._buffers[key] for norm in norms])
    return stacked


def _product(one: Tensor, other: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(one, other) if bias is None else torch.baddbmm(bias, one, other)
