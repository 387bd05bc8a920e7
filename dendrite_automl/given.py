"""Given: a trained network of the user's that a search starts from, and what is asked of any network of the user's."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from ray import cloudpickle
from torch import Tensor, nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate
from dendrite_automl.dendrites import PLACEMENTS
from dendrite_automl.dendrites.placement import find_layers
from dendrite_automl.errors import AutoMLError, CandidateFailed, RequestError
from dendrite_automl.functions import is_function_name, one_line
from dendrite_automl.measure import folded_copy, measure_cost
from dendrite_automl.space import GIVEN, SearchSpace
from dendrite_automl.train.prune import prune_, shrink_

# Layers with weights that can be measured, cut, exported and read back.
_SUPPORTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
_WHO = "compress: model"
_CLOSE = 1e-3  # of the largest output: by how much a folded copy may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A network to start from: a copy in evaluation mode, all of whose weights may learn.

    Attributes:
        fingerprint: SHA-256 of its layers and weights, the first 16 hex digits: part of every candidate's id.
    """

    model: nn.Module
    fingerprint: str

    @property
    def backbone(self) -> str:
        """What stands for it in spaces and candidates."""
        return f"{GIVEN}{self.fingerprint}"

    @property
    def placements(self) -> tuple[str, ...]:
        """Where dendrites can be: not on convolutions that it does not have."""
        return tuple(name for name in PLACEMENTS if _has(self.model, name))


def make_given(model: nn.Module) -> Given:
    """Check what can be checked without data, and copy.

    Raises:
        RequestError: no module, a layer or dtype or device that is not supported, or weights that are not finite.
    """
    with _named(_WHO):
        _check_module(model)
        try:
            cloudpickle.dumps(model)
            copied = copy.deepcopy(model)
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise RequestError(f"expected one that can be copied and pickled, for workers: {one_line(error)}") from None
    copied.eval()
    copied.requires_grad_(True)
    return Given(model=copied, fingerprint=_fingerprint(copied))


def check_given(given: Given, input_shape: tuple[int, ...], classes: int) -> None:
    """Run, trace, measure, fold and shrink copies of the network: what a search does with it.

    Raises:
        RequestError: one of these fails, or the outputs are not logits [B, classes].
    """
    with _named(_WHO):
        _check_use(given.model, input_shape, classes)
        for cut_ in (shrink_, prune_):
            _check_cut(given.model, input_shape, cut_)


def is_foreign(space: SearchSpace) -> bool:
    """Whether a function of the user's, `module:function`, builds the space's networks; a fingerprint may look like one."""
    return is_function_name(space.backbone) and not space.backbone.startswith(GIVEN)


def check_foreign(space: SearchSpace, input_shape: tuple[int, ...], classes: int) -> nn.Module | None:
    """The same for the network that a backbone `module:function` builds, with the first choice of every knob.

    Args:
        space: whose schedules say whether networks are cut at all.

    Returns:
        The network, in evaluation mode; None where the space has a backbone of ours or starts from a given network.

    Raises:
        RequestError: as for `make_given` and `check_given`; that the network is too narrow to cut is no error here.
    """
    if not is_foreign(space):
        return None
    knobs = {knob.name: knob.choices for knob in space.knobs}
    words = {word for stages in knobs["stages"] for word in str(stages).split()}
    first = {knob.name: knob.choices[0] for knob in space.knobs if knob.section == "network"}
    with _named(f'space "{space.name}": backbone {space.backbone}'):
        model = build_backbone(space.backbone, input_shape, classes, first)
        _check_module(model)
        model.eval()
        _check_use(model, input_shape, classes)
        for word, cut_ in (("shrink", shrink_), ("prune", prune_)):
            if word in words:
                with suppress(CandidateFailed):
                    _check_cut(model, input_shape, cut_)
    return model


def _check_use(model: nn.Module, input_shape: tuple[int, ...], classes: int) -> None:
    """Run, trace, measure and fold the network."""
    x = _examples(input_shape)
    logits = _run(model, x, f"on inputs {['B', *input_shape]} of this data".replace("'", ""))
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RequestError(f"expected logits [B, {classes}], one for each class of the data, got {got} at B = {len(x)}")
    try:
        measure_cost(model, input_shape)
        folded = _run(folded_copy(model), x, "with BatchNorm folded")
    except AutoMLError:
        raise
    except Exception as error:  # torch.fx, in its own words, on the user's code
        raise RequestError(
            f"expected code that torch.fx can trace (no branches on values, no sizes read from tensors): {one_line(error)}"
        ) from None
    if not torch.allclose(folded, logits, atol=_CLOSE * max(1.0, logits.abs().max().item()), rtol=0):
        raise RequestError("computes otherwise once BatchNorm is folded into the layers before it")


def _check_cut(model: nn.Module, input_shape: tuple[int, ...], cut_: Callable[..., None]) -> None:
    """Take channels out of a copy, twice, as a schedule may do."""
    x, smaller = _examples(input_shape), copy.deepcopy(model)
    try:
        for _ in range(2):
            cut_(smaller, x[:1], ratio=0.5)
    except CandidateFailed as error:
        if _size(smaller) == _size(model):
            raise CandidateFailed(f"cannot be made smaller: {error}") from None
    except Exception as error:  # torch-pruning, likewise
        raise RequestError(
            f"expected one that torch-pruning can cut, with no sizes of layers written into its code: {one_line(error)}"
        ) from None
    with torch.no_grad():
        logits = _run(smaller, x, "once channels are gone; sizes must not be written into its code")
        if logits.shape != model(x).shape:
            raise RequestError("gives outputs of another shape once channels are gone")


def _examples(input_shape: tuple[int, ...]) -> Tensor:
    return torch.randn(3, *input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def _named(who: str) -> Iterator[None]:
    """Errors say whose network it is."""
    try:
        yield
    except (RequestError, CandidateFailed) as error:
        raise RequestError(f"{who}: {error}") from None


def build_network(
    candidate: Candidate, input_shape: tuple[int, ...], classes: int, given: nn.Module | None = None
) -> nn.Module:
    """The network that a candidate's first stage starts from: of its backbone, with random weights, or a copy of `given`.

    Raises:
        RequestError: a knob is out of range, or the candidate starts from a network that is not there.
    """
    if not candidate.backbone.startswith(GIVEN):
        return build_backbone(candidate.backbone, input_shape, classes, dict(candidate.network))
    if given is None:
        raise RequestError(
            f"candidate {candidate.id}: expected the network that it starts from, got none; use compress(model, …)"
        )
    return copy.deepcopy(given)


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise RequestError(f"expected a torch.nn.Module, got {type(model).__name__}")
    _check_layers(model)
    _check_weights(model)


def _check_layers(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        of = f'layer "{name}" ({type(module).__name__})' if name else type(module).__name__
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and type(module) not in _SUPPORTED:
            words = ", ".join(layer.__name__ for layer in _SUPPORTED)
            raise RequestError(f"{of}: expected weights in {words} alone, got {own[0][0]!r}")
        if isinstance(module, nn.Conv1d | nn.Conv2d) and not _is_whole_or_depthwise(module):
            raise RequestError(
                f"{of}: expected groups = 1, or one group for each input and output channel, got groups = {module.groups}"
            )
        for key, _ in own:
            tensor = getattr(module, key)
            if id(tensor) in seen:
                raise RequestError(f'{of}: expected weights of its own, got those of "{seen[id(tensor)]}"')
            seen[id(tensor)] = name
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise RequestError("expected a Linear layer that gives the logits, got none")


def _is_whole_or_depthwise(layer: nn.Conv1d | nn.Conv2d) -> bool:
    return layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels


def _check_weights(model: nn.Module) -> None:
    for name, value in model.state_dict(keep_vars=True).items():
        if value.device.type != "cpu":
            raise RequestError(f'"{name}": expected weights on the CPU, got {value.device}; use model.cpu()')
        if value.is_floating_point() and value.dtype != torch.float32:
            raise RequestError(f'"{name}": expected float32, got {value.dtype}; use model.float()')
        if not torch.isfinite(value).all():
            raise RequestError(f'"{name}": expected finite weights, got NaN or infinity')


@torch.no_grad()
def _run(model: nn.Module, x: Tensor, how: str) -> Tensor:
    try:
        found: Tensor = model(x)
    except Exception as error:  # whatever the user's code raises
        raise RequestError(f"cannot run {how}: {one_line(error)}") from None
    return found


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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
