"""A folder that a model hub takes as it is: an artifact's files, and its card with the hub's metadata."""

from __future__ import annotations

import difflib
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_automl.description import problem_in
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.artifact.card import make_card
from dendrite_automl.export.artifact.member import FILES
from dendrite_automl.export.artifact.seal import SEAL
from dendrite_automl.export.artifact.verify import open_artifact
from dendrite_automl.metrics import CLASSIFICATION, METRICS_OF, MULTILABEL, REGRESSION, title_of
from dendrite_automl.plain import to_json_text
from dendrite_automl.run import Run
from dendrite_automl.run.recommended import MOST_ACCURATE

_ERRORS = ("mae", "rmse")
_UPLOAD = """\
## In this repository

`model.onnx` and `model.int8.onnx` are the network, `vectors.npz` holds test vectors, `artifact.json` everything that is known
about it. `sha256sum -c SHA256SUMS` checks the files, `automl verify .` what they compute
([dendrite-automl](https://pypi.org/project/dendrite-automl/)). No licence was set: whoever publishes this should replace
`license: unknown` above.
"""


def export_hub(path: str | Path, folder: str | Path, *, snapshot: str | None = None) -> Path:
    """Copy one artifact into a new folder, with a README.md that hubs such as Hugging Face read; nothing is uploaded.

    Args:
        path: a run folder, or the folder of one artifact.
        folder: must not exist.
        snapshot: of the run; default: the most accurate member of the front.

    Returns:
        The folder.

    Raises:
        RequestError: no such run or artifact, an artifact of another format, or a folder that exists; nothing was written.
        ArtifactMismatch: a file of the artifact was changed; nothing was written.
        AutoMLError: the folder cannot be written.
    """
    target = Path(folder)
    if target.exists():
        raise RequestError(f"export: hub: expected a new folder, got {target}, which exists")
    artifact = _find_artifact(Path(path), snapshot)
    description = open_artifact(artifact)
    card = make_hub_card(description)
    scratch = target.with_name(f".{uuid.uuid4().hex}")
    try:
        scratch.mkdir(parents=True)
        for name in (*FILES, SEAL):
            shutil.copyfile(artifact / name, scratch / name)
        if (artifact / "c").is_dir():
            shutil.copytree(artifact / "c", scratch / "c")
        (scratch / "README.md").write_text(card, encoding="utf-8")
        scratch.rename(target)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise AutoMLError(f"export: hub: cannot write {target}: {error.strerror or error}") from None
    return target


def make_hub_card(description: Mapping[str, Any]) -> str:
    """README.md: metadata between two lines of dashes, and the card.

    Source:
        The fields of Hugging Face's model cards (huggingface.co/docs/hub/model-cards); `datasets` is left out, because it takes
        only data sets on the hub.
    """
    return "\n".join(["---", *_yaml(make_hub_metadata(description)), "---", "", make_card(description) + "\n" + _UPLOAD])


def make_hub_metadata(description: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a hub's card; without `pipeline_tag` for data that no tag of the hub is about."""
    shape = description["onnx"]["input"][1][1:]
    tag = _pipeline_tag(description, shape)
    measured, data = description["snapshot"]["measurement"], description["data"]
    dendrites = ["dendrites"] if description["snapshot"]["dendrites"] else []
    problem = problem_in(description)
    tested = [
        {"type": name, "value": description["test"][kind][name], "name": f"test {title_of(name)}, {kind}"}
        for kind in ("float32", "int8")
        for name in (*METRICS_OF[problem], *_ERRORS)
        if description["test"][kind].get(name) is not None
    ]
    result = {
        "task": {"type": tag or ("time-series-classification" if problem == CLASSIFICATION else problem), "name": problem},
        "dataset": {"type": data["task"], "name": data["about"], "split": "test", "revision": data["sha256"][:16]},
        "metrics": [*tested, {"type": "parameters", "value": measured["params"]}, {"type": "macs", "value": measured["macs"]}],
    }
    return {
        "library_name": "onnx",
        "license": "unknown",
        **({"pipeline_tag": tag} if tag else {}),
        "tags": ["onnx", "int8", "tinyml", "neural-architecture-search", "dendrite-automl", *dendrites],
        "model-index": [{"name": _name(description), "results": [result]}],
    }


def _yaml(value: Any) -> list[str]:
    """Lines of YAML; strings are written as in JSON, which YAML reads whatever they contain."""
    if isinstance(value, list):
        blocks = [("- ", _yaml(item)) for item in value]
        return [f"{mark if i == 0 else '  '}{line}" for mark, lines in blocks for i, line in enumerate(lines)]
    if not isinstance(value, dict):
        return [to_json_text(value)]
    lines = []
    for name, item in value.items():
        inner = _yaml(item)
        lines += [f"{name}:", *(f"  {line}" for line in inner)] if isinstance(item, dict | list) else [f"{name}: {inner[0]}"]
    return lines


def _name(description: Mapping[str, Any]) -> str:
    snapshot = description["snapshot"]
    return f"{description['data']['task']}-{snapshot['candidate']}-{snapshot['path'][-1]}"


def _pipeline_tag(description: Mapping[str, Any], shape: list[int]) -> str | None:
    """The hub's task for the kind of data and problem, if it has one."""
    preprocessing, problem = description["preprocessing"], problem_in(description)
    if problem not in (CLASSIFICATION, MULTILABEL):
        return "tabular-regression" if problem == REGRESSION and len(shape) == 1 else None
    if "audio" in preprocessing or "features" in preprocessing:
        return "audio-classification"
    return {1: "tabular-classification", 3: "image-classification"}.get(len(shape))


def _find_artifact(path: Path, snapshot: str | None) -> Path:
    """The folder of the artifact that is meant.

    Raises:
        RequestError: there is none.
    """
    if (path / "artifact.json").is_file():
        if snapshot is not None:
            raise RequestError(f"export: {path} is a single artifact: --snapshot does not apply to it")
        return path
    run = Run.open(path)
    if snapshot is None:
        chosen = run.recommended
        if not chosen:
            raise RequestError(f"export: {run.path} has no artifacts; write them with `automl export {run.path}` first")
        return Path(chosen[MOST_ACCURATE].path)
    artifact = run.path / "artifacts" / snapshot
    known = [each.id for each in run.snapshots()]
    if snapshot not in known:
        close = difflib.get_close_matches(snapshot, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"see {run.path}/candidates.csv"
        raise RequestError(f'export: snapshot: {run.path} has no "{snapshot}"; {hint}')
    if not (artifact / "artifact.json").is_file():
        raise RequestError(
            f'export: {run.path}: "{snapshot}" has no artifact; write it with `automl export {run.path} --snapshot {snapshot}`'
        )
    return artifact
