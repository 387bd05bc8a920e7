"""CARD.md: an artifact on one page, for whoever decides whether to ship it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_automl.plain import make_line, to_code, to_json_text, to_markdown

_RUN = """\
import json, numpy as np, onnxruntime
labels = json.load(open("artifact.json"))["labels"]
session = onnxruntime.InferenceSession("model.int8.onnx")
x = np.load("vectors.npz")["inputs"][:1]
print(labels[session.run(None, {"input": x})[0].argmax()])
"""
_CLASSES = 30  # in the table
_CONFUSIONS = 3  # the most frequent ones
_LONGEST = 200  # characters of the preprocessing
Description = Mapping[str, Any]


def write_card(description: Description, folder: Path) -> None:
    """Write CARD.md from the description that becomes artifact.json.

    Raises:
        OSError: the file cannot be written.
    """
    (folder / "CARD.md").write_text(make_card(description), encoding="utf-8")


def make_card(description: Description) -> str:
    """The card's Markdown."""
    parts = [_head, _quality, _classes, _sizes, _limits, _making, _running, _terms]
    return "\n\n".join(part(description).strip() for part in parts) + "\n"


def _head(d: Description) -> str:
    figures, data = d["snapshot"]["measurement"], d["data"]
    shape = " x ".join(map(str, d["onnx"]["input"][1][1:]))
    return f"""\
# {d["snapshot"]["candidate"]}-{d["snapshot"]["path"][-1]}: {len(d["labels"])} classes, {figures["params"]:,} parameters

A classifier for the task {to_code(data["task"])}: an input of {shape} numbers gives one logit per class.
`model.onnx` is float32, `model.int8.onnx` is the same network in 8 bits. Data: {to_markdown(data["about"])}."""


def _quality(d: Description) -> str:
    accuracy, int8 = d["accuracy"], d["int8"]
    error = "" if accuracy["val_standard_error"] is None else f" ± {_percent(accuracy['val_standard_error'])} (standard error)"
    metric = "" if accuracy["val_metric"] == "accuracy" else f" {to_markdown(accuracy['val_metric'].replace('_', ' '))}"
    return f"""\
## How well it does

| | float32 | int8 |
|---|--:|--:|
| **test** ({accuracy["test_examples"]:,} examples, evaluated once) | **{_percent(accuracy["test"])}** | \
**{_percent(accuracy["test_int8"])}** |
| 95 % interval (Wilson) | {_interval(accuracy["test_ci95"])} | {_interval(accuracy["test_int8_ci95"])} |
| validation{metric} ({d["data"]["examples"]["val"]:,} examples; optimistic, see below) | \
{_percent(int8["val_accuracy_float"])} | \
{_percent(int8["val_accuracy"])} |

Networks of this design reach {_percent(accuracy["val"])}{error}{metric} on validation, the mean of {_trainings(accuracy)}.
{_finish(accuracy)}{_int8(d)}"""


def _finish(accuracy: Mapping[str, Any]) -> str:
    before = accuracy["val_before_finish"]
    if before is None:
        return ""
    seeds = f"{accuracy['val_replicates']} seed{'' if accuracy['val_replicates'] == 1 else 's'}"
    return f"Trained for longer after the search: {_percent(before)} -> {_percent(accuracy['val'])} ({seeds}).\n"


def _trainings(accuracy: Mapping[str, Any]) -> str:
    again = " with fresh seeds" if accuracy["val_at_selection"] is not None else ""
    return f"{_times(accuracy['val_replicates'])}{again}"


def _times(count: int) -> str:
    return f"{count} training run{'' if count == 1 else 's'}"


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


def _sizes(d: Description) -> str:
    figures, fit = d["snapshot"]["measurement"], d["fit"]
    limits = {name: entry["limit"] for name, entry in fit["limits"].items()}
    needs, code = d["footprint"], d.get("code")
    rows, runtime = [], "" if fit["device"] is None else ", runtime included"
    flash, ram = needs["runtime_flash_bytes"], needs["runtime_ram_bytes"]
    memory = {
        "float32": {"flash_bytes": needs["weights_bytes"] + flash, "peak_ram_bytes": needs["peak_ram_bytes"] + ram},
        "int8": {"flash_bytes": needs["weights_bytes_int8"] + flash, "peak_ram_bytes": needs["peak_ram_bytes_int8"] + ram},
    }
    if code:
        memory, runtime = {variant: _of_code(parts) for variant, parts in code.items()}, " of the C code"
    float32, int8 = {**figures, **memory["float32"]}, {**memory["int8"], "latency_ms": needs["latency_ms_int8"]}
    for name, title in (
        ("params", "parameters"),
        ("macs", "multiply-accumulates"),
        ("flash_bytes", f"flash{runtime}, bytes" if code else f"flash, bytes{runtime}"),
        ("peak_ram_bytes", f"RAM{runtime}, bytes" if code else f"peak RAM, bytes{runtime}"),
        ("latency_ms", f"latency, ms, {_latency_basis(needs)}"),
    ):
        if figures[name] is not None:
            limit = f"{limits[name]:,.10g}" if name in limits else "-"
            digits = ".3g" if name == "latency_ms" else ",.10g"
            smaller = f"{int8[name]:{digits}}" if name in int8 else ""
            rows.append(f"| {title} | {float32[name]:{digits}} | {smaller} | {limit} |")
    where = f" on {to_markdown(fit['device'])}" if fit["device"] else ""
    verdict = ("It fits" if fit["fits"] else "**It does not fit**") + where if limits else "No budget was set"
    return "\n".join(
        [
            "## What it costs",
            "",
            f"| | float32 | int8 | limit{where} |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            f"{verdict}.{_about_code(code)}",
        ]
    )


def _of_code(parts: Mapping[str, int]) -> dict[str, int]:
    return {
        "flash_bytes": parts["constant_bytes"] + parts["code_bytes"],
        "peak_ram_bytes": parts["arena_bytes"] + parts["stack_bytes"],
    }


def _about_code(code: Mapping[str, Any] | None) -> str:
    """What the figures of generated code are made of; nothing for other runtimes."""
    if not code:
        return ""
    parts = {name: f"{value:,}" for name, value in code["int8"].items()}
    return (
        " Flash and RAM are those of the C code that `automl export --c` writes (runtime `c`), and their limits hold for int8: "
        f"an arena of {parts['arena_bytes']} B and a stack of about {parts['stack_bytes']} B; {parts['constant_bytes']} B of "
        f"constants and about {parts['code_bytes']} B of code for a Cortex-M4."
    )


def _latency_basis(needs: Mapping[str, Any]) -> str:
    basis, basis_int8 = (needs.get(name) or "estimated" for name in ("latency_basis", "latency_basis_int8"))
    return to_markdown(basis if basis == basis_int8 else f"{basis}; int8: {basis_int8}")


def _latency_limits(d: Description) -> list[str]:
    if d["snapshot"]["measurement"]["latency_ms"] is None:
        return []
    basis = _latency_basis(d["footprint"])
    lines = {
        "measured": "Latency follows from speeds measured on the device with other networks; ±: median error for a new one.",
        "estimated": "Latency is an estimate from assumed speeds.",
    }
    return [line for word, line in lines.items() if word in basis]


def _limits(d: Description) -> str:
    scratch = d["footprint"]["int8_scratch_bytes"]
    labels = [_code(label) for label in d["labels"]]
    confusions = [
        (count, i, j)
        for i, row in enumerate(d["test"]["float32"]["confusion_matrix"] or [])
        for j, count in enumerate(row)
        if i != j and count
    ]
    mistakes = [
        f"{labels[i]} for {labels[j]} {'once' if count == 1 else f'{count} times'}"
        for count, i, j in sorted(confusions, reverse=True)
    ]
    ram = f"RAM is that of tensors in the file's order; int8 kernels may need up to {scratch:,} bytes of scratch on top of it."
    if d.get("code"):
        ram = "Flash and RAM are those of the network alone: audio features, and the rest of the firmware, come on top."
    lines = [
        "Everything here was measured on this one data set. It says nothing about other sensors, rooms, speakers or users.",
        "It has no class for unknown inputs: every input gets one of its labels.",
        *([f"On the test split it mistook {', '.join(mistakes[:_CONFUSIONS])}."] if mistakes else []),
        "This network's own validation figures are optimistic: it was chosen by them. Nothing was chosen by the test split.",
        ram,
        *_latency_limits(d),
    ]
    return "\n".join(["## Its limits", "", *(f"- {line}" for line in lines)])


def _making(d: Description) -> str:
    provenance, measured = d["provenance"], d["snapshot"]["measurement"]
    design = provenance["candidate"]
    knobs = to_markdown(", ".join(f"{name}={value}" for name, value in {**design["network"], **design["training"]}.items()))
    seed, finish = provenance.get("replicate_seed"), provenance.get("finish")
    trained = "" if finish is None else _long_training(finish)
    runs = "search and confirmation together" if finish is None else "those of the long training"
    return f"""\
## How it was made

- **design**: backbone {to_code(design["backbone"])} of the space {to_code(design["space"])}, {design["arm"]} arm: {knobs}
- **schedule**: {to_code(d["snapshot"]["schedule"])}, {measured["trained_epochs"]:,} epochs over all replicates of the search
{trained}- **selection**: of {_times(d["accuracy"]["chosen_of"])}, {runs}, the one that did best on \
validation{"" if seed is None else f" (seed {seed})"}
- **data**: {", ".join(f"{count:,} {split}" for split, count in d["data"]["examples"].items())} examples; \
SHA-256 of train and validation {to_code(d["data"]["sha256"][:16] + "…")}

```
{make_line(provenance.get("command") or "").replace("```", "'''")}
```"""


def _long_training(finish: Mapping[str, Any]) -> str:
    how = f"distill={finish['distill']:g}, temperature={finish['temperature']:g}" if finish["distill"] else "no teacher"
    teacher = "" if finish["teacher"] is None else f", from a teacher: {to_markdown(finish['teacher'])}"
    return (
        f"- **finish**: this very network went through the same schedule in {finish['epochs']:,} epochs per replicate, with "
        f"{len(finish['seeds'])} fresh seeds and {how}{teacher}\n"
    )


def _running(d: Description) -> str:
    free = "; the batch size is free" if d["onnx"]["input"][1][0] == "batch" else "; the batch size is always 1"
    preprocessing = to_json_text(d["preprocessing"])
    if len(preprocessing) > _LONGEST:
        preprocessing = f"{preprocessing[:_LONGEST]}…` (all of it is in artifact.json)"
    else:
        preprocessing += "`"
    return f"""\
## How to run it

Input `input` {d["onnx"]["input"][1]} float32, output `logits`{free}; opset {d["onnx"]["opset"]}. Preprocessing from raw
data to the input: `{preprocessing}.

```python
{_RUN}```

`vectors.npz` holds {d["parity"]["vectors"]} inputs with the logits of both files; `automl verify` checks the whole folder, \
`sha256sum -c SHA256SUMS` its bytes."""


def _terms(d: Description) -> str:
    patent = f"\n\n**Patent**: {to_markdown(d['patent'])}." if d.get("patent") else ""
    return f"## Terms\n\nLicence: {to_markdown(d['licence'])}.{patent}"


def _code(label: str) -> str:
    """A class name as inline code that cannot break a table, whatever it contains."""
    return to_code(label).replace("|", "\\|")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"
