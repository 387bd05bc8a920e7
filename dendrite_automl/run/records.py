"""The lines of results.jsonl and confirmed.jsonl: what each kind holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from dendrite_automl.candidate import CANDIDATE_IN_FILES
from dendrite_automl.result import SNAPSHOT_IN_FILES
from dendrite_automl.user_files import Number, check_json, parse_json

_BLOCK = 500  # lines that are parsed together
_COUNT = Number(least=0, whole=True)
_EPOCHS = {"epochs?": _COUNT}
_WHICH = {"training?": str}
_KINDS: dict[str, dict[str, Any]] = {
    "trial": {"candidate": str, "value": CANDIDATE_IN_FILES, "point?": (dict, None)},
    "rung": {"candidate": str, "epoch": _COUNT, "values": dict},
    "snapshot": {"value": SNAPSHOT_IN_FILES},
    "end": {"candidate": str, "status?": str, "reason?": (str, None), "trained_macs?": Number(least=0), **_EPOCHS},
    "refused": {"candidate?": str},
    "confirmed": {"round": _COUNT, "value": SNAPSHOT_IN_FILES, **_EPOCHS},
    "unconfirmed": {"snapshot": str, "round": _COUNT, **_EPOCHS},
    "finish": {"members": [str]},
    "teacher": _EPOCHS,
    "finished": {"design": CANDIDATE_IN_FILES, "value": SNAPSHOT_IN_FILES, **_WHICH, **_EPOCHS},
    "unfinished": {"snapshot": str, **_WHICH, **_EPOCHS},
}


def parse_records(content: bytes) -> list[dict[str, Any]]:
    """All whole lines; each must state its kind, and hold what lines of its kind do.

    Raises:
        ValueError: a line is damaged.
    """
    return list(iter_records(content))


def iter_records(content: bytes) -> Iterator[dict[str, Any]]:
    """The same one by one, parsed in blocks: lines of a block share the strings of their keys.

    Raises:
        ValueError: as for `parse_records`.
    """
    lines = iter(content.split(b"\n")[:-1])
    while block := list(itertools.islice(lines, _BLOCK)):
        yield from map(_check, _parse_block(block))


def _parse_block(lines: list[bytes]) -> list[Any]:
    try:
        values = parse_json(b"[" + b",".join(lines) + b"]")
    except ValueError:
        values = []
    return values if len(values) == len(lines) else [parse_json(line) for line in lines]  # says which line is damaged


def check_trials(records: Sequence[dict[str, Any]]) -> None:
    """Check that whatever happened to a candidate is of one whose trial has begun, in its arm.

    Raises:
        ValueError: the lines are not those of one search.
    """
    arms = {line["candidate"]: line["value"]["arm"] for line in records if line["record"] == "trial"}
    for line in records:
        if line["record"] in ("end", "snapshot"):
            of = line if line["record"] == "end" else line["value"]
            if of.get("arm", arms.get(of["candidate"])) != arms.get(of["candidate"], ""):
                raise ValueError(f"{line['record']}: expected the candidate of a trial, got {of['candidate']}")


def _check(line: Any) -> dict[str, Any]:
    check_json(line, {"record": str}, "line")
    check_json(line, _KINDS.get(line["record"], {}), line["record"])
    found: dict[str, Any] = line
    return found
