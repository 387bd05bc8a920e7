"""CARD.md: an artifact on one page, for whoever decides whether to ship it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_automl.export.artifact.card_quality import details, mistakes, purpose, quality, running, subject, times
from dendrite_automl.plain import make_line, to_code, to_json_text, to_markdown

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
    parts = [_head, quality, details, _sizes, _limits, _making, _running, _terms]
    return "\n\n".join(part(description).strip() for part in parts) + "\n"


def _head(d: Description) -> str:
    figures, data = d["snapshot"]["measurement"], d["data"]
    return f"""\
# {d["snapshot"]["candidate"]}-{d["snapshot"]["path"][-1]}: {subject(d)}, {figures["params"]:,} parameters

{purpose(d)}
`model.onnx` is float32, `model.int8.onnx` is the same network in 8 bits. Data: {to_markdown(data["about"])}."""


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
    ram = f"RAM is that of tensors in the file's order; int8 kernels may need up to {scratch:,} bytes of scratch on top of it."
    if d.get("code"):
        ram = "Flash and RAM are those of the network alone: audio features, and the rest of the firmware, come on top."
    lines = [
        "Everything here was measured on this one data set. It says nothing about other sensors, rooms, speakers or users.",
        *mistakes(d),
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
{trained}- **selection**: of {times(d["accuracy"]["chosen_of"])}, {runs}, the one that did best on \
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
{running(d)}```

`vectors.npz` holds {d["parity"]["vectors"]} inputs with the logits of both files; `automl verify` checks the whole folder, \
`sha256sum -c SHA256SUMS` its bytes."""


def _terms(d: Description) -> str:
    patent = f"\n\n**Patent**: {to_markdown(d['patent'])}." if d.get("patent") else ""
    return f"## Terms\n\nLicence: {to_markdown(d['licence'])}.{patent}"
