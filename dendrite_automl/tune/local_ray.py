"""A Ray for one search: silent, of this machine only, gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def local_ray(workers: int) -> Iterator[Path]:
    """A local Ray of our own, silent and gone afterwards; or the one that the program has started already.

    Yields:
        A temporary folder for Ray's files.
    """
    settings = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours asks for a clean end and the export
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    import ray

    own = not ray.is_initialized()
    folder = Path(tempfile.mkdtemp(prefix="automl-"))
    try:
        if own:
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=200 * 2**20,
                _temp_dir=str(folder / "ray"),
            )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        yield folder / "tune"
    finally:
        if own:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
