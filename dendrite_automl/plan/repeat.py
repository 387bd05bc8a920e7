"""Repeats of a search: which searches they are, and the plan of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dendrite_automl.devices import RUNTIMES
from dendrite_automl.errors import RequestError
from dendrite_automl.plan.make_plan import make_plan
from dendrite_automl.plan.parse import extended, read_said
from dendrite_automl.plan.plan import Plan
from dendrite_automl.run import Repeats, Run, is_repeated
from dendrite_automl.settings import known_settings

_OF_ALL = ("repeat", "seed", "seconds", "out", "resume")  # settings of the repeats together; each search has its own
_GROWS = ("trials", "confirm", "finish", "arms")  # if a resume changes one of these, searches that are over go on


def asks_for_repeats(settings: Mapping[str, Any]) -> bool:
    """Whether settings are for `search_repeatedly`: more than one search, or repeats to resume.

    Raises:
        RequestError: a setting is unknown or has an impossible value.
    """
    said = read_said(settings)
    return said.get("repeat", 1) > 1 or bool(said.get("resume") and "out" in said and is_repeated(said["out"]))


def plan_repeats(settings: Mapping[str, Any]) -> tuple[Repeats, Iterator[tuple[int, Plan]]]:
    """Check the request, and say which searches it stands for; nothing is started or written.

    A time limit is divided evenly. A resume continues what is missing or unfinished, with what is left of its share of the
    time; more trials, confirmation, arms or time continue all searches.

    Returns:
        The repeats, and the number and plan of each search to run; a plan is made when its turn comes.

    Raises:
        RequestError, BudgetUnreachable: as for `make_plan`.
    """
    said = read_said(settings)
    if said.get("resume"):
        return _resumed(settings, said)
    count = said.get("repeat", 1)
    share = said["seconds"] / count if "seconds" in said else None
    first = make_plan({**settings, "repeat": None, "seconds": share})
    repeats = Repeats(
        path=first.request.out or first.new_path(),
        count=count,
        settings=tuple(first.settings().items()),
        command=first.command(repeat=count, seconds=said.get("seconds")),
    )
    return repeats, ((number, _with_seed(first, repeats, number)) for number in repeats.numbers)


def _resumed(settings: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[Repeats, Iterator[tuple[int, Plan]]]:
    if "out" not in said:
        raise RequestError("resume: expected --out DIR with the folder of the repeats, got none")
    earlier = Repeats.open(said["out"])
    old, count = earlier.request, said.get("repeat", earlier.count)
    if count < earlier.count:
        raise RequestError(f"resume: repeat: expected at least {earlier.count} as in {earlier.path}, got {count}")
    kept = {name: said.get(name) for name, setting in known_settings().items() if setting.is_kept}
    request = extended(kept, {"runtime": RUNTIMES[0], **old}, earlier.path)
    more = said["seconds"] / count if "seconds" in said else None
    request["arms"] = request["arms"].split(",")
    request["seconds"] = old["seconds"] if more is None else (old["seconds"] or 0.0) + more
    grows = more is not None or any(request[name] != old[name] for name in _GROWS)
    finished = () if grows else earlier.finished
    repeats = replace(earlier, count=count, settings=tuple(request.items()), finished=finished)
    return repeats, _plans_to_resume(repeats, settings, more)


def _plans_to_resume(repeats: Repeats, settings: Mapping[str, Any], more: float | None) -> Iterator[tuple[int, Plan]]:
    """Plans of the searches that are not over; those that have begun continue from what they have.

    Args:
        more: seconds that this session gives to each search; None: what is left of its share.
    """
    given = {name: value for name, value in settings.items() if value is not None and name not in _OF_ALL}
    grown = {name: repeats.request[name] for name in _GROWS}
    fresh: Plan | None = None
    for number in repeats.missing:
        folder = repeats.folder(number)
        if (folder / "run.json").is_file():
            seconds = _left(repeats, Run.open(folder)) if more is None else more
            yield number, make_plan({**given, **grown, "seconds": seconds, "out": folder, "resume": True})
            continue
        if folder.exists():
            raise RequestError(f"resume: expected a run in {folder}, got a folder without run.json; remove it")
        if fresh is None:
            fresh = make_plan({**repeats.request, **given, **grown})
            _check_data(fresh, repeats)
        yield number, _with_seed(fresh, repeats, number)


def _with_seed(plan: Plan, repeats: Repeats, number: int) -> Plan:
    """The plan of one search, from that of another one."""
    effort = replace(plan.effort, seed=repeats.seed(number))
    return replace(plan, request=replace(plan.request, effort=effort, out=repeats.folder(number)))


def _left(repeats: Repeats, run: Run) -> float | None:
    """What is left of a search's share of the time; at least a second, in which what it has is exported."""
    share = repeats.request["seconds"]
    return None if share is None else max(1.0, share - run.info.seconds)


def _check_data(plan: Plan, repeats: Repeats) -> None:
    """All repeats are made with the same data."""
    for run in repeats.runs():
        if run.info.data.sha256 != plan.task.fingerprint:
            raise RequestError(f"resume: the data differs from what {run.path} was made with; start a new run")
