"""Kinds of dendrites: how they are formed, trained and used. Each kind's card is the docstring below it."""

from __future__ import annotations

from dataclasses import dataclass

from dendrite_automl.dendrites.soma import TERMS
from dendrite_automl.dendrites.tied import TIES
from dendrite_automl.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What sets one kind of dendrites apart from another.

    Attributes:
        perforated: dendrites learn in a separate phase, by correlation, and are then frozen; no error flows back
            through them. Otherwise everything learns jointly by back-propagation.
        rank: dendrites are of low rank: `rank` shared features, mixed for each neuron. None: the layer's own form.
        share: fraction of the neurons that keep their dendrite after the dendrite phase: those that gain most from it.
        pool: candidates for each neuron's dendrite in the dendrite phase; the best one stays.
        fit_gains: gains start at the least-squares fit to the error, not at 0.
        tie: how dendrites compute with their neuron's own weights, one of `dendrites.tied.TIES`. None: they have their own.
        linear: dendrites are linear branches without activation, which `fold_` merges into the neuron.
        fan_out: a dendrite belongs to all neurons of its layer: one unit, which each neuron hears with a gain of its own.
        soma: dendrites are no layers, but terms of the neuron's own output, one of `soma.TERMS`: see `Soma`.
    """

    name: str
    perforated: bool
    rank: int | None = None
    share: float = 1.0
    pool: int = 1
    fit_gains: bool = False
    tie: str | None = None
    linear: bool = False
    fan_out: bool = False
    soma: str | None = None

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.pool >= 1 and (self.rank is None or self.rank >= 1)):
            raise RequestError(f'kind "{self.name}": expected 0 < share <= 1, pool >= 1, rank >= 1; got {self}')
        if self.rank is not None and (self.pool > 1 or self.share < 1):
            raise RequestError(f'kind "{self.name}": expected a rank without pool or share, got both; all neurons share a rank')
        if not self.perforated and (self.share < 1 or self.pool > 1 or self.fit_gains):
            raise RequestError(f'kind "{self.name}": share, pool and fit_gains belong to the dendrite phase: set perforated')
        for field, given, known in (("tie", self.tie, TIES), ("soma", self.soma, TERMS)):
            if given not in (None, *known):
                raise RequestError(f'kind "{self.name}": {field}: expected one of {", ".join(known)}, got {given!r}')
        if self.fan_out and (self.share < 1 or self.pool > 1 or self.fit_gains):
            raise RequestError(f'kind "{self.name}": expected fan_out without share, pool and fit_gains, got {self}')
        special = {"tie": self.tie is not None, "linear": self.linear, "soma": self.soma is not None}
        others = {"perforated": self.perforated, "rank": self.rank is not None, "fan_out": self.fan_out, **special}
        for field in (field for field, given in special.items() if given):
            if len(both := [other for other, given in others.items() if given]) > 1:
                raise RequestError(f'kind "{self.name}": expected {field} alone, got {" and ".join(both)}')


GRADIENT = Kind(name="gradient", perforated=False)
"""Kind `gradient`: a dendrite of the layer's own form; everything learns jointly by back-propagation.

Formula: y = M(x) + sum_d w_d * f(L_d(x) + sum_{e<d} v_{d,e} a_e), with M, L, v and w all trained on the loss.

Cost of D sets: D * params(M) + C * D * (D + 1) / 2 parameters, D * macs(M) and one MAC per scalar at each position.
Training costs what a layer of that size costs.

When it helps: it is the control for all other kinds. It is a gated wider layer without a wider output, so the layers after
it stay as they are.

Source: the form of the open package `perforatedai` (Apache-2.0), which has no correlation phase; independent code.
"""

PERFORATED = Kind(name="perforated", perforated=True)
"""Kind `perforated`: dendrites learn to correlate with their own neuron's error, are frozen, and pass no error back.

Formula: in the dendrite phase L_d and v_{d,e} climb |corr(a_d, e)|, e = dL/dy of their own neuron over examples and
positions; in the neuron phase they stay as they are, and M and w learn, with the gradient of the loss through M alone.

Cost of D sets: D * params(M) + C * D * (D + 1) / 2 parameters, D * macs(M) and the scalars. The dendrite phase runs on cached
inputs and errors; a step of the neuron phase costs the forward pass of the dendrites, and no backward pass through them.

When it helps: after the network has stopped improving and before it has fitted the training set: a fully fitted network
leaves little error to correlate with.

Source: Brenner & Itti, Perforated Backpropagation (arXiv 2501.18018); Fahlman & Lebiere 1989.
"""

LOW_RANK = Kind(name="low_rank", perforated=True, rank=1)
"""Kind `low_rank`: as `perforated`, with dendrites that share one feature of the input (rank 1).

Formula: L_d(x) = U_d K_d(x), K_d a layer of M's form with 1 output channel (kernel, stride, padding, dilation of M, no bias),
U_d a bias and one weight for each neuron.

Cost of a set on a convolution of C_in x k to C channels: C_in * k + 2 * C + C * d parameters (d earlier sets) instead of
(C_in * k + 1) * C, and correspondingly fewer MACs. Depthwise and grouped layers keep their own form: they are already narrow.

When it helps: where a full set is too expensive and the neurons' errors have a common cause.

Source: low-rank factorisation (Denil et al. 2013, Sainath et al. 2013) of the dendrite; the combination is ours.
"""

SUBSET = Kind(name="subset", perforated=True, share=0.5)
"""Kind `subset`: as `perforated`, but only half of the neurons keep their dendrite, those that gain most from it.

Formula: after the dendrite phase neurons are ranked by cov(a, e)^2 / var(a), the part of the error's energy that the
dendrite explains; all dendrites of a layer cost the same, so this is the gain per parameter. The others are dropped.

Cost of a set: half of what `perforated` costs, rounded up to whole neurons. Grouped layers that are not depthwise keep all.

When it helps: where a few neurons account for most of the error, as in the last layer with one hard class.

Source: the selection of Cascade-Correlation (Fahlman & Lebiere 1989), applied to neurons; the ranking is ours.
"""

POOL = Kind(name="pool", perforated=True, pool=4)
"""Kind `pool`: as `perforated`, with four candidates for each neuron's dendrite; the one that correlates best stays.

Formula: candidates start from different random weights and climb the same correlation; each neuron keeps its own
argmax_p |corr(a_p, e)|.

Cost: as `perforated` in the network; four times the dendrite phase, which is cheap because it runs on cached inputs.

When it helps: where the climb ends in poor local maxima, which is what pools of candidates are for.

Source: Fahlman & Lebiere 1989, section 3 (a pool of candidate units, the best one is installed).
"""

FITTED = Kind(name="fitted", perforated=True, fit_gains=True)
"""Kind `fitted`: as `perforated`, with gains that start at the least-squares fit to the error instead of 0.

Formula: w = -eta * cov(a, e) / var(a) for each neuron, the least-squares fit of the error by the dendrite's output; the
neuron's bias takes -w * mean(a), so what is added has mean 0. A neuron without a trainable bias uses the fit without
an intercept, w = -eta * sum(a e) / sum(a a). eta is 0 or one of a geometric series of steps, whichever gives the lowest loss
over the training set, so the loss never rises; with 0 nothing changes.

Cost: as `perforated`, plus a few passes over the training set after the dendrite phase. `drop_dendrites_` leaves the bias as
it is then.

When it helps: where the neuron phase is short: the gains need not find their way from 0.

Source: the output weights of Cascade-Correlation are a least-squares problem once the candidate is frozen (Fahlman &
Lebiere 1989, section 2); the step along it is ours, because the error here is a gradient, not a residual.
"""

SHARED = Kind(name="shared", perforated=False, tie="dilated")
"""Kind `shared`: a dendrite is its neuron's own kernel at another dilation; everything learns jointly by back-propagation.

Formula: a_d = f(M_{d+1}(x) + sum_{e<d} v_{d,e} a_e), M_{d+1} the layer itself (weights and bias, not a copy) at d + 1 times its
dilation, padded so that the output has the same shape; y = M(x) + sum_d w_d a_d.

Cost of D sets: C * D * (D + 1) / 2 parameters, D * macs(M) and one MAC per scalar at each position. Folding a BatchNorm scales
M's weights; the scale is undone for the dendrites: C more parameters a layer (2 C if M has a bias of its own) and C * D more
MACs at each position. Only convolutions with an odd kernel larger than 1, dense or grouped, at any stride.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters, five data sets, 700 to 3,000 parameters): +0.13 +- 0.34 points on average (24 seeds), no evidence;
up to +1.3 on plain 2-D convolutions (MNIST-5k), nothing on separable 1-D networks, and less than nothing at equal MACs.

Source: convolutions that share their weights at several dilations (TridentNet, Li et al. 2019, arXiv 1901.01892), here as the
dendrites of a neuron; the combination is ours.
"""

REUSE = Kind(name="reuse", perforated=False, tie="again")
"""Kind `reuse`: a dendrite is its neuron's layer run again on its own output; everything learns jointly by back-propagation.

Formula: a_d = f(W(g_d * y + b_d) + sum_{e<d} v_{d,e} a_e), y = M(x), W the layer M without its bias (not a copy), g and b one
number per channel, about 1 and 0 at first; the layer's output is y + sum_d w_d a_d.

Cost of D sets: 2 * C * D + C * D * (D + 1) / 2 parameters, D * macs(M) and one MAC per number in g and scalar at each position.
Folding a BatchNorm scales M's weights; the scale is undone for the dendrites: C more parameters a layer and C * D more MACs at
each position. Only convolutions with as many outputs as inputs, stride 1 and an output as large as the input. Pruning takes the
same channels out of the layer's input and output.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters, five data sets, 700 to 3,000 parameters): -0.42 points on average in the
screening (8 seeds), so it was not tested further.

Source: recurrent convolutional layers (Liang & Hu 2015), with one step as the dendrite of a neuron; the combination is ours.
"""

FOLD_AWAY = Kind(name="fold_away", perforated=False, linear=True)
"""Kind `fold_away`: linear branches in training, merged into their neuron for deployment; everything learns jointly.

Formula: y = M(x) + sum_d w_d L_d(x), L_d(x) = norm(K_d(x)) + norm(x), K_d a convolution with kernel 1 and M's groups and
stride, the second term only where M has as many inputs as outputs and stride 1; each norm is a BatchNorm of its own. There are
no activations and no cascade.

Cost: nothing in the deployed network but a bias where M had none: `fold_` adds w_d L_d, which is linear in evaluation mode, to
the centre of M's kernel and to its bias. A set in training: a pointwise layer and its norms. Only convolutions with an odd
kernel larger than 1 that are padded so that the centre of a window lies on the input.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters, five data sets, 700 to 3,000 parameters): -0.04 points on average in the
screening (8 seeds), so it was not tested further.

Source: RepVGG (Ding et al. 2021, arXiv 2101.03697), section 3; here each neuron has a gain on its branches, which is 0 at
first, so that they can be added to a trained network.
"""

FAN_OUT = Kind(name="fan_out", perforated=False, fan_out=True)
"""Kind `fan_out`: a dendrite is one unit that all neurons of its layer hear; everything learns jointly.

Formula: y = M(x) + sum_d w_d * f(K_d(x) + sum_{e<d} v_{d,e} a_e), K_d a layer of M's kernel with one output, w_d one number for
each of the C neurons, v_{d,e} one number.

Cost of D sets on a convolution of C_in x k to C channels: D * (C_in * k + 1 + C) + D * (D - 1) / 2 parameters, and as many
MACs at each position, without the biases. A grouped layer's unit reads all of its inputs. Replicates are trained one by one,
not stacked, which takes longer.

When it helps: it is the control for dendrites that belong to one neuron: a copy of a neuron costs as many inputs and feeds one.
There are no figures yet.

Source: the hidden unit of Cascade-Correlation (Fahlman & Lebiere 1989), which hears the inputs and the earlier units and feeds
all outputs. With `Kind(name=..., perforated=True, fan_out=True)` it learns as theirs do, by its correlations with all neurons'
errors (their mean), and is frozen.
"""

SQUARE = Kind(name="square", perforated=False, soma="square")
"""Kind `square`: a neuron hears the square of its own output.

Formula: y = z + gain * z * z, z the output after normalisation and before the nonlinearity; everything learns jointly.

Cost: C parameters, 2 MACs for each number of z. One set per place: a square of a square would be another kind.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters; 24 seeds, five data sets, 700 to 3,000 parameters): +0.40 +- 0.33 points on average, not
significant after correction (p 0.054); +1.5 on plain 2-D convolutions of 700 parameters, nothing on separable 1-D networks, and
less than nothing at equal peak RAM (-0.50 +- 0.34).

Source: quadratic neurons (Fan, Cong & Wang 2018, "A new type of neurons for machine learning"), reduced to the neuron's own
output; the gain per channel that starts at 0 is ours.
"""

STATISTICS = Kind(name="statistics", perforated=False, soma="statistics")
"""Kind `statistics`: the average over all positions before the head hears the map's largest number and standard deviation.

Formula: y = mean(h) + u * max(h) + v * std(h) for each channel; std is at least 0.01. Everything learns jointly.

Cost: 2C parameters and MACs, and a second pass over the last map, which counts as pooling: no MACs. One set per network.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters; 24 seeds, five data sets, 700 to 3,000 parameters): +0.42 +- 0.31 points on average,
significant after correction, also at equal peak RAM (int8, +0.42 +- 0.31); none at equal MACs (-0.12 +- 0.28). Up to +0.9 on
plain 2-D convolutions (MNIST-5k); within the noise on separable 1-D networks. The gain over the next larger plain network is
-0.12 +- 0.28. Added after half of the training it gains nothing (-0.08 +- 0.32).

Source: statistics pooling (Snyder et al. 2018, "X-vectors"), which concatenates mean and deviation; here they are
added with a gain per channel, so the head stays as small as it was. The maximum beside them is ours.
"""

PRODUCT = Kind(name="product", perforated=False, soma="product")
"""Kind `product`: a neuron hears the product of its own output with that of a neighbouring position.

Formula: y = z + gain * z * shift(z), z the output after normalisation and before the nonlinearity; shift moves it by one step
along the last axis of 2-D maps and by two steps of 1-D ones, and zeros move in. Everything learns jointly.

Cost: C parameters, 2 MACs for each number of z, and RAM for a second map. One set per place. Maps must be longer than a shift.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters; 24 seeds, five data sets, 700 to 3,000 parameters): +0.70 +- 0.32 points on average,
significant after correction. On plain 2-D convolutions up to +2.0 (MNIST-5k, 700 parameters), on separable 1-D networks within
the noise but for spoken digits. No gain at equal MACs (-0.04 +- 0.30). The gain over the next larger plain network is
+0.22 +- 0.29. Added after half of the training it gains no more than noise (+0.18 +- 0.32).

Source: multiplicative interactions of neighbouring synapses on a dendrite (Mel 1993, "Synaptic integration in an excitable
dendritic tree"; Poirazi, Brannon & Mel 2003); their reduction to one neuron's neighbouring outputs is ours.
"""

FUNNEL = Kind(name="funnel", perforated=False, soma="funnel")
"""Kind `funnel`: a neuron hears what a small window around it has more of than its own output.

Formula: y = z + gain * relu(dw(z) + b - z), dw a depthwise convolution of 3 x 3 (1-D: 3) with padding, z the output after
normalisation and before the nonlinearity. With a gain of 1 it is the funnel activation max(z, dw(z) + b). Everything learns
jointly. The window stores dw with the -1 of -z in its centre, so weight decay draws that towards 0, too.

Cost: C(k + 2) parameters, k = 9 (1-D: 3); k + 1 MACs for each number of z, and RAM for a second map. One set per place.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters, five data sets, 700 to 3,000 parameters): -0.23 points on average in the
screening (8 seeds), so it was not tested further.

Source: FReLU (Ma, Zhang & Sun 2020, "Funnel Activation for Visual Recognition", equation 2), where it replaces the nonlinearity
and dw is followed by BatchNorm; here the nonlinearity stays, the gain starts at 0, and b takes the place of BatchNorm.
"""

GATE = Kind(name="gate", perforated=False, soma="gate")
"""Kind `gate`: a neuron's output is scaled by how active it is over the whole map.

Formula: y = z + gain * z * tanh(v * mean(z) + b), the mean over all positions, z the output after normalisation and before the
nonlinearity; v starts at 1, b at 0. Everything learns jointly.

Cost: 3C parameters, 2 MACs for each number of z and C for v, and RAM for a second map. One set per place.

When it helps (`benchmarks/dendrites_experiment.py`, trained jointly from the start, against plain networks of exactly as many
parameters, five data sets, 700 to 3,000 parameters): +0.01 +- 0.34 points on average (24 seeds), no
evidence, and less than nothing at equal MACs.

Source: channel gating after squeeze-and-excitation (Hu, Shen & Sun 2018), with each channel hearing only itself, as in gated
channel transformation (Yang et al. 2020), from where the tanh and the start at an unchanged output are.
"""

_LAYERS = (GRADIENT, PERFORATED, LOW_RANK, SUBSET, POOL, FITTED, SHARED, REUSE, FOLD_AWAY, FAN_OUT)
_SOMAS = (SQUARE, STATISTICS, PRODUCT, FUNNEL, GATE)
KINDS = {kind.name: kind for kind in (*_LAYERS, *_SOMAS)}


def find_kind(kind: str | Kind) -> Kind:
    """A kind by its name, of `KINDS`; a `Kind` is its own.

    Raises:
        RequestError: there is none of that name.
    """
    if isinstance(kind, Kind):
        return kind
    if kind not in KINDS:
        raise RequestError(f'dendrites: kind: expected one of {", ".join(KINDS)}, got "{kind}"')
    return KINDS[kind]
