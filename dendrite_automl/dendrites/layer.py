"""DendriticLayer: a layer whose neurons also listen to their own artificial dendrites."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
GROWABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
Growable = nn.Linear | nn.Conv1d | nn.Conv2d


class DendriticLayer(nn.Module):
    """A Linear, Conv1d or Conv2d layer `M` with D dendrite sets of the same form.

    For input x, with one scalar per output channel in every `w_d` and `v_{d,e}`:

        z_d = L_d(x) + sum_{e<d} v_{d,e} * a_e
        a_d = f(z_d)
        y   = M(x) + sum_d w_d * a_d

    Extra parameters: D * params(M) + C * D * (D + 1) / 2, C output channels.

    Attributes:
        neuron: the layer `M` as it was.
        dendrites: the layers `L_d`.
        gains: `w_d`, each [C] with trailing axes of 1 that broadcast over positions.
        cascade: `v_{d,e}` in the order (1,0), (2,0), (2,1), …, shaped alike.
        perforated: no error flows back through the dendrites, neither to their weights nor to the layer's input.

    Source:
        Brenner & Itti, Perforated Backpropagation (arXiv 2501.18018); Fahlman & Lebiere 1989, Cascade-Correlation. Here
        each dendrite belongs to one neuron, and later sets of the same neuron listen to its earlier ones.
    """

    def __init__(self, neuron: Growable, *, activation: str = "tanh", perforated: bool = False) -> None:
        super().__init__()
        self.neuron = neuron
        self.dendrites = nn.ModuleList()
        self.gains = nn.ParameterList()
        self.cascade = nn.ParameterList()
        self.activation = activation
        self.perforated = perforated

    def add_set_(self) -> None:
        """Add one set with fresh weights and gain 0: the output stays what it was."""
        earlier = len(self.dendrites)
        dendrite = copy.deepcopy(self.neuron).requires_grad_(True)
        dendrite.reset_parameters()
        self.dendrites.append(dendrite)
        self.cascade.extend([self._scalars() for _ in range(earlier)])
        self.gains.append(self._scalars())
        self.train(self.training)

    def drop_set_(self) -> None:
        """Remove the newest set."""
        last = len(self.dendrites) - 1
        self.dendrites = self.dendrites[:last]
        self.gains = self.gains[:last]
        self.cascade = self.cascade[: last * (last - 1) // 2]

    def freeze_(self) -> None:
        """Keep the dendrites as they are; neuron and gains go on learning."""
        self.dendrites.requires_grad_(False)
        self.cascade.requires_grad_(False)

    def dendrite_outputs(self, x: Tensor) -> list[Tensor]:
        """Outputs a_d of all sets, each of the shape of the layer's output."""
        squash = ACTIVATIONS[self.activation]
        outputs: list[Tensor] = []
        scalars = iter(self.cascade)
        for dendrite in self.dendrites:
            z = dendrite(x)
            for earlier in outputs:
                z = z + next(scalars) * earlier
            outputs.append(squash(z))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] -> the neuron's output plus what its dendrites add."""
        y: Tensor = self.neuron(x)
        outputs = self.dendrite_outputs(x.detach() if self.perforated else x)
        for gain, a in zip(self.gains, outputs, strict=True):
            y = y + gain * a
        return y

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"sets={len(self.dendrites)}, activation={self.activation}, perforated={self.perforated}"

    def _scalars(self) -> nn.Parameter:
        weight = self.neuron.weight
        return nn.Parameter(weight.new_zeros((weight.shape[0],) + (1,) * (weight.dim() - 2)))
