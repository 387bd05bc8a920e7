"""Networks that people have designed by hand, by kind of data, each at any width; and how all of them are trained."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dendrite_automl.backbones import build_backbone
from dendrite_automl.errors import AutoMLError
from dendrite_automl.measure import measure_cost
from dendrite_automl.train.fit import Data, FitSettings

SIZES = (500, 1000, 1500, 2000, 4000, 8000, 16000)
TEACHER_TIMES = 6  # the size of a network, for those that it learns from, as in the finish of a search
Knobs = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A published design: its backbone, its knobs for a width, the widths that are tried for a size, and the largest size.

    `most` leaves out sizes that take long to train because of their many MACs.
    """

    name: str
    backbone: str
    knobs: Callable[[float], Knobs]
    widths: tuple[float, ...]
    most: int = 16000


WHOLE = tuple(float(width) for width in range(1, 201))
STEPS = tuple(step / 8 for step in range(1, 241))


def _channels(**fixed: Any) -> Callable[[float], Knobs]:
    """Knobs of a family whose width is its number of channels."""
    return lambda width: {"channels": int(width), **fixed}


def _filters(**fixed: Any) -> Callable[[float], Knobs]:
    return lambda width: {"filters": int(width), **fixed}


def _hidden(**fixed: Any) -> Callable[[float], Knobs]:
    return lambda width: {"hidden": int(width), **fixed}


def _residual(name: str, **fixed: Any) -> Family:
    return Family(name=name, backbone="ressep1d", knobs=_channels(**fixed), widths=WHOLE)


_PLAIN = Family(
    name="conv 8-16-16 (arXiv 2605.15647)",
    backbone="conv2d",
    knobs=_filters(blocks=3, growth="double_once"),
    widths=WHOLE,
)
_DSCNN = Family(name="DS-CNN", backbone="dscnn", knobs=_channels(blocks=4, kernel=3, stride=2), widths=WHOLE, most=4000)
_MATCHBOX = _residual("MatchboxNet-3x1", blocks=3, kernel=11)
_TENET = _residual("TENet6", blocks=6, kernel=9, expansion=3)
_SPARK = Family(
    name="SparkNet form", backbone="sepconv1d", knobs=lambda w: {"width": w, "blocks": 3, "kernel": 9}, widths=STEPS
)
_SPEECH = (
    _PLAIN,
    _DSCNN,
    _MATCHBOX,
    _TENET,
    _SPARK,
    Family(name="BC-ResNet", backbone="bcresnet", knobs=_channels(levels=3, blocks=2, growth=1.5), widths=WHOLE, most=4000),
)
_PICTURES = (
    _PLAIN,
    Family(
        name="conv 8-16-16 with BatchNorm",
        backbone="conv2d",
        knobs=_filters(blocks=3, growth="double_once", norm="batch"),
        widths=WHOLE,
    ),
    Family(name="LeNet-5 convolutions", backbone="conv2d", knobs=_filters(blocks=2, growth="double", kernel=5), widths=WHOLE),
    _DSCNN,
    Family(
        name="MobileNetV2 form",
        backbone="invres2d",
        knobs=_channels(blocks=4, expansion=4, halvings=1, growth=1.5),
        widths=WHOLE,
        most=4000,
    ),
)
# Windows of sensors are longer than spectra of words and have few channels: larger strides, and fewer halvings.
_WINDOWS = (
    Family(
        name="conv 8-16 with BatchNorm",
        backbone="conv2d",
        knobs=_filters(blocks=2, growth="double_once", norm="batch"),
        widths=WHOLE,
        most=8000,
    ),
    _DSCNN,
    _MATCHBOX,
    _residual("MatchboxNet-3x1, stride 4", blocks=3, kernel=11, stride=4),
    _residual("TENet6, stride 4", blocks=6, kernel=9, expansion=3, stride=4),
    _SPARK,
)
_LINES = (_DSCNN, _MATCHBOX, _TENET, _SPARK)
_TABLES = (
    Family(name="MLP, 1 hidden layer", backbone="mlp", knobs=_hidden(depth=1), widths=WHOLE),
    Family(name="MLP, 2 hidden layers", backbone="mlp", knobs=_hidden(depth=2), widths=WHOLE),
    Family(
        name="residual MLP with BatchNorm (Gorishniy et al. 2021)",
        backbone="mlp",
        knobs=_hidden(depth=3, residual=True, norm="batch"),
        widths=WHOLE,
    ),
)
FAMILIES = {
    "keywords": _SPEECH,
    "spoken": _SPEECH,
    "spoken_shared": _SPEECH,
    "vowels": _SPEECH,
    "hapt": _WINDOWS,
    "watch": _WINDOWS,
    "digits": tuple(replace(family, most=16000) for family in _PICTURES),  # 8 x 8 pixels: few MACs at any width
    "mnist5k": _PICTURES,
    "fashion5k": _PICTURES,
    "mnist1d": _LINES,
    "wine": _TABLES,
    "breast_cancer": _TABLES,
}
# As in the anchors of the spaces for this kind of data; without masks on `keywords`, where they gain nothing
# (augmentation.py), and where the networks were trained before there were any.
_KEYWORDS = FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, optimizer="muon", shift=3, noise=0.1)
_MASKED = replace(_KEYWORDS, time_mask=6, channel_mask=2)
_IMAGES = replace(_KEYWORDS, shift=1, noise=0.05)
_NUMBERS = FitSettings(learning_rate=0.01, batch_size=32, weight_decay=0.01)
RECIPES = {
    "keywords": _KEYWORDS,
    **dict.fromkeys(("spoken", "spoken_shared", "hapt", "watch"), _MASKED),
    "vowels": replace(_KEYWORDS, channel_mask=2),
    **dict.fromkeys(("mnist5k", "fashion5k"), _IMAGES),
    "digits": replace(_IMAGES, batch_size=32, shift=0),
    "mnist1d": replace(_KEYWORDS, shift=2, noise=0.05),
    **dict.fromkeys(("wine", "breast_cancer"), _NUMBERS),
}
EPOCHS = {**dict.fromkeys(FAMILIES, 30), "mnist5k": 20, "fashion5k": 20, "vowels": 60, "wine": 100, "breast_cancer": 60}


def find_family(task: str, name: str) -> Family:
    """A family of a task by its name."""
    return next(family for family in FAMILIES[task] if family.name == name)


def largest_within(family: Family, size: int, data: Data) -> Knobs | None:
    """Knobs of the family's widest network of at most `size` parameters; None if none is that small or can be built."""
    params = functools.partial(_params, family, data.input_shape, data.classes)
    try:
        fitting = bisect.bisect_right(family.widths, size, key=params)  # a wider network has more parameters
    except AutoMLError:
        return None
    return family.knobs(family.widths[fitting - 1]) if fitting else None


@functools.cache
def _params(family: Family, shape: tuple[int, ...], classes: int, width: float) -> int:
    return measure_cost(build_backbone(family.backbone, shape, classes, family.knobs(width)), shape).params
