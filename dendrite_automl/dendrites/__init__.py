"""Artificial dendrites for any PyTorch model, usable in your own training loop.

add_dendrites_(model, kind="perforated", placement="head")     # output unchanged
train_dendrites_(model, (x, y), nn.functional.cross_entropy)   # the dendrite phase
...                                                            # your own loop: neurons and gains learn
fold_(model)                                                   # BatchNorm into the layers, for deployment
"""

from dendrite_automl.dendrites.fold import DendriteTracer, fold_
from dendrite_automl.dendrites.kinds import KINDS, SOMA_KINDS, Kind, find_kind
from dendrite_automl.dendrites.layer import ACTIVATIONS, DendriticLayer
from dendrite_automl.dendrites.phase import train_dendrites_
from dendrite_automl.dendrites.placement import PLACEMENTS, find_layers
from dendrite_automl.dendrites.soma import Soma
from dendrite_automl.dendrites.soma_places import find_places
from dendrite_automl.dendrites.surgery import (
    add_dendrites_,
    count_sets,
    dendritic_layers,
    drop_dendrites_,
    grown_modules,
    scalars_of,
)

__all__ = [
    "ACTIVATIONS",
    "KINDS",
    "PLACEMENTS",
    "SOMA_KINDS",
    "DendriteTracer",
    "DendriticLayer",
    "Kind",
    "Soma",
    "add_dendrites_",
    "count_sets",
    "dendritic_layers",
    "drop_dendrites_",
    "find_kind",
    "find_layers",
    "find_places",
    "fold_",
    "grown_modules",
    "scalars_of",
    "train_dendrites_",
]
