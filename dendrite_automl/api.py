"""What `import dendrite_automl as da` offers: one function per thing that a user does with a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from dendrite_automl.comparison import compare, compare_searches
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.front import ExportPlan, export_snapshot
from dendrite_automl.networks.pretrained import Pretrained, make_pretrained
from dendrite_automl.plan import make_plan, plan_repeats
from dendrite_automl.run import Journal, Run, keep_repeats, load_run
from dendrite_automl.search_loop.callbacks import Callbacks
from dendrite_automl.search_loop.process_state import restored
from dendrite_automl.search_loop.session import export_and_log, make_progress, run_search
from dendrite_automl.settings import CommonSettings, SearchSettings
from dendrite_automl.space import PRETRAINED
from dendrite_automl.tasks import TASKS

__all__ = [
    "compare",
    "compare_searches",
    "compress",
    "export_run",
    "load_run",
    "search",
    "search_repeatedly",
]


def search(**settings: Unpack[SearchSettings]) -> Run:
    """Search, train and export: the Python form of `automl search`, which leaves your process as it was.

    Args:
        settings: those of `automl search --help`, by the same names (`--set` is `set_knobs`, `--time` is `seconds`), as
            strings, numbers or lists. `budget` also takes a `Budget`, `device` a `DeviceProfile`, `space` a `SearchSpace`,
            `teacher` a trained module. `data` also takes data in memory: (X_train, y_train, X_test, y_test), a dict of arrays,
            torch Datasets (train, test) or (train, val, test), or a `Task`. Three exist in Python only: `callbacks`, for Ray
            Tune (each snapshot is one result); `on_snapshot`, called with each `Snapshot`; `on_front`, called with the
            snapshots of the front, best first, whenever it changes (judged by the accuracies that the search sees; the
            returned front is confirmed). An error in a callback ends the search.

    Returns:
        The run; `run.front` is the front, `run.best(max_params=1500).path` an artifact's folder.

    Raises:
        RequestError: the request is wrong; nothing was started or written.
        BudgetUnreachable: nothing in the space can fit the budget.
        Interrupted: after Ctrl-C, with everything so far exported.
    """
    with restored():
        return run_search(make_plan(settings), _callbacks(settings))


def search_repeatedly(**settings: Unpack[SearchSettings]) -> list[Run]:
    """Run a search several times with different seeds: the Python form of `automl search --repeat N`.

    The searches run one after the other, with seeds `seed`, `seed` + 1, …; each is an ordinary run in a sub-folder 1, 2, … of
    `out`, beside a repeat.json that says which of them are over. `compare_searches` takes what this returns.

    Args:
        settings: those of `search`, and `repeat`, the number of searches. `seconds` is for all together, in equal shares. With
            `resume=True`, what is missing or unfinished in `out` continues, with what is left of its time; a larger `repeat`
            adds searches; larger `trials` or `confirm`, one more arm, or `seconds` extend all of them. Callbacks serve all.

    Returns:
        The runs, in the order of their seeds.

    Raises:
        RequestError: the request is wrong; what has been searched before stays.
        BudgetUnreachable: nothing in the space can fit the budget, or a search found nothing that does.
        Interrupted: after Ctrl-C, which ends all; `run` is the search that it ended.
    """
    with restored():
        repeats, plans = plan_repeats(settings)
        repeats = keep_repeats(repeats)
        for number, plan in plans:
            run_search(plan, _callbacks(settings))
            repeats = keep_repeats(replace(repeats, finished=tuple(sorted({*repeats.finished, number}))))
    return repeats.runs()


def compress(model: nn.Module, data: Any = None, **settings: Unpack[CommonSettings]) -> Run:
    """Search schedules that shrink, prune and grow a trained network, distilling from it.

    Every trial starts from a copy of the network, which is trained briefly, shrunk or pruned, and trained further, with the
    data's classes and the network's own outputs on the training set as targets. Replicates start from the same weights and
    differ in the order of examples. A candidate's id depends on the weights. Inputs are not augmented unless `set_knobs` asks
    for it.

    Args:
        model: a trained classifier [B, *input_shape] -> logits [B, classes], on the CPU, in float32; it is not modified.
            Weights may be in Linear, Conv1d, Conv2d and BatchNorm layers; the code in between must be traceable by torch.fx
            and must not hard-code layer sizes. All weights are trained, including those with `requires_grad=False`.
        data: what it was trained on, as the network takes it, in any form that `search` accepts; or `task` for a built-in one.
        settings: as for `search`, without `space` and `teacher`; the space that was searched is kept in run.json.

    Returns:
        The run, as for `search`: `run.front`, `run.best(max_params=20_000).path`.

    Raises:
        RequestError: the network cannot be traced, measured, pruned or exported, does not suit the data, or the request is
            wrong; nothing was started or written.
        BudgetUnreachable: no schedule makes the network small enough.
        Interrupted: after Ctrl-C, with everything so far exported.
    """
    with restored():
        for name in ("space", "teacher"):
            if name in settings:
                raise RequestError(f"compress: {name}: does not apply here: the network defines the space and is the teacher")
        if data is None and settings.get("task") is None and not settings.get("resume"):
            raise RequestError("compress: data: expected the data that the network was trained on, or a task; got neither")
        pretrained = make_pretrained(model)
        plan = make_plan({**settings, "data": data, "teacher": pretrained.model}, pretrained)
        return run_search(plan, _callbacks(settings))


def export_run(
    path: str | Path,
    *,
    snapshot: str | None = None,
    dynamic_batch: bool = False,
    data: Any = None,
    model: nn.Module | None = None,
) -> list[Path]:
    """Rewrite the artifacts of a run, without training anything: the Python form of `automl export`.

    An artifact replaces an earlier one once it is complete; if one cannot be written, the others stay as they are.

    Args:
        path: the run folder.
        snapshot: write only this one, on the front or not; default: every member of the front, and the tables.
        dynamic_batch: leave the batch dimension of the ONNX files free, instead of fixed at 1.
        data: (X_train, y_train, X_test, y_test), if the search was given data in memory.
        model: the network that a run of `compress` started from.

    Returns:
        The folders of the artifacts.

    Raises:
        RequestError: no run, no such snapshot, or data other than the run's.
        BudgetUnreachable: the front is empty.
        AutoMLError: an artifact cannot be written, or the requested one is refused.
    """
    with restored():
        run = Run.open(path)
        _check_given(run, data, model)
        pretrained = make_pretrained(model) if model is not None else None
        plan = make_plan({"out": str(path), "resume": True, "data": data, **_teaches(pretrained)}, pretrained)
        export = ExportPlan(
            task=plan.task,
            goal=plan.goal,
            device=plan.device,
            runtime=plan.runtime,
            dynamic_batch=dynamic_batch,
            pretrained=plan.start,
        )
        journal = Journal(run)
        with journal.locked():
            try:
                if snapshot is not None:
                    return [export_snapshot(journal, export, snapshot)]
                return export_and_log(journal, export, make_progress(run))
            except OSError as error:
                raise AutoMLError(f"export: cannot write into {run.path}: {error.strerror or error}; make room") from None


def _callbacks(settings: Mapping[str, Any]) -> Callbacks:
    ray: Sequence[Any] = settings.get("callbacks") or ()
    return Callbacks(ray=ray, on_snapshot=settings.get("on_snapshot"), on_front=settings.get("on_front"))


def _teaches(pretrained: Pretrained | None) -> dict[str, Any]:
    return {} if pretrained is None else {"teacher": pretrained.model}


def _check_given(run: Run, data: Any, model: nn.Module | None) -> None:
    """Data or a network that was in memory when the run was made must be passed again."""
    asked = run.info.request
    if data is None and asked.get("task") is None and asked.get("data") is None and run.info.data.name not in TASKS:
        raise RequestError(
            f"export: {run.path} was made with arrays in memory; pass them again: "
            "da.export_run(path, data=(X_train, y_train, X_test, y_test))"
        )
    if model is None and f'backbone = "{PRETRAINED}' in run.info.space.text:
        raise RequestError(
            f"export: {run.path} started from a network in memory; pass it again: da.export_run(path, model=model)"
        )
