"""The sketch of a candidate's network after each of its stages."""

from __future__ import annotations

from collections.abc import Iterator

from dendrite_automl.backbones import BACKBONES
from dendrite_automl.candidate import Candidate
from dendrite_automl.dendrites import ACTIVATIONS, KINDS, PLACEMENTS, find_kind
from dendrite_automl.feasibility.sketch import Sketch
from dendrite_automl.feasibility.sketch_grow import add_somas_
from dendrite_automl.feasibility.sketch_prune import prune_sketch_, shrink_sketch_

_REMOVE = ("shrink", "prune")


def can_sketch(candidate: Candidate) -> bool:
    """Whether all that a candidate does to its network can be sketched; otherwise the network has to be built."""
    removing = [stage.op for stage in candidate.stages if stage.op in _REMOVE]
    grown = [stage for stage in candidate.stages if stage.op == "grow"]
    return (
        candidate.backbone in BACKBONES
        and len(grown) <= 1
        and all(
            stage.kind in KINDS
            and KINDS[stage.kind].soma is not None
            and stage.placement in PLACEMENTS
            and stage.activation in ACTIVATIONS
            for stage in grown
        )
        and "prune" not in removing[1:]  # which depends on the weights that were left
    )


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
            add_somas_(sketch, find_kind(str(stage.kind)), str(stage.placement))
        elif stage.op == "shrink":
            shrink_sketch_(sketch, float(stage.ratio or 0))
        elif stage.op == "prune":
            prune_sketch_(sketch, float(stage.ratio or 0))
        yield sketch
