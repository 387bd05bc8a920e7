"""`automl search`: its flags are the settings, from the command line, a config file, or both."""

from __future__ import annotations

import argparse
from typing import Any

from dendrite_automl.cli.config import read_config
from dendrite_automl.errors import RequestError
from dendrite_automl.settings import known_settings, read_texts

_HERE_ONLY = ("mlflow", "register", "json")  # options of the command, not of a search


def search(options: argparse.Namespace) -> int:
    """Search, print the front, log it if asked."""
    said = {name: value for name, value in vars(options).items() if name in (*known_settings(), *_HERE_ONLY)}
    if "config" in options:
        said = _merged(read_config(options.config, options.parse), said)
    mlflow, register, as_json = said.pop("mlflow", None), said.pop("register", None), bool(said.pop("json", False))
    if register is not None and mlflow is None:
        raise RequestError("register: expected --mlflow URI to register the network in, got none")
    if mlflow is not None:
        from dendrite_automl.integrations.mlflow import check_mlflow

        check_mlflow(mlflow)
    from dendrite_automl import api
    from dendrite_automl.cli.results import log_to_mlflow, print_run
    from dendrite_automl.plan import asks_for_repeats
    from dendrite_automl.search_loop.session import Interrupted

    if asks_for_repeats(said):
        return _search_repeatedly(said, mlflow=mlflow, register=register, as_json=as_json)
    try:
        run = api.search(**said)
    except Interrupted as interrupted:
        print_run(interrupted.run, as_json)
        raise
    print_run(run, as_json)
    if mlflow is not None:
        log_to_mlflow(run, mlflow, register)
    return 0


def _search_repeatedly(said: dict[str, Any], *, mlflow: str | None, register: str | None, as_json: bool) -> int:
    """The same for several searches; after Ctrl-C, what those that have a front found is printed."""
    if register is not None:
        raise RequestError(
            "register: expected a single search, got repeats; register one of them with `automl report RUN --mlflow URI "
            "--register NAME`"
        )
    from dendrite_automl import api
    from dendrite_automl.cli.results import log_to_mlflow, print_searches
    from dendrite_automl.search_loop.session import Interrupted

    try:
        runs = api.search_repeatedly(**said)
    except Interrupted as interrupted:
        print_searches(interrupted.run.path.parent, as_json)
        raise
    print_searches(runs[0].path.parent, as_json)
    if mlflow is not None:
        for run in runs:
            log_to_mlflow(run, mlflow, None)
    return 0


def _merged(config: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """The command line wins; for a flag that may be repeated, both count."""
    repeated = {name for name, setting in known_settings().items() if setting.repeats} & config.keys() & said.keys()
    return {**config, **said, **{name: [*read_texts(name, config[name]), *said[name]] for name in repeated}}
