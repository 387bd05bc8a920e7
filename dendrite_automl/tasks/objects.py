"""Data passed in from Python: arrays, torch Datasets or a Task, in memory or from a function named `module:function`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.tasks.arrays import Origin, from_arrays, make_array_task
from dendrite_automl.tasks.task import Task, check_size
from dendrite_automl.user_code import import_function, one_line

_EXPECTED = (
    "expected (X_train, y_train, X_test, y_test), a dict of arrays named as in an .npz, "
    "torch Datasets (train, test) or (train, val, test), or a Task"
)


def from_function(text: str, problem: str | None = None) -> Task:
    """The task that `module:function` returns; the working folder is searched for the module too.

    Raises:
        RequestError: it cannot be imported or called, or what it returns is not data.
    """
    try:
        function = import_function(text)
    except RequestError as error:
        raise RequestError(f"data: {text}: {error}") from error
    try:
        found = function()
    except AutoMLError:
        raise
    except Exception as error:  # of the user's code
        reason = one_line(error)
        raise RequestError(f"data: {text}: expected a function without arguments that returns data, got {reason}") from error
    name = text.rpartition(":")[2]
    return from_objects(found, name=name, where=text, problem=problem)


def from_objects(data: Any, *, name: str = "data", where: str = "data", problem: str | None = None) -> Task:
    """A task from Python objects.

    Args:
        data: (X_train, y_train, X_test, y_test); a dict of arrays with the names of an .npz; (train, test) or
            (train, val, test) of torch Datasets of pairs (input, label), map-style or iterable; or a Task, which is used
            as it is. Datasets are read once, without augmentation; the test set again when the test split is opened.
        problem: one of `metrics.PROBLEMS`; default: regression if labels have fractions, else classification.

    Raises:
        RequestError: the data is something else, or cannot be trained on.
    """
    if isinstance(data, Task):
        return data
    if isinstance(data, Mapping):
        held = {str(key): np.asarray(value) for key, value in data.items()}
        origin = Origin(name=name, about="arrays (user data)", where=where)
        return make_array_task(held, origin, reread=lambda: held, problem=problem)
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise RequestError(f"{where}: {_EXPECTED}; got {type(data).__name__}")
    if len(data) in (2, 3) and all(map(_is_dataset, data)):
        return _from_datasets(data, name, where, problem)
    if len(data) != 4:
        raise RequestError(f"{where}: {_EXPECTED}; got {len(data)} arrays")
    return from_arrays(*data, name=name, problem=problem)


def _is_dataset(part: Any) -> bool:
    """Whether examples can be read from it repeatedly, and it is neither a plain sequence nor an array or tensor."""
    readable = hasattr(part, "__getitem__") or hasattr(part, "__iter__")
    return readable and not isinstance(part, Sequence | Mapping | str | Iterator) and not hasattr(part, "shape")


def _from_datasets(datasets: Sequence[Any], name: str, where: str, problem: str | None) -> Task:
    splits = ("train", "test") if len(datasets) == 2 else ("train", "val", "test")
    arrays = {
        key: array for split, part in zip(splits, datasets, strict=True) for key, array in _read(part, split, where).items()
    }
    names = getattr(datasets[0], "classes", None)
    y = arrays["y_train"]
    for split in splits:
        if (shape := arrays[f"y_{split}"].shape[1:]) != y.shape[1:]:
            expected = f"{y.shape[1]} labels as in train" if y.ndim > 1 else "one label"
            raise RequestError(f"{where}: {split}: example 0: expected {expected}, got shape {shape}")
    if isinstance(names, Sequence) and len(names) == (len(np.unique(y)) if y.ndim == 1 else y.shape[1]):
        arrays["classes"] = np.asarray(list(map(str, names)))
    about = f"{type(datasets[0]).__name__} (user data)"
    origin = Origin(name=name, about=about, where=where)
    return make_array_task(arrays, origin, reread=lambda: _read(datasets[-1], "test", where), problem=problem)


def _examples(dataset: Any) -> Iterator[Any]:
    """In the order of an iterable, else by index up to the length."""
    return iter(dataset) if hasattr(dataset, "__iter__") else (dataset[index] for index in range(len(dataset)))


def _read(dataset: Any, split: str, where: str) -> dict[str, NDArray[Any]]:
    """All examples of a dataset, in order."""
    inputs: list[NDArray[np.float32]] = []
    labels: list[Any] = []
    examples = _examples(dataset)
    for index in itertools.count():
        at = f"{where}: {split}: example {index}"
        try:
            x, y = next(examples)
            if not hasattr(x, "shape"):  # a PIL image, say, has its axes in another order
                raise TypeError(f"an input of type {type(x).__name__}")
            x, y = np.asarray(x, np.float32), np.asarray(y)
        except StopIteration:
            break
        except Exception as error:  # of the user's code
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise RequestError(f"{at}: expected a pair of a tensor (or array) and a label, got {reason}") from error
        if y.ndim > 1 or y.size == 0 or (index and np.shape(labels[0]) != (y.shape if y.size > 1 else ())):
            raise RequestError(f"{at}: expected one label, or a 0 or 1 for each of several, got shape {y.shape}")
        check_size(index + 1, x.shape, f"{where}: {split}", "use fewer or smaller examples")
        if index and x.shape != inputs[0].shape:
            raise RequestError(f"{at}: expected shape {inputs[0].shape} like the first example, got {x.shape}")
        inputs.append(x)
        labels.append(y if y.size > 1 else y.item())
    if not inputs:
        raise RequestError(f"{where}: {split}: expected examples, got an empty Dataset")
    return {f"X_{split}": np.stack(inputs), f"y_{split}": np.asarray(labels)}
