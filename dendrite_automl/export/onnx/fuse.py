"""A linear layer and its dendrites as one larger linear layer: how they are exported if that needs no more RAM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites import ACTIVATIONS, DendriticLayer, dendritic_layers
from dendrite_automl.measure import plan_memory


class FusedLinear(nn.Module):
    """One product for the neuron and all dendrites: [..., in] -> [..., (1 + D) * C], split into their drives.

    The same function, parameters and MACs as the dendritic layer that it is made from.
    """

    def __init__(self, layer: DendriticLayer) -> None:
        super().__init__()
        parts = [layer.neuron, *layer.dendrites]
        self.channels, self.activation = len(layer.neuron.weight), layer.activation
        self.joined = nn.Linear(layer.neuron.weight.shape[1], len(parts) * self.channels, bias=layer.neuron.bias is not None)
        with torch.no_grad():
            self.joined.weight.copy_(torch.cat([part.weight for part in parts]))
            if layer.neuron.bias is not None:
                self.joined.bias.copy_(torch.cat([part.bias for part in parts]))
        self.gains, self.cascade = layer.gains, layer.cascade

    def forward(self, x: Tensor) -> Tensor:
        """As `DendriticLayer.forward`."""
        z = self.joined(x)
        y, outputs = z[..., : self.channels], list[Tensor]()
        for d, gain in enumerate(self.gains):
            drive = z[..., (d + 1) * self.channels : (d + 2) * self.channels]
            for e, a in enumerate(outputs):
                drive = drive + self.cascade[d * (d - 1) // 2 + e] * a
            outputs.append(ACTIVATIONS[self.activation](drive))
            y = y + gain * outputs[-1]
        return y


def fuse_heads_(folded: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Replace dendritic linear layers with their fused form, in place, where the network's peak RAM does not rise.

    Convolutions stay as they are: splitting their joined output copies a whole feature map for each dendrite set, which
    raised the peak by 50 to 90 % on the conv2d networks. So do layers in which only some neurons have dendrites, or whose
    dendrites differ in form from the neuron.

    Args:
        folded: with BatchNorm folded, in evaluation mode.

    Returns:
        Names of the layers that were replaced.
    """
    fused = []
    for name, layer in dendritic_layers(folded).items():
        if _is_uniform(layer):
            before = plan_memory(folded, input_shape).peak_bytes
            folded.set_submodule(name, FusedLinear(layer).eval())
            if plan_memory(folded, input_shape).peak_bytes > before:
                folded.set_submodule(name, layer)
            else:
                fused.append(name)
    return fused


def _is_uniform(layer: DendriticLayer) -> bool:
    """Whether all parts are linear layers of one shape, all with a bias or all without."""
    parts = (layer.neuron, *layer.dendrites)
    return all(isinstance(part, nn.Linear) for part in parts) and (
        len({(part.weight.shape, part.bias is None) for part in parts}) == 1
    )
