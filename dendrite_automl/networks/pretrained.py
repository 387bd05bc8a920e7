"""Pretrained: a user's trained network that a search starts from."""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import dataclass

from ray import cloudpickle
from torch import nn

from dendrite_automl.dendrites import PLACEMENTS
from dendrite_automl.dendrites.placement import find_layers
from dendrite_automl.errors import RequestError
from dendrite_automl.networks.checks import check_cut, check_module, check_use, named
from dendrite_automl.space import PRETRAINED
from dendrite_automl.train.prune import prune_, shrink_
from dendrite_automl.user_code import one_line

_WHO = "compress: model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A network to start from: a copy in evaluation mode with all weights trainable.

    Attributes:
        fingerprint: SHA-256 of its layers and weights, the first 16 hex digits: part of every candidate's id.
    """

    model: nn.Module
    fingerprint: str

    @property
    def backbone(self) -> str:
        """Its name in spaces and candidates."""
        return f"{PRETRAINED}{self.fingerprint}"

    @property
    def placements(self) -> tuple[str, ...]:
        """Placements that match at least one of its layers."""
        return tuple(name for name in PLACEMENTS if _has(self.model, name))


def make_pretrained(model: nn.Module) -> Pretrained:
    """Check what can be checked without data, and copy.

    Raises:
        RequestError: not a module, an unsupported layer, dtype or device, or weights that are not finite.
    """
    with named(_WHO):
        check_module(model)
        try:
            cloudpickle.dumps(model)
            copied = copy.deepcopy(model)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise RequestError(f"expected one that can be copied and pickled for the workers: {one_line(error)}") from None
    copied.eval()
    copied.requires_grad_(True)
    return Pretrained(model=copied, fingerprint=_fingerprint(copied))


def check_pretrained(pretrained: Pretrained, input_shape: tuple[int, ...], classes: int) -> None:
    """Run, trace, measure, fold and shrink copies of the network, as a search does.

    Raises:
        RequestError: one of these fails, or the outputs are not logits [B, classes].
    """
    with named(_WHO):
        check_use(pretrained.model, input_shape, classes)
        for cut_ in (shrink_, prune_):
            check_cut(pretrained.model, input_shape, cut_)


def _has(model: nn.Module, placement: str) -> bool:
    try:
        return bool(find_layers(model, placement))
    except RequestError:
        return False


def _fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256(f"{type(model).__qualname__}{model!r}".encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
