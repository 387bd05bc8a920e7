"""What is made from each artifact of a run, such as C code; needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dendrite_automl.errors import RequestError, Unsupported
from dendrite_automl.run import Run


def lacks_artifact(path: str | Path, snapshot: str) -> bool:
    """Whether `path` is a run in which this snapshot has no artifact yet, or is unknown."""
    folder = Path(path)
    return not (folder / "artifact.json").is_file() and not (folder / "artifacts" / snapshot / "artifact.json").is_file()


def export_each(
    path: str | Path, export: Callable[[Path], Path], *, snapshot: str | None = None
) -> tuple[list[Path], list[str]]:
    """Write code or another file for those artifacts of a run that exist, or for one artifact.

    Args:
        path: a run folder, or the folder of one artifact.
        export: `export_c` or `export_tflite`: from an artifact's folder to what was written.
        snapshot: only this one, which has an artifact.

    Returns:
        What was written, and why others were not: one line per artifact with an operator that has no kernel.

    Raises:
        RequestError: no run, or one that has no artifacts.
        ArtifactMismatch: a file of an artifact was changed.
        AutoMLError: a file cannot be written.
    """
    folder = Path(path)
    if (folder / "artifact.json").is_file():
        if snapshot is not None:
            raise RequestError(f"export: {folder} is a single artifact: --snapshot does not apply to it")
        return [export(folder)], []
    run = Run.open(folder)
    if snapshot is not None:
        artifacts = [run.path / "artifacts" / snapshot]
    else:
        artifacts = [Path(row["artifact"]) for row in run.front_rows() if row["artifact"]]
    if not artifacts:
        raise RequestError(f"export: {run.path} has no artifacts; write them with `automl export {run.path}` first")
    written, refused = list[Path](), list[str]()
    for artifact in artifacts:
        try:
            written.append(export(artifact))
        except Unsupported as error:
            refused.append(str(error))
    return written, refused
