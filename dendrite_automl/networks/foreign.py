"""Networks built by a user-supplied function: a space whose backbone is `module:function`."""

from __future__ import annotations

from contextlib import suppress

from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.networks.checks import check_cut, check_module, check_use, named
from dendrite_automl.space import PRETRAINED, SearchSpace
from dendrite_automl.train.prune import prune_, shrink_
from dendrite_automl.user_code import is_function_name


def is_foreign(space: SearchSpace) -> bool:
    """Whether a user-supplied `module:function` builds the space's networks; a fingerprint may look like one."""
    return is_function_name(space.backbone) and not space.backbone.startswith(PRETRAINED)


def check_foreign(space: SearchSpace, input_shape: tuple[int, ...], classes: int) -> nn.Module | None:
    """Check the network that a backbone `module:function` builds with the first choice of every knob.

    Args:
        space: its schedules determine whether networks are pruned at all.

    Returns:
        The network, in evaluation mode; None if the space has a built-in backbone or starts from a given network.

    Raises:
        RequestError: as for `make_pretrained` and `check_pretrained`, but a network too narrow to prune is no error here.
    """
    if not is_foreign(space):
        return None
    knobs = {knob.name: knob.choices for knob in space.knobs}
    words = {word for stages in knobs["stages"] for word in str(stages).split()}
    first = {knob.name: knob.choices[0] for knob in space.knobs if knob.section == "network"}
    with named(f'space "{space.name}": backbone {space.backbone}'):
        model = build_backbone(space.backbone, input_shape, classes, first)
        check_module(model)
        model.eval()
        check_use(model, input_shape, classes)
        for word, cut_ in (("shrink", shrink_), ("prune", prune_)):
            if word in words:
                with suppress(CandidateFailed):
                    check_cut(model, input_shape, cut_)
    return model
