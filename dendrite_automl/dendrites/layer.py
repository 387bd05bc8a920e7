"""DendriticLayer: a layer whose neurons also listen to their own artificial dendrites."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.branches import Branches
from dendrite_automl.dendrites.forms import fan_out, low_rank, narrow_layer
from dendrite_automl.dendrites.fused import Combine, are_alike, call_alike, can_fuse, squash_
from dendrite_automl.dendrites.kinds import Kind
from dendrite_automl.dendrites.tied import TIES, Tied

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
GROWABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
Growable = nn.Linear | nn.Conv1d | nn.Conv2d


def owners_name(d: int) -> str:
    """Name of the buffer with the neurons of partial set `d`."""
    return f"owners_{d}"


def _places_name(d: int) -> str:
    return f"places_{d}"


class DendriticLayer(nn.Module):
    """A Linear, Conv1d or Conv2d layer `M` with D dendrite sets.

    For input x, with one scalar per output channel in every `w_d` and `v_{d,e}`:

        z_d = L_d(x) + sum_{e<d} v_{d,e} * a_e
        a_d = f(z_d)                              linear kinds: a_d = L_d(x)
        y   = M(x) + sum_d w_d * a_d

    `L_d` has the form of M, or a cheaper one, or is M itself called in another way (see `Kind`). Extra parameters if it has
    the form of M, with C output channels: D * params(M) + C * D * (D + 1) / 2. In kind `fan_out` all neurons hear
    the one channel of `a_d`, and `v_{d,e}` is one number.

    Attributes:
        neuron: the layer `M` as it was.
        dendrites: the layers `L_d`.
        gains: `w_d`, each [C] with trailing axes of 1 that broadcast over positions.
        cascade: `v_{d,e}` in the order (1,0), (2,0), (2,1), …, of the same shape.
        rescale: what undoes a folded BatchNorm for dendrites that use the neuron's own weights (see `Tied`); else empty.
        kind: how dendrites are formed and trained.
        perforated: no error flows back through the dendrites, neither to their weights nor to the layer's input.
        fused: in training, convolutions of neuron and dendrites are joined where that is faster; results are equal up to
            rounding. Set it to False for second derivatives and function transforms (torch.func).
        traced: channels are being traced for pruning: of units that all neurons hear, only the gains take part.

    A set that only some neurons keep has outputs, gain and cascade for those only. Two buffers then record which:
    `owners_<d>`, the neurons in the order of the set, and `places_<d>` [C], the index of each neuron's dendrite in the set, or
    one past the end if it has none.

    Source:
        Brenner & Itti, Perforated Backpropagation (arXiv 2501.18018); Fahlman & Lebiere 1989, Cascade-Correlation. Here
        each dendrite belongs to one neuron, and later sets of the same neuron listen to its earlier ones.
    """

    def __init__(self, neuron: Growable, *, kind: Kind, activation: str = "tanh") -> None:
        super().__init__()
        self.neuron = neuron
        self.dendrites = nn.ModuleList()
        self.gains = nn.ParameterList()
        self.cascade = nn.ParameterList()
        self.rescale = nn.ParameterList()
        self.activation = activation
        self.kind = kind
        self.perforated = kind.perforated
        self.fused = True
        self.traced = False

    @property
    def channel_axis(self) -> int:
        """Axis of the neurons in the layer's output."""
        return -1 if isinstance(self.neuron, nn.Linear) else 1

    def add_set_(self) -> None:
        """Add one set with fresh weights and gain 0: the output does not change."""
        earlier = len(self.dendrites)
        self.dendrites.append(self.new_dendrite())
        heard = len(self.dendrites[-1].weight) if self.kind.fan_out else len(self.neuron.weight)  # type: ignore[arg-type]
        self.cascade.extend([self._scalars(heard) for _ in range(0 if self.kind.linear else earlier)])
        self.gains.append(self._scalars(len(self.neuron.weight)))
        self.train(self.training)

    def new_dendrite(self) -> nn.Module:
        """A layer `L` of the kind's form with fresh weights, if it has any."""
        if self.kind.linear:
            return Branches(self.neuron)
        if self.kind.fan_out:
            return narrow_layer(self.neuron, 1, bias=True)
        if self.kind.tie is not None:
            return TIES[self.kind.tie](len(self.dendrites), self.neuron)
        if self.kind.rank is None or not self._is_dense():
            dendrite = copy.deepcopy(self.neuron).requires_grad_(True)
            dendrite.reset_parameters()
            return dendrite
        return low_rank(self.neuron, self.kind.rank)

    def owners_of(self, d: int) -> Tensor | None:
        """The neurons with a dendrite in set `d`, in the order of the set; None if all have one."""
        return self._buffers.get(owners_name(d))

    def drop_set_(self) -> None:
        """Remove the newest set."""
        last = len(self.dendrites) - 1
        self._buffers.pop(owners_name(last), None)
        self._buffers.pop(_places_name(last), None)
        self.dendrites = self.dendrites[:last]
        self.gains = self.gains[:last]
        self.cascade = self.cascade[: last * (last - 1) // 2]

    def keep_neurons_(self, keep: Tensor) -> None:
        """Drop the newest set's dendrites, except those of the neurons `keep` (indices in ascending order).

        A set of low rank, or of a grouped layer that is not depthwise, stays whole.
        """
        whole = isinstance(self.dendrites[-1], Growable) and (self._is_dense() or self._is_depthwise())
        if whole and len(keep) < len(self.neuron.weight):
            self._keep_(len(self.dendrites) - 1, keep)

    def keep_dendrites_(self, chosen: Sequence[Tensor]) -> None:
        """Drop the dendrites of each partial set, except those at the given indices; a whole set stays as it is."""
        partial = [d for d in range(len(self.dendrites)) if self.owners_of(d) is not None]
        keep = {d: self.get_buffer(owners_name(d))[chosen[d]].sort().values for d in partial}
        if any(len(keep[d]) < len(self.gains[d]) for d in partial):
            self.whole_sets_()
            for d in partial:
                self._keep_(d, keep[d])

    def settle_(self) -> None:
        """Give the newest set the size that it will have after the dendrite phase, for estimates without training."""
        channels = len(self.neuron.weight)
        self.keep_neurons_(torch.arange(math.ceil(self.kind.share * channels), device=self.neuron.weight.device))

    def whole_sets_(self) -> list[int]:
        """Give every neuron a dendrite in every set, dead where it had none; return the sets that were partial."""
        partial = [d for d in range(len(self.dendrites)) if self.owners_of(d) is not None]
        for d in partial:
            owners, channels = self.get_buffer(owners_name(d)), len(self.neuron.weight)

            def widened(rows: Tensor, owners: Tensor = owners, channels: int = channels) -> nn.Parameter:
                whole = rows.new_zeros((channels, *rows.shape[1:]))
                whole[owners] = rows.detach()
                return nn.Parameter(whole, rows.requires_grad)

            self._take_rows_(d, widened, channels)
            del self._buffers[owners_name(d)], self._buffers[_places_name(d)]
        return partial

    def partial_sets_(self, sets: list[int]) -> None:
        """Inverse of `whole_sets_`: drop the dead dendrites; if all of a set's are dead, one stays."""
        for d in sets:
            alive = self.dendrites[d].weight.detach().flatten(1).abs().sum(1)  # type: ignore[operator]
            keep = torch.arange(max(1, int((alive > 0).sum())), device=alive.device)
            self._keep_(d, alive.nonzero().flatten() if alive.any() else keep)

    def merge_(self) -> None:
        """Merge linear dendrites into the neuron: the output in evaluation mode stays, and no sets are left."""
        while self.dendrites:
            branches: Any = self.dendrites[-1]
            branches.merge_(self.neuron, self.gains[-1])
            self.drop_set_()

    def take_affine_(self, scale: Tensor, shift: Tensor, bias: Tensor | None) -> None:
        """Make the output `scale` * output + `shift`, each [C], once the neuron alone has become that.

        Args:
            bias: of the neuron before that.
        """
        for d, gain in enumerate(self.gains):
            owners = self.owners_of(d)
            gain.data.mul_((scale if owners is None else scale[owners]).view_as(gain))
        tied = [dendrite for dendrite in self.dendrites if isinstance(dendrite, Tied)]
        for dendrite in tied:
            dendrite.take_affine_(scale, shift)
        if tied:
            known = torch.where(scale == 0, 1, scale)  # where it is 0, so is the gain: any drive will do
            used = tied[0].bias_for_scale(bias)
            undone = [(1 / known).view_as(self.gains[0]), *([] if used is None else [known * used])]
            self.rescale.extend([nn.Parameter(value.detach()) for value in undone])

    def freeze_(self) -> None:
        """Freeze the dendrites; neuron and gains keep learning."""
        self.dendrites.requires_grad_(False)
        self.cascade.requires_grad_(False)

    def dendrite_outputs(self, x: Tensor, *, sets: int | None = None, y: Tensor | None = None) -> list[Tensor]:
        """Outputs a_d of the first `sets` (default: all), each with the shape of the layer's output.

        A set that only some neurons keep has outputs for those only.

        Args:
            y: the neuron's output, if it is known already.
        """
        outputs: list[Tensor] = []
        if self.kind.tie is not None and y is None:
            y = self.neuron(x)
        for d in range(len(self.dendrites) if sets is None else sets):
            z = self.drive(self.dendrites[d], self.cascade_of(d), x, [] if self.kind.linear else outputs, y)
            outputs.append(z if self.kind.linear else ACTIVATIONS[self.activation](z))
        return outputs

    def cascade_of(self, d: int) -> list[nn.Parameter]:
        """v_{d,0} … v_{d,d-1}; none in linear kinds."""
        return [] if self.kind.linear else [self.cascade[d * (d - 1) // 2 + e] for e in range(d)]

    def drive(
        self, dendrite: nn.Module, heard: Sequence[Tensor], x: Tensor, earlier: Sequence[Tensor], y: Tensor | None = None
    ) -> Tensor:
        """z of a dendrite layer that follows the sets with outputs `earlier`, which it receives weighted by `heard`.

        Args:
            y: the neuron's output, for dendrites that use the neuron's own weights.
        """
        d = len(earlier)
        owners = self.owners_of(d)
        if owners is not None and self._is_depthwise():
            x = x.index_select(1, owners)
        z: Tensor = dendrite(x, y, self.neuron, self.rescale) if isinstance(dendrite, Tied) else dendrite(x)
        for e, (scalar, a) in enumerate(zip(heard, earlier, strict=True)):
            z = z + scalar * self._heard(a, e, d)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """[B, …] -> the neuron's output plus what its dendrites add; in training by fused kernels where they are faster."""
        if self.training and self.fused and len(self.dendrites) and can_fuse(x, self.neuron, self.dendrites):
            if self._is_frozen():
                return self._add_frozen(x)
            if not self.perforated and are_alike([self.neuron, *self.dendrites]):
                z = call_alike([self.neuron, *self.dendrites], x)
                fused: Tensor = Combine.apply(z, self.activation, len(self.dendrites), *self.gains, *self.cascade)
                return fused
        y: Tensor = self.neuron(x)
        if self.traced:
            return y + sum(gain * y.detach() for gain in self.gains)
        outputs = self.dendrite_outputs(x.detach() if self.perforated else x, y=y)
        for d, (gain, a) in enumerate(zip(self.gains, outputs, strict=True)):
            y = y + self._weighed(gain, a, d)
        return y

    def _is_frozen(self) -> bool:
        return self.perforated and not any(p.requires_grad for p in (*self.dendrites.parameters(), *self.cascade))

    def _add_frozen(self, x: Tensor) -> Tensor:
        """As `forward`, with frozen dendrites: computed in place, and in one call if all have the same form."""
        y: Tensor = self.neuron(x)
        sets, outputs = len(self.dendrites), list[Tensor]()
        with torch.no_grad():
            parts = list(self.dendrites)
            drives = call_alike(parts, x).chunk(sets, 1) if are_alike([self.neuron, *parts]) else None
            for d, dendrite in enumerate(parts):
                if drives is None:
                    z = self.drive(dendrite, self.cascade_of(d), x, outputs)
                else:
                    z = drives[d]
                    for scalar, a in zip(self.cascade_of(d), outputs, strict=True):
                        z.addcmul_(scalar, a)
                outputs.append(squash_(z, self.activation))
        for d, (gain, a) in enumerate(zip(self.gains, outputs, strict=True)):
            whole = self.owners_of(d) is None and not self.kind.fan_out
            y = torch.addcmul(y, gain, a) if whole else y + self._weighed(gain, a, d)
        return y

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"sets={len(self.dendrites)}, kind={self.kind.name}, activation={self.activation}, perforated={self.perforated}"

    def _weighed(self, gain: Tensor, a: Tensor, d: int) -> Tensor:
        """What set d adds to every neuron."""
        return fan_out(self.neuron, gain, a) if self.kind.fan_out else self._spread(gain * a, d)

    def _spread(self, a: Tensor, d: int) -> Tensor:
        """A set's output for every neuron: 0 where it has no dendrite."""
        places = self._buffers.get(_places_name(d))
        if places is None:
            return a
        axis = self.channel_axis
        nothing = torch.zeros_like(a.narrow(axis, 0, 1))
        return torch.cat([a, nothing], axis).index_select(axis, places)

    def _heard(self, earlier: Tensor, e: int, d: int) -> Tensor:
        """What set d receives from set e: the outputs for the neurons of set d."""
        whole, owners = self._spread(earlier, e), self.owners_of(d)
        return whole if owners is None else whole.index_select(self.channel_axis, owners)

    def _keep_(self, d: int, keep: Tensor) -> None:
        channels = len(self.neuron.weight)
        self._take_rows_(d, lambda rows: nn.Parameter(rows.detach()[keep], rows.requires_grad), len(keep))
        places = torch.full((channels,), len(keep), device=keep.device)
        places[keep] = torch.arange(len(keep), device=keep.device)
        self.register_buffer(owners_name(d), keep)
        self.register_buffer(_places_name(d), places)

    def _take_rows_(self, d: int, take: Callable[[Tensor], nn.Parameter], rows: int) -> None:
        """Replace all parameters of set d, which have one row for each of its neurons."""
        dendrite: Any = self.dendrites[d]
        dendrite.weight = take(dendrite.weight)
        if dendrite.bias is not None:
            dendrite.bias = take(dendrite.bias)
        if isinstance(dendrite, nn.Linear):
            dendrite.out_features = rows
        else:
            dendrite.out_channels = rows
            if self._is_depthwise():
                dendrite.in_channels = dendrite.groups = rows
        for i in range(d * (d - 1) // 2, d * (d + 1) // 2):
            self.cascade[i] = take(self.cascade[i])
        self.gains[d] = take(self.gains[d])

    def _is_dense(self) -> bool:
        return isinstance(self.neuron, nn.Linear) or self.neuron.groups == 1

    def _is_depthwise(self) -> bool:
        neuron = self.neuron
        return not isinstance(neuron, nn.Linear) and 1 < neuron.groups == neuron.in_channels == neuron.out_channels

    def _scalars(self, count: int) -> nn.Parameter:
        weight = self.neuron.weight
        return nn.Parameter(weight.new_zeros((count,) + (1,) * (weight.dim() - 2)))
