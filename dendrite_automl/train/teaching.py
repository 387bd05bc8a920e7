"""Teaching: what a teacher says of the training set, looked at in several ways, and the students who look at it in the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dendrite_automl.train.augment import Augmentation, augment

VIEWS = 16  # a finish sees each of them several times
_CHUNK = 1024  # examples augmented at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """The outputs of a teacher for each view of the training set.

    A view is the whole training set, augmented with the view's number as the seed. Students that learn from it see its views
    in turn, one an epoch, instead of augmenting on their own.

    Attributes:
        logits: [views, N, classes] float32.
        augmentation: of the views.

    Source:
        Beyer et al. 2022, *Knowledge distillation: A good teacher is patient and consistent*: a teacher has to see what the
        student sees. There every batch is augmented anew and the teacher asked again; to ask it once about a fixed number of
        views takes as long as five epochs of its training.
    """

    logits: Tensor
    augmentation: Augmentation

    def lesson(self, x: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """What is learnt in an epoch (from 0): the training set x [N, …] in a view, and the logits for it [N, classes]."""
        number = epoch % len(self.logits)
        return view(x, self.augmentation, number), self.logits[number]

    def to(self, accelerator: str) -> Teaching:
        """The same on `cpu` or `cuda`."""
        return replace(self, logits=self.logits.to(accelerator))


def ask_about_views(answer: Callable[[Tensor], Tensor], x: Tensor, augmentation: Augmentation) -> Tensor:
    """A teacher's logits for every view of the training set, [views, N, classes].

    Args:
        answer: from inputs [N, …] to logits [N, classes].
        x: the training set [N, …].
    """
    return torch.stack([answer(view(x, augmentation, number)) for number in range(count_views(augmentation))])


def count_views(augmentation: Augmentation) -> int:
    """How many views a teacher is asked about."""
    return 1 if augmentation == Augmentation() else VIEWS


def view(x: Tensor, augmentation: Augmentation, number: int) -> Tensor:
    """The training set x [N, …] as it is seen in one view; the same on every device."""
    generator = torch.Generator().manual_seed(number)
    return torch.cat([augment(part, augmentation, generator=generator) for part in x.split(_CHUNK)])
