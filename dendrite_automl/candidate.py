"""Candidate: one frozen point of a space, and the stages that its training goes through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dendrite_automl.errors import RequestError
from dendrite_automl.space import PRETRAINED, Point, SearchSpace, Value
from dendrite_automl.user_files import Each, Number, check_json

ARMS = ("dendritic", "baseline")
# A new network learns for twice as long as one that only adapts to a changed structure.
_EPOCH_SHARE = {"fit": 2.0, "shrink": 1.0, "prune": 1.0, "grow": 1.0}
_PRETRAINED_FIT_SHARE = 0.25  # for one that is already trained

_OP_IN_FILES = "word"  # candidate ids are hashes of the JSON: its keys never change
_VALUE = (Number(), str, bool)
CANDIDATE_IN_FILES: dict[str, Any] = {
    **dict.fromkeys(("arm", "space", "backbone"), str),
    **dict.fromkeys(("network", "training"), Each(_VALUE)),
    "stages": [
        {
            _OP_IN_FILES: str,
            "epochs": Number(least=0, whole=True),
            "ratio?": (Number(), None),
            **dict.fromkeys(("kind?", "placement?", "activation?"), (str, None)),
        }
    ],
}
_LEAST_EPOCHS = 2  # of a stage: a dendrite cycle has two phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a schedule, with the settings of that step only.

    Attributes:
        op: `fit`, `shrink`, `prune` or `grow`.
        epochs: passes over the training set, the dendrite phase included.
        ratio: share of the channels removed (`shrink`, `prune`).
        kind: of the dendrites (`grow`); so are `placement` and `activation`.
    """

    op: str
    epochs: int
    ratio: float | None = None
    kind: str | None = None
    placement: str | None = None
    activation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the fields that the stage does not use; the inverse is `from_json`."""
        found = {_OP_IN_FILES: self.op, "epochs": self.epochs, "ratio": self.ratio}
        found |= {"kind": self.kind, "placement": self.placement, "activation": self.activation}
        return {key: value for key, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stage:
        """Inverse of `to_json`."""
        fields = dict(data)
        return cls(op=fields.pop(_OP_IN_FILES), **fields)

    def __str__(self) -> str:
        if self.op == "grow":
            return f"grow({self.kind}, {self.placement}, {self.activation})"
        return self.op if self.ratio is None else f"{self.op}({self.ratio:g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network design and how it is trained. Equal candidates have equal ids, whatever the unused knobs were.

    Attributes:
        network: sorted pairs passed to the backbone.
        training: sorted pairs passed to the trainer.
        stages: the schedule, in order.
    """

    arm: str
    space: str
    backbone: str
    network: tuple[tuple[str, Value], ...]
    training: tuple[tuple[str, Value], ...]
    stages: tuple[Stage, ...]
    _id: str = field(default="", init=False, repr=False, compare=False)  # computed when it is first asked for

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise RequestError(f'arm: expected one of {", ".join(ARMS)}, got "{self.arm}"')
        object.__setattr__(self, "network", tuple(sorted(self.network)))
        object.__setattr__(self, "training", tuple(sorted(self.training)))

    @property
    def id(self) -> str:
        """10 hex digits of SHA-256 of the canonical JSON."""
        if not self._id:
            text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_id", hashlib.sha256(text.encode()).hexdigest()[:10])
        return self._id

    @property
    def form(self) -> tuple[str, str]:
        """Its backbone and how that ends, in `pool` or `flatten`, if it can choose: forms learn at different paces."""
        return self.backbone, str(dict(self.network).get("head", ""))

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return sum(stage.epochs for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse is `from_json`."""
        return {
            "arm": self.arm,
            "space": self.space,
            "backbone": self.backbone,
            "network": dict(self.network),
            "training": dict(self.training),
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Inverse of `to_json`.

        Raises:
            ValueError, TypeError, RequestError: it is not what `to_json` gives.
        """
        check_json(data, CANDIDATE_IN_FILES, "candidate")
        return cls(
            arm=data["arm"],
            space=data["space"],
            backbone=data["backbone"],
            network=tuple(data["network"].items()),
            training=tuple(data["training"].items()),
            stages=tuple(Stage.from_json(stage) for stage in data["stages"]),
        )

    def describe(self) -> str:
        """One short line for tables and cards."""
        knobs = " ".join(f"{name}={value}" for name, value in self.network)
        return f"{self.backbone} {knobs}: {' > '.join(map(str, self.stages))}"


def make_candidate(space: SearchSpace, point: Point, *, arm: str, epochs: int) -> Candidate:
    """The candidate that a point of a space describes in one arm.

    The baseline arm leaves out every `grow` stage; everything else is equal, including the number of epochs. A schedule that
    begins with `grow` has dendrites from the start; the baseline begins with `fit` there.

    Raises:
        RequestError: fewer than 2 epochs per stage.
    """
    words: list[str] = []
    for i, word in enumerate(str(point["stages"]).split()):
        if word != "grow":
            words.append(word)
        elif arm == "dendritic":
            words += [word] * int(point["cycles"])
        elif i == 0:
            words.append("fit")
    if epochs < _LEAST_EPOCHS * len(words):
        raise RequestError(
            f"epochs: expected at least {_LEAST_EPOCHS * len(words)}, {_LEAST_EPOCHS} for each of the {len(words)} stages of a "
            f"schedule, got {epochs}; raise --epochs"
        )
    split = split_epochs(words, epochs, fit_share=_PRETRAINED_FIT_SHARE if space.backbone.startswith(PRETRAINED) else None)
    stages = tuple(_stage(word, n, point) for word, n in zip(words, split, strict=True))
    return Candidate(
        arm=arm,
        space=space.name,
        backbone=space.family_of(point),
        network=tuple(space.network_of(point).items()),
        training=tuple(space.section(point, "training").items()),
        stages=stages,
    )


def split_epochs(words: list[str], epochs: int, *, fit_share: float | None = None) -> list[int]:
    """Split `epochs` over stages in proportion to their shares: each gets at least 2, the sum is exact.

    The first stage has the share of `fit`, whatever it is.

    Args:
        fit_share: the first stage's share, instead of its usual one.
    """
    shares = [fit_share or _EPOCH_SHARE["fit"], *(_EPOCH_SHARE[word] for word in words[1:])]
    split = [max(_LEAST_EPOCHS, int(epochs * share / sum(shares))) for share in shares]
    while sum(split) > epochs:
        split[split.index(max(split))] -= 1
    split[0 if fit_share is None else -1] += epochs - sum(split)
    return split


def trial_seed(run_seed: int, candidate: str, replicate: int = 0) -> int:
    """The seed of one training run: 63 bits of SHA-256 of (run seed, candidate id, replicate)."""
    digest = hashlib.sha256(f"{run_seed}/{candidate}/{replicate}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _stage(word: str, epochs: int, point: Point) -> Stage:
    if word == "grow":
        kind, placement, activation = (str(point[name]) for name in ("kind", "placement", "activation"))
        return Stage(op=word, epochs=epochs, kind=kind, placement=placement, activation=activation)
    if word == "fit":
        return Stage(op=word, epochs=epochs)
    return Stage(op=word, epochs=epochs, ratio=float(point[f"{word}_ratio"]))
