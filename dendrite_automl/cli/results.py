"""Commands that read a run or an artifact: show, watch, report, compare, export, verify."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError


def watch(options: argparse.Namespace) -> int:
    """Follow a search."""
    from dendrite_automl.report.watch import watch_run

    try:
        watch_run(options.path)
    except KeyboardInterrupt:  # the usual way to stop watching
        return 0
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the front."""
    from dendrite_automl.run import load_run
    from dendrite_automl.run.finished import describe_run_left_out

    run = load_run(options.path)
    print_run(run, options.json)
    if not options.json and (left_out := describe_run_left_out(run)) is not None:
        print(left_out, file=sys.stderr)
    return 0


def report(options: argparse.Namespace) -> int:
    """Rewrite the report, log the run, or print LaTeX."""
    from dendrite_automl.report.write import latex_table, write_report
    from dendrite_automl.run import Journal, load_run

    run = load_run(options.path)
    if options.latex:
        print(json.dumps({"latex": latex_table(run)}) if options.json else latex_table(run))
        return 0
    if options.mlflow is not None:
        log_to_mlflow(run, options.mlflow, options.register)
    files = [str(path.resolve() if options.json else path) for path in write_report(Journal(run))]
    print(json.dumps({"files": files}) if options.json else "\n".join(files))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare arms, runs or repeated searches."""
    from dendrite_automl.comparison import SearchComparison, compare_folders
    from dendrite_automl.report.compare_table import print_comparison
    from dendrite_automl.report.searches_table import print_search_comparison

    if options.paper:
        return _paper(options)
    found = compare_folders(options.paths, force=options.force)
    regressions = [] if options.fail_below is None else found.regressions(options.fail_below / 100)
    if options.json:
        gate = {} if options.fail_below is None else {"regressions": len(regressions)}
        print(json.dumps({**found.to_json(), **gate}))
    elif isinstance(found, SearchComparison):
        print_search_comparison(found)
    else:
        print_comparison(found)
    for at in regressions:
        print(f"automl: compare: {found.sides[0]} is worse at {at.axis} {at.budget:,.0f}: {at.format()}", file=sys.stderr)
    return 1 if regressions else 0


def _paper(options: argparse.Namespace) -> int:
    from dendrite_automl.comparison.paper import describe, restate

    if options.paths or options.force or options.fail_below is not None:
        raise RequestError("compare: --paper stands alone: expected no run and no flag other than --json")
    print(json.dumps(restate()) if options.json else describe(restate()))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write artifacts, C code, firmware packages, files of TensorFlow Lite, or a folder for a model hub."""
    form = options.form
    if options.package is not None:
        from dendrite_automl.c99.package import check_package

        if form == "tflite" or options.hub is not None:
            other = "--tflite" if form == "tflite" else "--hub"
            raise RequestError(f"export: --package is C code: it does not go with {other}; export in two steps")
        check_package(options.package)
        form = "c"
    if form is not None and options.hub is not None:
        how = f"expected --{form} or --hub, got both; export with --{form} first, it goes into the hub's folder"
        raise RequestError(f"export: {how}")
    if form is not None:
        return _export_as(form, options)
    if options.hub is not None:
        return _export_hub(options)
    if options.stream:
        raise RequestError("export: expected --stream together with --c, got it alone")
    from dendrite_automl.api import export_run

    folders = export_run(options.path, snapshot=options.snapshot, dynamic_batch=options.dynamic_batch)
    if options.json:
        print(json.dumps({"artifacts": [str(folder.resolve()) for folder in folders]}))
    else:
        print("\n".join(str(folder) for folder in folders))
    return 0


def _export_as(form: str, options: argparse.Namespace) -> int:
    from dendrite_automl.export.artifact.each import export_each, lacks_artifact

    if options.dynamic_batch:
        raise RequestError(f"export: --dynamic-batch does not apply to --{form}, which writes no ONNX files")
    if options.snapshot is not None and lacks_artifact(options.path, options.snapshot):
        from dendrite_automl.api import export_run

        export_run(options.path, snapshot=options.snapshot)
    if options.stream and form != "c":
        raise RequestError("export: expected --stream together with --c, got it with --tflite")
    write: Callable[[Path], Path]
    if form == "c":
        from dendrite_automl.c99.folder import export_c

        write = functools.partial(export_c, package=options.package, stream=options.stream)
    else:
        from dendrite_automl.tflite.export import export_tflite

        write = export_tflite
    written, refused = export_each(options.path, write, snapshot=options.snapshot)
    if options.json:
        print(json.dumps({form: [str(folder.resolve()) for folder in written], "refused": refused}))
    elif written:
        print("\n".join(str(folder) for folder in written))
    for line in refused:
        print(f"automl: {line}", file=sys.stderr)
    return 1 if refused else 0


def _export_hub(options: argparse.Namespace) -> int:
    from dendrite_automl.export.artifact.hub import export_hub

    if options.dynamic_batch:
        raise RequestError("export: --dynamic-batch does not apply to --hub, which copies the artifact's files")
    folder = export_hub(options.path, options.hub, snapshot=options.snapshot)
    print(json.dumps({"hub": str(folder.resolve())}) if options.json else folder)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check an artifact."""
    from dendrite_automl.runtimes.verify import verify_artifact

    found = verify_artifact(options.path, signature=options.signature, key=options.key)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['artifact']}: hashes, {found['params']:,} parameters, {found['macs']:,} MACs and "
            f"the logits of {found['vectors']} test vectors match what the artifact records"
            + (f"; it fits {found['device']}" if found["device"] else "")
            + (f"; signed: {found['signature']}" if found["signature"] else "")
        )
    return 0


def log_to_mlflow(run: Any, uri: str, name: str | None) -> None:
    """Log a finished run to MLflow."""
    from dendrite_automl.integrations.mlflow import log_run

    with contextlib.redirect_stdout(sys.stderr):  # MLflow prints its progress there
        logged = log_run(run, uri, name=name)
    print(f"logged to {uri}: MLflow run {logged}", file=sys.stderr)


def print_searches(path: Path, as_json: bool) -> None:
    """What repeated searches found, and the comparison of their arms, or why there is none."""
    from dendrite_automl.comparison import SearchComparison, compare_folders
    from dendrite_automl.report.searches_table import print_repeats, print_search_comparison
    from dendrite_automl.run import Repeats

    repeats = Repeats.open(path)
    runs = [run for run in repeats.runs() if (run.path / "front.csv").is_file()]
    found = [{"name": run.path.name, "seed": run.info.request["seed"], **run.summary()} for run in runs]
    compared, reason = None, None
    try:
        compared = compare_folders([path])
    except RequestError as error:
        reason = str(error)
    if as_json:
        over = compared.to_json() if compared else None
        print(json.dumps({"folder": str(path.resolve()), "repeats": found, "comparison": over, "not_compared": reason}))
        return
    print_repeats(found)
    print()
    if isinstance(compared, SearchComparison):
        print_search_comparison(compared)
    else:
        print(reason)
    print(f"\n{path}: one run folder for each search; `automl show {path}/1` prints a front, `automl compare {path}` the above")


def print_run(run: Any, as_json: bool) -> None:
    """The front of a run as a table, or everything about it as JSON."""
    from dendrite_automl.report.table import print_front, print_recommended

    if as_json:
        print(json.dumps(run.summary()))
        return
    print_recommended(run.recommended_rows())
    latency = None
    with contextlib.suppress(RequestError):  # a profile of an earlier version may lack a figure
        latency = run.info.device.latency_basis() if run.info.device is not None else None
    told = {"optimism": run.info.optimism, "metric": run.metric, "latency": latency, "runtime": run.info.runtime}
    print_front(run.front_rows(), **told)
    print(f"\n{run.path}: report.html, front.csv, front.png, candidates.csv, artifacts/ (check one with `automl verify`)")
