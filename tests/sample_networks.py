"""Small networks and layers that dendrites can grow on, for the tests that run over all of them."""

import copy
import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import (
    KINDS,
    DendriticLayer,
    Kind,
    Soma,
    add_dendrites_,
    dendritic_layers,
    find_layers,
    train_dendrites_,
)
from dendrite_automl.errors import KindDoesNotSuit

CLASSES = 3
# Kinds of the cell body, which have tests of their own, and of layers; those of the latter that suit every layer.
SOMA_KINDS = [kind for kind in KINDS if KINDS[kind].soma is not None]
LAYER_KINDS = [kind for kind in KINDS if KINDS[kind].soma is None]
ANYWHERE = [kind for kind in LAYER_KINDS if KINDS[kind].tie is None and not KINDS[kind].linear]


@st.composite
def neurons(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A layer of any type that can grow, and an input for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["linear", "sequence", "conv1d", "conv2d"]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    bias, batch = draw(st.booleans()), draw(st.integers(1, 3))
    if kind in ("linear", "sequence"):
        features, out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        shape = (batch, features) if kind == "linear" else (batch, draw(st.integers(1, 4)), features)
        return nn.Linear(features, out, bias=bias, dtype=dtype), torch.randn(shape, dtype=dtype)
    groups = draw(st.integers(1, 3))
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    make = nn.Conv1d if kind == "conv1d" else nn.Conv2d
    layer = make(
        channels,
        out,
        kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.sampled_from([0, 1, 2])),
        padding_mode=draw(st.sampled_from(["zeros", "replicate"])),
        dilation=dilation,
        groups=groups,
        bias=bias,
        dtype=dtype,
    )
    axes = [draw(st.integers(6, 8)) for _ in range(1 if kind == "conv1d" else 2)]
    return layer, torch.randn(batch, channels, *axes, dtype=dtype)


class Sequence(nn.Module):
    """Linear layers on [B, T, F], the last one on the mean over T."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(3, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(torch.tanh(self.embed(x)))).mean(1))


class Residual(nn.Module):
    """Conv2d with GroupNorm around a depthwise and a pointwise layer, and one of two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False)
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.grouped = nn.Conv2d(4, 6, (3, 1), groups=2, padding="same", padding_mode="circular")
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.pointwise(torch.relu(self.depthwise(x)))
        return self.head(self.grouped(x).mean((2, 3)))


def make_separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm1d(6),
        nn.ReLU(inplace=True),
        nn.Conv1d(6, 6, 3, padding=1, groups=6),
        nn.Conv1d(6, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))


NETWORKS = {
    "mlp": (make_mlp, (4,)),
    "sequence": (Sequence, (6, 3)),
    "separable": (make_separable, (4, 12)),
    "residual": (Residual, (2, 8, 8)),
}


def make_network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in evaluation mode with statistics that are not the initial ones, and 24 examples with their classes."""
    torch.manual_seed(3)
    build, shape = NETWORKS[name]
    model, x = build(), torch.randn(24, *shape)
    model.train()(x * 2 + 1)
    return model.eval(), x, torch.arange(24) % CLASSES


def suits(kind: str | None, model: nn.Module, placement: str = "all") -> bool:
    """Whether a kind suits some layer that a placement refers to."""
    try:
        return kind is None or bool(find_layers(model, placement, KINDS[kind]))
    except KindDoesNotSuit:
        return False


PAIRS = [(name, kind) for name in NETWORKS for kind in LAYER_KINDS if suits(kind, NETWORKS[name][0]())]


STACKED: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {  # backbone, input shape, knobs
    "mlp": ("mlp", (6,), {"hidden": 8, "depth": 2}),
    "linear": ("mlp", (2, 3), {"hidden": 8, "depth": 0}),
    "picture": ("conv2d", (9, 9), {"filters": 4, "blocks": 2, "hidden": 6}),
    "channels": ("conv2d", (2, 9, 9), {"filters": 3, "blocks": 1, "growth": "constant"}),
    "separable": ("sepconv1d", (4, 16), {"width": 1.0, "blocks": 2, "kernel": 3}),
    "one_channel": ("sepconv1d", (1, 9), {"width": 0.25, "blocks": 1, "kernel": 5, "stride": 1}),
    "long": ("sepconv1d", (3, 270), {"width": 0.5, "blocks": 1, "kernel": 9, "stride": 2}),
}


def make_replicates(
    case: str, count: int, *, kind: str = "gradient", placement: str = "all", sets: int = 0, dtype: torch.dtype = torch.float32
) -> list[nn.Module]:
    """Networks of one architecture with all numbers random, their dendrites as after a dendrite phase, in training mode."""
    backbone, shape, knobs = STACKED[case]
    models = []
    for r in range(count):
        torch.manual_seed(r)
        model = build_backbone(backbone, shape, CLASSES, knobs)
        for _ in range(sets):
            for name in add_dendrites_(model, kind=kind, placement=placement):
                layer = dendritic_layers(model)[name]
                channels = len(layer.neuron.weight)
                layer.keep_neurons_(torch.randperm(channels)[: math.ceil(layer.kind.share * channels)].sort().values)
        randomise_scalars_(model)
        for layer in dendritic_layers(model).values():
            if layer.perforated:
                layer.freeze_()
        with torch.no_grad():
            for norm in model.modules():
                if isinstance(norm, nn.BatchNorm1d):
                    for tensor in (norm.weight, norm.bias, norm.running_mean):
                        tensor.normal_()
                    norm.running_var.uniform_(0.5, 2)
        models.append(model.to(dtype))
    return models


def randomise_scalars_(model: nn.Module) -> None:
    """Gains and cascades that are not 0, and what terms start with as after some training."""
    with torch.no_grad():
        for layer in dendritic_layers(model).values():
            for scalar in (*layer.gains, *layer.cascade):
                scalar.normal_()
        for soma in model.modules():
            if isinstance(soma, Soma):
                for gain in soma.gains:
                    gain.normal_(0, 0.3)  # squares of squares of large numbers would be infinite
                for own in soma.term.parameters():
                    own.add_(0.1 * torch.randn_like(own))  # equal tensors would be stored once in an ONNX file


def grow_(model: nn.Module, x: Tensor, y: Tensor, kind: str | Kind, sets: int = 2) -> nn.Module:
    """Dendrite sets on all layers, each after its dendrite phase where it has one, with gains and cascades at random."""
    for _ in range(sets):
        add_dendrites_(model, kind=kind, placement="all")
        if (KINDS[kind] if isinstance(kind, str) else kind).perforated:
            train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
        randomise_scalars_(model)
    return model


def card_params(kind: str, neuron: nn.Module, sets: int) -> int:
    """Parameters of D sets as the card of the kind says."""
    own, channels = sum(p.numel() for p in neuron.parameters()), len(neuron.weight)
    groups = getattr(neuron, "groups", 1)
    depthwise = 1 < groups == channels == neuron.in_channels if groups > 1 else False
    scalars = sets * (sets + 1) // 2
    if KINDS[kind].linear:  # in training; see the card for how few are deployed
        passes_on = neuron.in_channels == channels and set(neuron.stride) == {1}
        return sets * (neuron.weight.shape[1] * channels + 2 * channels * (2 if passes_on else 1) + channels)
    if KINDS[kind].tie is not None:
        return channels * (scalars + (2 * sets if kind == "reuse" else 0))
    if kind == "fan_out":
        return sets * (groups * neuron.weight[0].numel() + 1 + channels) + scalars - sets
    if kind == "low_rank" and groups == 1:
        return sets * (neuron.weight[0].numel() + 2 * channels) + channels * scalars
    if kind == "subset" and (groups == 1 or depthwise):
        kept = math.ceil(channels / 2)
        return sets * own // channels * kept + kept * scalars
    return sets * own + channels * scalars


def inputs_and_errors(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Input in float64 and error dL/dy [C, examples * positions] of every dendritic layer, L summed over the examples."""
    double = copy.deepcopy(model).double().requires_grad_(True)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in dendritic_layers(double).items():

        def keep(_layer: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> None:
            output.retain_grad()
            seen[name] = (inputs[0].detach(), output)

        layer.register_forward_hook(keep)
    F.cross_entropy(double(x.double()), y, reduction="sum").backward()
    axes = {name: layer.channel_axis for name, layer in dendritic_layers(double).items()}
    return {name: (i, o.grad.movedim(axes[name], 0).flatten(1).numpy()) for name, (i, o) in seen.items()}


def newest_outputs(layer: DendriticLayer, x: Tensor) -> np.ndarray:
    """Outputs of the layer's newest set in float64, [C, examples * positions]."""
    outputs = copy.deepcopy(layer).double().dendrite_outputs(x)[-1]
    return outputs.detach().movedim(layer.channel_axis, 0).flatten(1).numpy()
