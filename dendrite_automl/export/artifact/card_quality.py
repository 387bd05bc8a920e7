"""The part of a card that depends on the problem: what the network does, how well, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dendrite_automl.description import problem_in
from dendrite_automl.metrics import ANOMALY, CLASSIFICATION, METRICS_OF, MULTILABEL, REGRESSION, title_of
from dendrite_automl.plain import to_code, to_markdown

_RUN = """\
import json, numpy as np, onnxruntime
about = json.load(open("artifact.json"))
session = onnxruntime.InferenceSession("model.int8.onnx")
x = np.load("vectors.npz")["inputs"][:1]
output = session.run(None, {"input": x})[0][0]
"""
_ANSWER = {
    CLASSIFICATION: 'print(about["labels"][output.argmax()])\n',
    REGRESSION: 'print(about["target"]["mean"] + about["target"]["std"] * output[0])\n',
    ANOMALY: 'print(output[0] > about["test"]["int8"]["threshold"])\n',
    MULTILABEL: 'rows = about["test"]["int8"]["labels"]\n'
    'print([row["label"] for row, logit in zip(rows, output) if logit > row["threshold"]])\n',
}
_CLASSES = 30  # in the table
_CONFUSIONS = 3  # the most frequent ones
_INTERVALS = {CLASSIFICATION: "Wilson", REGRESSION: "over examples", ANOMALY: "DeLong", MULTILABEL: "DeLong"}
Description = Mapping[str, Any]


def subject(d: Description) -> str:
    """What the network is, in a few words."""
    problem = problem_in(d)
    if problem in (CLASSIFICATION, MULTILABEL):
        return f"{len(d['labels'])} {'classes' if problem == CLASSIFICATION else 'labels'}"
    return "anomalies" if problem == ANOMALY else f"regression of {to_markdown(d['target']['name'])}"


def purpose(d: Description) -> str:
    """One sentence on what goes in and what comes out."""
    task, shape = to_code(d["data"]["task"]), " x ".join(map(str, d["onnx"]["input"][1][1:]))
    head, problem = f"for the task {task}: an input of {shape} numbers gives", problem_in(d)
    if problem == CLASSIFICATION:
        return f"A classifier {head} one logit per class."
    if problem == MULTILABEL:
        return f"A multi-label classifier {head} one logit per label; an input has those whose logit is above their threshold."
    if problem == ANOMALY:
        return f"A detector of anomalies {head} one number, the score; a score above the threshold is an alarm."
    target = d["target"]
    return (
        f"A regression {head} one number; {to_code(target['name'])} is {target['mean']:.6g} + {target['std']:.6g} times that."
    )


def running(d: Description) -> str:
    """Python that runs the int8 file on a test vector and says what it answers."""
    return _RUN + _ANSWER[problem_in(d)]


def quality(d: Description) -> str:
    """The figure of the problem on both splits, with what makes it uncertain."""
    accuracy, int8, problem = d["accuracy"], d["int8"], problem_in(d)
    error = "" if accuracy["val_standard_error"] is None else f" ± {_percent(accuracy['val_standard_error'])} (standard error)"
    metric = "" if accuracy["val_metric"] == "accuracy" else f" {to_markdown(title_of(accuracy['val_metric']))}"
    tested = "" if problem == CLASSIFICATION else f" {title_of(METRICS_OF[problem][0])}"
    return f"""\
## How well it does

| | float32 | int8 |
|---|--:|--:|
| **test{tested}** ({accuracy["test_examples"]:,} examples, evaluated once) | **{_percent(accuracy["test"])}** | \
**{_percent(accuracy["test_int8"])}** |
| 95 % interval ({_INTERVALS[problem]}) | {_interval(accuracy["test_ci95"])} | {_interval(accuracy["test_int8_ci95"])} |
| validation{metric} ({d["data"]["examples"]["val"]:,} examples; optimistic, see below) | \
{_percent(int8["val_accuracy_float"])} | \
{_percent(int8["val_accuracy"])} |

Networks of this design reach {_percent(accuracy["val"])}{error}{metric} on validation, the mean of {_trainings(accuracy)}.
{_finish(accuracy)}{_int8(d)}"""


def details(d: Description) -> str:
    """What the figure is made of: the classes, the errors in the target's unit, or the rates of a detector."""
    problem = problem_in(d)
    if problem == CLASSIFICATION:
        return _classes(d)
    if problem == MULTILABEL:
        return _labels(d)
    return _rates(d) if problem == ANOMALY else _errors(d)


def mistakes(d: Description) -> list[str]:
    """What is known of the mistakes it makes."""
    problem = problem_in(d)
    if problem == REGRESSION:
        return ["It gives a number for every input, however far that is from all training examples."]
    if problem == MULTILABEL:
        return ["It knows its labels only: an input of another kind may get some of them, or none."]
    if problem == ANOMALY:
        return [
            "It has learnt from normal examples alone, and says how unlike them an input is. Other anomalies than those of the "
            "test split may be found less often, or not at all."
        ]
    labels = [_code(label) for label in d["labels"]]
    confusions = [
        (count, i, j)
        for i, row in enumerate(d["test"]["float32"]["confusion_matrix"] or [])
        for j, count in enumerate(row)
        if i != j and count
    ]
    frequent = [
        f"{labels[i]} for {labels[j]} {'once' if count == 1 else f'{count} times'}"
        for count, i, j in sorted(confusions, reverse=True)
    ]
    unknown = "It has no class for unknown inputs: every input gets one of its labels."
    return [unknown, *([f"On the test split it mistook {', '.join(frequent[:_CONFUSIONS])}."] if frequent else [])]


def _errors(d: Description) -> str:
    reports, name = [d["test"][kind] for kind in ("float32", "int8")], to_code(d["target"]["name"])
    rows = [
        f"| {what} | {' | '.join(f'{report[key]:.4g}' for report in reports)} |"
        for what, key in (
            ("mean absolute error", "mae"),
            ("root mean square error", "rmse"),
            ("largest error", "largest_error"),
        )
    ]
    spread = f"The standard deviation of {name} in train is {d['target']['std']:.4g}: the error of always answering its mean."
    return "\n".join([f"| on test, in units of {name} | float32 | int8 |", "|---|--:|--:|", *rows, "", spread])


def _rates(d: Description) -> str:
    reports = [d["test"][kind] for kind in ("float32", "int8")]
    rows = []
    for what, key in (("anomalies detected", "detected"), ("false alarms", "false_alarms")):
        rates = [f"{_percent(report[key])} ({_interval(report[f'{key}_ci95'])})" for report in reports]
        rows.append(f"| {what} | {' | '.join(rates)} |")
    partial = " | ".join(_percent(report["partial_auc"]) for report in reports)
    thresholds = " | ".join(f"{report['threshold']:.4g}" for report in reports)
    return "\n".join(
        [
            f"| on test, {reports[0]['anomalies']:,} of {reports[0]['examples']:,} are anomalies | float32 | int8 |",
            "|---|--:|--:|",
            f"| threshold, chosen on validation | {thresholds} |",
            *rows,
            f"| partial AUC, up to 10 % of false alarms | {partial} |",
        ]
    )


def _labels(d: Description) -> str:
    reports = [d["test"][kind] for kind in ("float32", "int8")]
    both = list(zip(*(report["labels"] for report in reports), strict=True))
    if left_out := len(both) > _CLASSES:
        both = sorted(both, key=lambda pair: pair[0]["auc"])[:_CLASSES]
    rows = []
    for row, of_int8 in both:
        cells = [_code(row["label"]), str(row["examples"]), _percent(row["auc"])]
        cells += [f"{row['threshold']:.4g}", _percent(row["recall"]), _interval(row["recall_ci95"]), _percent(row["precision"])]
        cells += [f"{of_int8['threshold']:.4g}", _percent(of_int8["recall"])]
        rows.append(f"| {' | '.join(cells)} |")
    head = (
        "| label | test examples | AUC | threshold | recall | 95 % interval | precision | threshold, int8 | recall, int8 |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    exact, precision = (" and ".join(_percent(report[key]) for report in reports) for key in ("exact", "macro_ap"))
    note = [f"The {_CLASSES} weakest of {len(d['labels'])} labels; all of them are in artifact.json."] if left_out else []
    about = (
        f"Thresholds are chosen on validation, for the largest F1 of each label. On test (float32 and int8) the macro average "
        f"precision is {precision}, and {exact} of the examples have all labels right."
    )
    return "\n".join([head, *rows, "", about, *note])


def _finish(accuracy: Mapping[str, Any]) -> str:
    before = accuracy["val_before_finish"]
    if before is None:
        return ""
    seeds = f"{accuracy['val_replicates']} seed{'' if accuracy['val_replicates'] == 1 else 's'}"
    return f"Trained for longer after the search: {_percent(before)} -> {_percent(accuracy['val'])} ({seeds}).\n"


def _trainings(accuracy: Mapping[str, Any]) -> str:
    again = " with fresh seeds" if accuracy["val_at_selection"] is not None else ""
    return f"{times(accuracy['val_replicates'])}{again}"


def _int8(d: Description) -> str:
    int8 = d["int8"]
    points = f"{100 * abs(int8['val_loss']):.1f} points"
    lost = f"Int8 costs {points} on validation" if int8["val_loss"] > 0 else f"Int8 costs nothing on validation (+{points})"
    if not int8["epochs"]:
        return f"{lost}, with calibration on training examples."
    tried = int8["val_accuracy_fine_tuned"]
    outcome = "it diverged" if tried is None else f"it reached {_percent(tried)}"
    kept = "kept" if int8["made_by"] == "fine-tuning" else "not kept"
    return (
        f"{lost}: calibration alone reaches {_percent(int8['val_accuracy_calibrated'])}, so {int8['epochs']} epochs of "
        f"quantisation-aware fine-tuning were tried; {outcome} and was {kept}."
    )


def _classes(d: Description) -> str:
    both = list(zip(d["test"]["float32"]["classes"], d["test"]["int8"]["classes"], strict=True))
    if left_out := len(both) > _CLASSES:
        both = sorted(both, key=lambda pair: (pair[0]["recall"] is None, pair[0]["recall"]))[:_CLASSES]
    rows = [
        f"| {_code(row['class'])} | {row['examples']} | {_percent(row['recall'])} | {_interval(row['recall_ci95'])} "
        f"| {_percent(row['precision'])} | {_percent(of_int8['recall'])} |"
        for row, of_int8 in both
    ]
    head = "| class | test examples | recall | 95 % interval | precision | recall, int8 |\n|---|--:|--:|--:|--:|--:|"
    note = [f"\nThe {_CLASSES} weakest of {len(d['labels'])} classes; all of them are in artifact.json."] if left_out else []
    return "\n".join([head, *rows, *note])


def times(count: int) -> str:
    """So many training runs."""
    return f"{count} training run{'' if count == 1 else 's'}"


def _code(label: str) -> str:
    """A class name as inline code that cannot break a table, whatever it contains."""
    return to_code(label).replace("|", "\\|")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"
