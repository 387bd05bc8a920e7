"""Which comparison a list of folders asks for: runs, or folders of repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dendrite_automl.comparison.compare import compare
from dendrite_automl.comparison.records import Comparison
from dendrite_automl.comparison.search_records import SearchComparison
from dendrite_automl.comparison.searches import compare_searches
from dendrite_automl.errors import RequestError
from dendrite_automl.run import Repeats, Run, is_repeated


def compare_folders(paths: Sequence[str | Path], *, force: bool = False) -> Comparison | SearchComparison:
    """Compare what is in these folders: the Python form of `automl compare`.

    One run: its arms. Two runs: one against the other. Three or more runs, or one folder of repeats: the arms over all these
    searches. Two folders of repeats: one method against the other.

    Raises:
        RequestError: no folder, another mixture of them, or as for `compare` and `compare_searches`.
    """
    if not paths:
        raise RequestError("compare: expected the folder of a search, got none")
    repeated = [path for path in paths if is_repeated(path)]
    if not repeated:
        runs = [Run.open(path) for path in paths]
        return compare(*runs, force=force) if len(runs) < 3 else compare_searches(runs, force=force)
    if len(repeated) < len(paths) or len(paths) > 2:
        raise RequestError(
            f"compare: expected one or two folders of repeats, or runs alone, got {len(paths)} folders of which "
            f"{len(repeated)} hold repeats; give the runs in them one by one"
        )
    groups = [Repeats.open(path) for path in paths]
    missing = [problem for group in groups for problem in _missing(group)]
    if missing and not force:
        raise RequestError(f"compare: {missing[0]}; --force compares those that there are, with a warning")
    found = compare_searches(*(group.runs() for group in groups), force=force)
    return replace(found, warnings=(*missing, *found.warnings))


def _missing(repeats: Repeats) -> list[str]:
    """Searches that have not begun."""
    absent = len(repeats.numbers) - len(repeats.runs())
    how = f"continue with `automl search --resume --out {repeats.path}`"
    return [f"{repeats.path} has {repeats.count - absent} of {repeats.count} searches; {how}"] if absent else []
