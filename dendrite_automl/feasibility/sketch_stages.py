"""The sketch of a candidate's network after each of its stages."""

from __future__ import annotations

from collections.abc import Iterator

from dendrite_automl.backbones import BACKBONES
from dendrite_automl.candidate import Candidate
from dendrite_automl.dendrites import ACTIVATIONS, KINDS, PLACEMENTS, find_kind
from dendrite_automl.feasibility.sketch import Sketch
from dendrite_automl.feasibility.sketch_dendrites import add_sets_
from dendrite_automl.feasibility.sketch_prune import prune_sketch_, shrink_sketch_
from dendrite_automl.feasibility.sketch_somas import add_somas_

_REMOVE = ("shrink", "prune")


def can_sketch(candidate: Candidate) -> bool:
    """Whether all that a candidate does to its network can be sketched; otherwise the network has to be built."""
    words = [stage.op for stage in candidate.stages]
    removing = [word for word in words if word in _REMOVE]
    grown = [stage for stage in candidate.stages if stage.op == "grow"]
    if candidate.backbone not in BACKBONES or "prune" in removing[1:]:  # which depends on the weights that were left
        return False
    if any(s.kind not in KINDS or s.placement not in PLACEMENTS or s.activation not in ACTIVATIONS for s in grown):
        return False
    kinds = [KINDS[str(stage.kind)] for stage in grown]
    if all(kind.soma is not None for kind in kinds):
        return len(kinds) <= 1
    own = all(kind.soma is None and kind.tie is None and not kind.linear and not kind.fan_out for kind in kinds)
    return own and not any(word in _REMOVE for word in words[words.index("grow") :])  # dendrites have channels, too


def sketch_stages(candidate: Candidate, input_shape: tuple[int, ...], classes: int) -> Iterator[Sketch]:
    """The untrained network after each stage: one sketch, changed in place.

    Raises:
        CandidateFailed: a stage cannot be carried out.
        RequestError: a knob is out of range.
    """
    layers = BACKBONES[candidate.backbone].list_layers(input_shape, classes, **dict(candidate.network))
    sketch = Sketch(layers, input_shape)
    for stage in candidate.stages:
        if stage.op == "grow":
            kind = find_kind(str(stage.kind))
            (add_sets_ if kind.soma is None else add_somas_)(sketch, kind, str(stage.placement))
        elif stage.op == "shrink":
            shrink_sketch_(sketch, float(stage.ratio or 0))
        elif stage.op == "prune":
            prune_sketch_(sketch, float(stage.ratio or 0))
        yield sketch
