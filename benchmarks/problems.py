"""How good are networks for measured values, anomalies and several labels, against what people use for them on a PC?

Regression: the diabetes data (Efron et al. 2004, in scikit-learn), Friedman's first function with noise (scikit-learn's
`make_friedman1`), and the angle of handwritten digits that are turned by up to 45 degrees. Anomalies: one class is normal, all
others are anomalies, none of them in training. Labels: which of the ten digits are in a picture of one digit or of two, one on
the other (no picture of a digit is in two splits), and scikit-learn's `make_multilabel_classification`. A search of each within
1,000 parameters, as a user would run it, against models of scikit-learn with its defaults, on the same splits. For anomalies,
the one-class SVM is what the networks learn from; all see the same normal examples.

    python benchmarks/problems.py --cache DIR      # about 20 minutes on 2 cores; data: see data_sets.py
    python benchmarks/problems.py --render         # the section of README.md from results/problems.jsonl only
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import add_folder_flags, load, read_folders
from data_sources import Folders
from designs import load_lines
from scipy.ndimage import rotate
from section import replace_section
from sklearn.datasets import load_diabetes, load_digits, make_friedman1, make_multilabel_classification
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.svm import OneClassSVM

import dendrite_automl as da
from dendrite_automl.metrics import ANOMALY, MULTILABEL, REGRESSION, score
from dendrite_automl.tasks import Task, from_arrays, from_objects
from dendrite_automl.tasks.anomaly import detect_anomalies

RESULTS = Path(__file__).parent / "results" / "problems.jsonl"
BUDGET, TRIALS, SEED = "1k-params", 24, 0
NORMAL = {"breast_cancer": "benign", "digits": "0", "keywords": "yes", "watch": "PEN"}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "ridge regression": Ridge,
    "random forest": lambda: RandomForestRegressor(random_state=SEED),
    "gradient boosting": lambda: HistGradientBoostingRegressor(random_state=SEED),
}
LABELLERS: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: OneVsRestClassifier(LogisticRegression(max_iter=1000)),
    "random forest": lambda: OneVsRestClassifier(RandomForestClassifier(random_state=SEED)),
    "nearest neighbours": lambda: OneVsRestClassifier(KNeighborsClassifier()),
}
VALUES, LABELS = ("diabetes", "friedman1", "angle"), ("overlaid", "bags")
DETECTORS: dict[str, Callable[[], Any]] = {
    "one-class SVM": lambda: OneClassSVM(nu=0.1),
    "isolation forest": lambda: IsolationForest(random_state=SEED),
    "local outlier factor": lambda: LocalOutlierFactor(novelty=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_flags(parser)
    parser.add_argument("--render", action="store_true", help="only write the section, from the results file")
    asked = parser.parse_args()
    if not asked.render:
        folders = read_folders(asked)
        known = {line["task"] for line in load_lines(RESULTS)} if RESULTS.is_file() else set()
        for name in (*VALUES, *NORMAL, *LABELS):
            if name not in known:
                line = {"task": name, **run(name, folders), "torch": torch.__version__, "date": date.today().isoformat()}
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    replace_section("problems", render(load_lines(RESULTS)))


def run(name: str, folders: Folders) -> dict[str, Any]:
    """Figures on test of the search's front and of the other models, and what they store."""
    if name in NORMAL:
        plain = load(name, folders)
        task = detect_anomalies(plain, NORMAL[name])
        normal = plain.train.x[plain.train.y == plain.classes.index(NORMAL[name])]
        others = {about: try_detector(make(), normal, task) for about, make in DETECTORS.items()}
    elif name in LABELS:
        task = make_labels(name)
        others = {about: try_labeller(make(), task) for about, make in LABELLERS.items()}
    else:
        task = make_regression(name)
        others = {about: try_regressor(make(), task) for about, make in REGRESSORS.items()}
    with tempfile.TemporaryDirectory() as folder:
        found = da.search(data=task, budget=BUDGET, trials=TRIALS, seed=SEED, out=Path(folder) / "run")
        rows = found.front_rows()
        columns = ("params", "macs", "dendrites", "val_accuracy", "test_accuracy", "test_accuracy_int8", "flash_bytes_int8")
        front = [{column: row[column] for column in columns} for row in rows]
        return {"problem": task.problem, "examples": len(task.open_test()), "front": front, "others": others}


def make_regression(name: str) -> Task:
    """A task with a fifth of the examples for test."""
    rng = np.random.default_rng(SEED)
    if name == "diabetes":
        x, y = load_diabetes(return_X_y=True, scaled=False)
    elif name == "friedman1":
        x, y = make_friedman1(2000, noise=1.0, random_state=SEED)
    else:
        pictures, y = load_digits().images, rng.uniform(-45, 45, 1797)
        x = np.stack([rotate(picture, angle, reshape=False, order=1) for picture, angle in zip(pictures, y, strict=True)])[
            :, None
        ]
    order = rng.permutation(len(y))
    test, train = order[: len(y) // 5], order[len(y) // 5 :]
    return from_arrays(x[train], y[train], x[test], y[test], name=name, problem=REGRESSION)


def make_labels(name: str) -> Task:
    """A task with a test split of its own: of pictures of other digits, or a fifth of the examples."""
    rng = np.random.default_rng(SEED)
    if name == "bags":
        x, y = make_multilabel_classification(2000, n_classes=6, n_labels=2, random_state=SEED)
        return from_arrays(x[:1600], y[:1600], x[1600:], y[1600:], name=name)
    digits, arrays = load_digits(), {}
    order = rng.permutation(len(digits.target))
    for split, start, end, count in (("train", 0, 1100, 3000), ("val", 1100, 1400, 600), ("test", 1400, 1797, 600)):
        first, second = rng.choice(order[start:end], (2, count))
        second = np.where(rng.random(count) < 0.3, first, second)  # these show one digit
        y = np.zeros((count, 10), int)
        y[np.arange(count), digits.target[first]] = y[np.arange(count), digits.target[second]] = 1
        arrays[f"X_{split}"] = np.maximum(digits.images[first], digits.images[second])[:, None].astype(np.float32)
        arrays[f"y_{split}"] = y
    return from_objects(arrays, name=name)


def try_labeller(model: Any, task: Task) -> dict[str, float]:
    """Fitted to train and validation together, as nothing has to be chosen."""
    x, y = (np.concatenate([getattr(split, of) for split in (task.train, task.val)]) for of in ("x", "y"))
    test = task.open_test()
    answers = model.fit(x.reshape(len(x), -1), y).predict_proba(test.x.reshape(len(test), -1))
    return {"test": score("macro_auc", test.y, answers, y.shape[1]), "bytes": len(pickle.dumps(model))}


def try_regressor(model: Any, task: Task) -> dict[str, float]:
    """Fitted to train and validation together, as nothing has to be chosen."""
    x, y = (np.concatenate([getattr(split, of) for split in (task.train, task.val)]) for of in ("x", "y"))
    test = task.open_test()
    answers = model.fit(x.reshape(len(x), -1), y).predict(test.x.reshape(len(test), -1))
    return {"test": score("r2", test.y, answers, 1), "bytes": len(pickle.dumps(model))}


def try_detector(model: Any, normal: np.ndarray, task: Task) -> dict[str, float]:
    """Fitted to the normal examples of train."""
    test = task.open_test()
    found = -model.fit(normal.reshape(len(normal), -1)).score_samples(test.x.reshape(len(test), -1))
    return {"test": score("auc", test.y, found, 1), "bytes": len(pickle.dumps(model))}


def render(lines: list[dict[str, Any]]) -> str:
    """A table for each problem."""
    parts = [
        f"Searches within {BUDGET}, {TRIALS} trials. Network: the most accurate of the front by validation; its flash is that "
        "of the int8 weights. Bytes of the other models: as pickled."
    ]
    for problem, figure, models in (
        (REGRESSION, "R²", REGRESSORS),
        (ANOMALY, "AUC", DETECTORS),
        (MULTILABEL, "macro AUC", LABELLERS),
    ):
        rows = [line for line in lines if line["problem"] == problem]
        names = list(models)
        parts += [
            "",
            f"| {problem}, {figure} on test | parameters, flash | float32 | int8 | {' | '.join(names)} |",
            f"|---|--:|--:|--:|{'--:|' * len(names)}",
            *(_row(line, names) for line in rows),
        ]
    last, missing = lines[-1], {*VALUES, *NORMAL, *LABELS} - {line["task"] for line in lines}
    parts += ["", f"Not measured yet: {', '.join(sorted(missing))}."] if missing else []
    return "\n".join([*parts, "", f"torch {last['torch']}, {last['date']}."])


def _row(line: Mapping[str, Any], names: list[str]) -> str:
    best = line["front"][0]
    figures = [f"{100 * best[column]:.1f} %" for column in ("test_accuracy", "test_accuracy_int8")]
    others = [f"{100 * line['others'][name]['test']:.1f} % ({line['others'][name]['bytes'] / 1000:,.0f} kB)" for name in names]
    sizes = f"{best['params']:,}, {best['flash_bytes_int8'] / 1000:.1f} kB"
    return f"| {line['task']} ({line['examples']:,} examples) | {sizes} | {' | '.join([*figures, *others])} |"


if __name__ == "__main__":
    main()
