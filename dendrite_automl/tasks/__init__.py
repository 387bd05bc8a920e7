"""Tasks: where training, validation and test data come from. One file per kind of data."""

from __future__ import annotations

from collections.abc import Callable

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.arrays import from_arrays, load_npz
from dendrite_automl.tasks.digits import load_digits
from dendrite_automl.tasks.dispatch import read_data
from dendrite_automl.tasks.keywords import load_keywords
from dendrite_automl.tasks.objects import from_objects
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.task import Split, Task

__all__ = ["TASKS", "ReadOptions", "Split", "Task", "from_arrays", "from_objects", "load_npz", "load_task", "read_data"]

TASKS: dict[str, Callable[[], Task]] = {"keywords": load_keywords, "digits": load_digits}


def load_task(name: str) -> Task:
    """A built-in task by name.

    Raises:
        RequestError: no built-in task has this name.
    """
    if name not in TASKS:
        raise RequestError(f'task: unknown "{name}"; expected one of {", ".join(TASKS)}, or --data PATH (see `automl tasks`)')
    return TASKS[name]()
