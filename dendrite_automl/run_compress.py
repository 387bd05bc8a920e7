"""From a trained network of the user's to a run folder with a front of smaller ones, which learn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.errors import RequestError
from dendrite_automl.networks.pretrained import make_pretrained
from dendrite_automl.plan.request import SearchRequest
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run
from dendrite_automl.search_loop.callbacks import Callbacks
from dendrite_automl.search_loop.session import absolute_path, absolute_profile, run_search


def compress(
    model: nn.Module,
    data: Any = None,
    *,
    task: str | None = None,
    target: str | None = None,
    recording: str | None = None,
    window: str | None = None,
    stride: str | None = None,
    rate: str | None = None,
    features: str | None = None,
    image_size: str | None = None,
    colour: str | None = None,
    metric: str | None = None,
    budget: str | None = None,
    device: str | None = None,
    set_knobs: Sequence[str] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    epochs: int | None = None,
    replicates: int | None = None,
    confirm: int | None = None,
    scheduler: str | None = None,
    sampler: str | None = None,
    arms: str | None = None,
    objectives: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    on_snapshot: Callable[[Snapshot], object] | None = None,
    on_front: Callable[[list[Snapshot]], object] | None = None,
) -> Run:
    """Search schedules that shrink, prune and grow a trained network, distilling from it; all else is as for `search`.

    Every trial starts from a copy of the network: it is trained a little, cut, and trained on, with the data's classes and
    the network's own outputs on the training set as aims. Replicates start from the same weights and differ in the order of
    examples. A candidate's id depends on the weights. Inputs are not augmented unless `set_knobs` says so.

    Args:
        model: a trained classifier [B, *input_shape] -> logits [B, classes], on the CPU, in float32; it is left as it is.
            Weights may be in Linear, Conv1d, Conv2d and BatchNorm layers; the code in between must be traceable by torch.fx
            and hold no sizes of layers. All weights learn, those with `requires_grad=False` too.
        data: what it was trained on, as the network takes it, in any form that `search` knows; or `task`, a built-in one.
        target, recording, window, stride, rate, features, image_size, colour, metric: as for `search`.
        set_knobs: knobs fixed, narrowed or excluded, such as `["prune_ratio=0.5:", "stages=fit prune", "distill=0"]`.
        out: the run folder; its run.json holds the space that was searched.
        resume: go on with the run in `out`, with the same network.
        callbacks, on_snapshot, on_front: as for `search`.

    Returns:
        The run, as `search` does: `run.front`, `run.best(max_params=20_000).path`.

    Raises:
        RequestError: the network cannot be traced, measured, cut or exported, does not suit the data, or the request is wrong;
            nothing was started and nothing was written.
        BudgetUnreachable: no schedule makes the network small enough.
        Interrupted: after Ctrl-C, with everything so far exported.
    """
    pretrained = make_pretrained(model)
    request = SearchRequest(
        budget=budget,
        device=absolute_profile(device),
        task=task,
        data=absolute_path(data) if isinstance(data, str | Path) else None,
        target=target,
        recording=recording,
        window=window,
        stride=stride,
        rate=rate,
        features=features,
        image_size=image_size,
        colour=colour,
        metric=metric,
        set_knobs=set_knobs,
        trials=trials,
        seconds=seconds,
        epochs=epochs,
        replicates=replicates,
        confirm=confirm,
        scheduler=scheduler,
        sampler=sampler,
        arms=arms,
        objectives=objectives,
        teacher="given",
        seed=seed,
    )
    if data is None and task is None and not resume:
        raise RequestError("compress: data: expected the data that the network was trained on, or a task; got neither")
    return run_search(
        request,
        in_memory=None if isinstance(data, str | Path) else data,
        teacher=pretrained.model,
        pretrained=pretrained,
        workers=workers,
        ray_address=ray_address,
        out=Path(out) if out else None,
        resume=resume,
        callbacks=Callbacks(ray=callbacks, on_snapshot=on_snapshot, on_front=on_front),
    )
