"""`automl verify`: an artifact's own checks, and what code made of it takes if it was designed for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dendrite_automl.export.artifact.verify import check_artifact
from dendrite_automl.runtimes import make_runtime


def verify_artifact(
    folder: str | Path, *, signature: str | Path | None = None, key: str | Path | None = None
) -> dict[str, Any]:
    """Check hashes, counts, operators, outputs and device fit of an artifact: the Python form of `automl verify`.

    RAM and flash of an artifact with runtime `c` are counted again on the code that this version makes of its files.

    Args:
        signature: a file with a detached signature of SHA256SUMS, which is checked before any other file is opened.
        key: a file with the public key in PEM that it must be by.

    Returns:
        What was checked: snapshot, params, macs, device, vectors, the largest logit difference, float and int8, and signature:
        its algorithm and key, or None.

    Raises:
        RequestError: not an artifact folder, or one of another format; a signature without a key, or files that are not those.
        ArtifactMismatch: a file is missing or differs from what the artifact records, the network does not fit, or the
            signature is not of this artifact by this key.
    """
    return check_artifact(folder, make_runtime, signature=signature, key=key)
