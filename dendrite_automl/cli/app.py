"""`automl`: parse, call, print, exit code. No logic here, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import dendrite_automl
from dendrite_automl.errors import AutoMLError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_EXIT_CODES = (
    "exit codes: 0 done; 1 a check failed; 2 the request is wrong; 3 nothing fits the budget; 130 interrupted, all saved"
)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if getattr(options, "config", None) is not None:
            options = _with_config(parser, list(sys.argv[1:] if arguments is None else arguments), options)
        code: int = options.run(options)
        return code
    except AutoMLError as error:
        if options.debug:
            traceback.print_exc()
        print(f"automl: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("automl: interrupted; go on with --resume where a run folder was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="automl", description=(dendrite_automl.__doc__ or "").split("\n\n")[0], epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"automl {dendrite_automl.__version__}")
    parser.add_argument("--debug", action="store_true", help="print a traceback with an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_search(commands)
    watch = _command(commands, "watch", _watch, "follow a search from another terminal; ends with it, or by Ctrl-C")
    watch.add_argument("path", metavar="RUN", help="folder of a search, running or finished")
    show = _command(commands, "show", _show, "the front of a run as a table")
    show.add_argument("path", metavar="RUN", help="folder of a search")
    _add_json(show)
    report = _command(commands, "report", _report, "report.html, front.png and front.svg of a run again, from its folder alone")
    report.add_argument("path", metavar="RUN", help="folder of a search")
    report.add_argument("--mlflow", metavar="URI", help="also log the run into this MLflow server or store")
    report.add_argument("--register", metavar="NAME", help="register the best network in MLflow under this name")
    report.add_argument("--latex", action="store_true", help="print the front as a LaTeX table (booktabs) instead")
    _add_json(report)
    about = "dendritic arm against baseline arm of a run, or a run against another one: intervals, verdict; on the test split"
    compare = _command(commands, "compare", _compare, about)
    compare.add_argument("path", metavar="RUN", nargs="?", help="folder of a search")
    compare.add_argument("other", metavar="RUN2", nargs="?", help="folder of another one, on the same data and budget")
    compare.add_argument("--force", action="store_true", help="compare what should not be compared, with a warning")
    gate = "exit 1 if the first is worse by more than P points at some budget, by its whole 95%% interval (P: 0 if not given)"
    compare.add_argument("--fail-below", metavar="P", type=_points, nargs="?", const=0.0, help=gate)
    paper = "instead of runs: the published claim for dendrites in keyword spotting, in the same terms"
    compare.add_argument("--paper", action="store_true", help=paper)
    _add_json(compare)
    export = _command(commands, "export", _export, "the artifacts of a run again, or of one snapshot, or as C; trains nothing")
    export.add_argument("path", metavar="RUN", help="folder of a search; with --c also that of one artifact")
    which = "this one alone, of the front or not (see candidates.csv); default: the whole front"
    export.add_argument("--snapshot", metavar="ID", help=which)
    free = "leave the batch of the ONNX files free (default: fixed at 1, as tools for microcontrollers want it)"
    export.add_argument("--dynamic-batch", action="store_true", help=free)
    code = "C99 code of the artifacts that are there, for bare metal: a folder `c` in each (float32, int8, features, self-test)"
    export.add_argument("--c", action="store_true", dest="as_c", help=code)
    _add_json(export)
    about = "an artifact against its hashes, counts, test vectors and device; exit 1 if it differs"
    verify = _command(commands, "verify", _verify, about)
    verify.add_argument("path", metavar="ARTIFACT", help="folder with an artifact.json")
    _add_json(verify)
    for name, run, about in (
        ("devices", _devices, "devices for --device, with the figures and their sources"),
        ("spaces", _spaces, "search spaces for --space"),
        ("tasks", _tasks, "built-in tasks for --task"),
    ):
        catalogue = _command(commands, name, run, about)
        if name == "devices":
            one = "all figures of one, or of a profile of your own (FILE.toml[:NAME], of the form that --json shows)"
            catalogue.add_argument("name", metavar="NAME", nargs="?", help=one)
        if name == "spaces":
            check = "check a file: its entries, and its backbone with every value of every knob; exit 2 if one is wrong"
            catalogue.add_argument("--check", metavar="FILE", help=check)
            about = "a space, by name or file: its knobs, its smallest and largest network, the share of it that fits --budget"
            catalogue.add_argument("--describe", metavar="NAME", help=about)
            catalogue.add_argument("--budget", metavar="B", help="for --describe")
            catalogue.add_argument("--device", metavar="NAME", help="for --describe")
        _add_json(catalogue)
    return parser


def _command(commands: Any, name: str, run: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about, epilog=_EXIT_CODES)
    parser.set_defaults(run=run)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")


def _add_search(commands: Any) -> None:
    about = "search, train and export the Pareto front of networks within a budget"
    add = _command(commands, "search", _search, about).add_argument
    add("--budget", metavar="B", help='upper limits, such as "2k-params" or "2k-params,64KiB-ram,300k-macs"')
    add(
        "--device",
        metavar="NAME",
        help="add the limits of a device (see `automl devices`), or of a profile of your own: FILE.toml[:NAME]",
    )
    data = (
        "your data: an .npz (X_train, y_train, X_test, y_test, optionally X_val, y_val, groups_train, classes); a .csv or "
        ".parquet with --target; a folder with one sub-folder per class of .wav, .png, .jpg or .csv files; a folder of "
        "IDX files; or module:function, which returns arrays, torch Datasets or a Task"
    )
    add("--task", metavar="NAME", help="built-in task (default: keywords; see `automl tasks`)")
    add("--data", metavar="PATH", help=data)
    add("--target", metavar="COL", help="column of a table that holds the class")
    add("--recording", metavar="COL", help="column of one long table of a time series that tells the recordings apart")
    add("--window", metavar="T", help="length of a window of a recording, such as 2s or 500ms")
    add("--stride", metavar="T", help="from the start of one window to that of the next, such as 1s")
    add("--rate", metavar="F", help="samples per second of a time series or of audio, such as 50Hz or 16kHz")
    add("--features", metavar="NAME", help="features of audio, such as mfcc")
    size = "bring images to HEIGHTxWIDTH pixels (default: their own size, up to 64x64 and if all are alike; else 32x32)"
    add("--image-size", metavar="HxW", help=size)
    add("--colour", metavar="C", help="grey or rgb (default: as the images are, if all are alike)")
    metric = (
        "what networks are judged by: accuracy (default), balanced_accuracy or macro_f1; the latter two weight the loss, "
        "so that each class counts alike (a space's class_weights overrides that)"
    )
    add("--metric", metavar="M", help=metric)
    add("--space", metavar="NAME|PATH", help="search space (default: one that suits the data; see `automl spaces`)")
    knobs = "fix or narrow a knob of the space: width=1, width=0.5:2, kind=pool,subset or stages!=fit; repeatable"
    add("--set", metavar="KNOB=V", action="append", dest="set_knobs", help=knobs)
    add("--trials", metavar="N", type=_count, help="candidates to train in all, shared by the arms (default: 40)")
    add("--time", metavar="T", type=_duration, help="time limit of the search, such as 90s, 10m or 2h; the export follows")
    add("--epochs", metavar="E", type=_count, help="epochs of each trial, over all of its stages (default: 30)")
    add("--replicates", metavar="R", type=_count, help="seeds that each candidate is trained with, together (default: 4)")
    confirm = "fresh seeds, at most, that the front and its rivals are trained again with (default: 8; 0: none)"
    add("--confirm", metavar="S", type=_whole, help=confirm)
    add("--scheduler", metavar="S", help="halving (default): trials that are behind are stopped early; fifo: none is")
    add("--sampler", metavar="S", help="what proposes candidates: gp (default), tpe, local, nsga2, random")
    add("--arms", metavar="A", help="dendritic,baseline (default: both) or one of them")
    objectives = "measures to trade off (default: val_accuracy,params,macs; also val_accuracy_int8, flash_bytes, "
    objectives += "peak_ram_bytes, latency_ms)"
    add("--objectives", metavar="O", help=objectives)
    teacher = "auto: the largest network of the space is trained first, and all others learn from it too; none (default)"
    add("--teacher", metavar="T", help=teacher)
    add("--workers", metavar="W", type=_count, help="processes that train at the same time (default: all cores)")
    add("--ray-address", metavar="A", help="run on this Ray cluster (host:port, or auto) instead of this machine alone")
    add("--seed", metavar="S", type=_whole, help="seed of everything random (default: 0)")
    add("--out", metavar="DIR", help="run folder, new (default: runs/<task>-<time>)")
    mlflow = (
        "log the run into this MLflow server or store when it is done, such as http://127.0.0.1:5000 or sqlite:///mlflow.db"
    )
    add("--mlflow", metavar="URI", help=mlflow)
    add("--register", metavar="NAME", help="register the best network in MLflow under this name")
    config = 'flags from a TOML file (budget = "2k-params"), or the run.json of an earlier search, which repeats it; the '
    add("--config", metavar="FILE", help=config + "command line wins")
    add("--resume", action="store_true", help="go on with the run in --out; more --trials extend it")
    add("--json", action="store_true", help="one JSON object on stdout, nothing else")


def _with_config(parser: argparse.ArgumentParser, arguments: list[str], options: argparse.Namespace) -> argparse.Namespace:
    """The options with those of --config before them, so that what the command line says wins."""
    from dendrite_automl.cli.config import read_flags

    known = [name.replace("_", "-") for name in vars(options) if name not in ("run", "debug", "config")]
    names = {"set-knobs": "set"}
    flags = read_flags(options.config, [names.get(name, name) for name in known])
    place = arguments.index("search") + 1
    return parser.parse_args([*arguments[:place], *flags, *arguments[place:]])


def _search(options: argparse.Namespace) -> int:
    from dendrite_automl.errors import RequestError
    from dendrite_automl.search_loop.session import Interrupted, search

    if options.register is not None and options.mlflow is None:
        raise RequestError("register: expected --mlflow URI, where the network is to be registered, got none")
    if options.mlflow is not None:
        from dendrite_automl.integrations.mlflow import check_mlflow

        check_mlflow(options.mlflow)
    try:
        run = search(
            budget=options.budget,
            device=options.device,
            task=options.task,
            data=options.data,
            target=options.target,
            recording=options.recording,
            window=options.window,
            stride=options.stride,
            rate=options.rate,
            features=options.features,
            image_size=options.image_size,
            colour=options.colour,
            metric=options.metric,
            space=options.space,
            set_knobs=options.set_knobs,
            trials=options.trials,
            seconds=options.time,
            epochs=options.epochs,
            replicates=options.replicates,
            confirm=options.confirm,
            scheduler=options.scheduler,
            sampler=options.sampler,
            arms=options.arms,
            objectives=options.objectives,
            teacher=options.teacher,
            seed=options.seed,
            workers=options.workers,
            ray_address=options.ray_address,
            out=options.out,
            resume=options.resume,
        )
    except Interrupted as interrupted:
        _print_run(interrupted.run, options.json)
        raise
    _print_run(run, options.json)
    if options.mlflow is not None:
        _log_to_mlflow(run, options)
    return 0


def _log_to_mlflow(run: Any, options: argparse.Namespace) -> None:
    import contextlib

    from dendrite_automl.integrations.mlflow import log_run

    with contextlib.redirect_stdout(sys.stderr):  # where MLflow says what it does
        logged = log_run(run, options.mlflow, name=options.register)
    print(f"logged into {options.mlflow}: MLflow run {logged}", file=sys.stderr)


def _print_run(run: Any, as_json: bool) -> None:
    from dendrite_automl.report.table import print_front

    if as_json:
        print(json.dumps(run.summary()))
        return
    print_front(run.front_rows(), optimism=run.info.get("optimism"), metric=run.metric)
    print(f"\n{run.path}: report.html, front.csv, front.png, candidates.csv, artifacts/ (check one with `automl verify`)")


def _watch(options: argparse.Namespace) -> int:
    from dendrite_automl.report.watch import watch_run

    try:
        watch_run(options.path)
    except KeyboardInterrupt:  # the usual way to stop looking
        return 0
    return 0


def _show(options: argparse.Namespace) -> int:
    from dendrite_automl.run import load_run

    _print_run(load_run(options.path), options.json)
    return 0


def _report(options: argparse.Namespace) -> int:
    from dendrite_automl.report.write import latex_table, write_report
    from dendrite_automl.run import load_run

    run = load_run(options.path)
    if options.latex:
        print(json.dumps({"latex": latex_table(run)}) if options.json else latex_table(run))
        return 0
    if options.mlflow is not None:
        _log_to_mlflow(run, options)
    files = [str(path.resolve() if options.json else path) for path in write_report(run)]
    print(json.dumps({"files": files}) if options.json else "\n".join(files))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from dendrite_automl.comparison import compare
    from dendrite_automl.errors import RequestError
    from dendrite_automl.report.compare_table import print_comparison
    from dendrite_automl.run import load_run

    if options.paper:
        return _paper(options)
    if options.path is None:
        raise RequestError("compare: expected the folder of a search, got none")
    other = load_run(options.other) if options.other else None
    found = compare(load_run(options.path), other, force=options.force)
    regressions = [] if options.fail_below is None else found.regressions(options.fail_below / 100)
    if options.json:
        gate = {} if options.fail_below is None else {"regressions": len(regressions)}
        print(json.dumps({**found.to_json(), **gate}))
    else:
        print_comparison(found)
    for at in regressions:
        print(f"automl: compare: {found.sides[0]} is worse at {at.axis} {at.budget:,.0f}: {at.format()}", file=sys.stderr)
    return 1 if regressions else 0


def _paper(options: argparse.Namespace) -> int:
    from dendrite_automl.comparison.paper import describe, restate
    from dendrite_automl.errors import RequestError

    if options.path is not None or options.force or options.fail_below is not None:
        raise RequestError("compare: --paper stands alone: expected no run and no other flag but --json")
    print(json.dumps(restate()) if options.json else describe(restate()))
    return 0


def _export(options: argparse.Namespace) -> int:
    from dendrite_automl.run_export import export_run

    if options.as_c:
        return _export_c(options)
    folders = export_run(options.path, snapshot=options.snapshot, dynamic_batch=options.dynamic_batch)
    if options.json:
        print(json.dumps({"artifacts": [str(folder.resolve()) for folder in folders]}))
    else:
        print("\n".join(str(folder) for folder in folders))
    return 0


def _export_c(options: argparse.Namespace) -> int:
    from dendrite_automl.errors import RequestError
    from dendrite_automl.run_export import export_run_c

    if options.dynamic_batch:
        raise RequestError("export: --dynamic-batch is of ONNX files: expected no --c beside it")
    written, refused = export_run_c(options.path, snapshot=options.snapshot)
    if options.json:
        print(json.dumps({"c": [str(folder.resolve()) for folder in written], "refused": refused}))
    elif written:
        print("\n".join(str(folder) for folder in written))
    for line in refused:
        print(f"automl: {line}", file=sys.stderr)
    return 1 if refused else 0


def _verify(options: argparse.Namespace) -> int:
    from dendrite_automl.export.artifact.verify import verify_artifact

    found = verify_artifact(options.path)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['artifact']}: hashes, {found['params']:,} parameters, {found['macs']:,} MACs and "
            f"the logits of {found['vectors']} test vectors are as the artifact says"
            + (f"; it fits {found['device']}" if found["device"] else "")
        )
    return 0


def _devices(options: argparse.Namespace) -> int:
    from dendrite_automl.devices import get_device, load_devices
    from dendrite_automl.report.table import print_catalogue

    if options.name is not None:
        device = get_device(options.name).to_json()
        sources = device.pop("sources")
        if options.json:
            print(json.dumps({**device, "sources": sources}))
        else:
            print(f"{device['name']}: {device['title']}, {device['cpu']}\n")
            print_catalogue([{"figure": f, "value": device[f], "source": text} for f, text in sources.items()])
        return 0
    profiles = [profile.to_json() for profile in load_devices().values()]
    columns = ("name", "title", "cpu", "clock_mhz", "flash_bytes", "ram_bytes", "runtime_flash_bytes", "runtime_ram_bytes")
    _print_catalogue("devices", profiles, columns, options.json)
    if not options.json:
        print("\nsources of the figures: `automl devices NAME`; latency is an estimate from assumed speeds")
    return 0


def _spaces(options: argparse.Namespace) -> int:
    from dendrite_automl.space import available_spaces, load_space

    if options.check is not None or options.describe is not None:
        return _survey(options)
    if options.budget is not None or options.device is not None:
        from dendrite_automl.errors import RequestError

        raise RequestError("spaces: --budget and --device need --describe NAME")
    spaces = [load_space(name) for name in available_spaces()]
    rows = [
        {
            "name": s.name,
            "backbone": s.backbone,
            "points": s.size,
            "task": s.task,
            "description": s.description,
            "source": s.source,
        }
        for s in spaces
    ]
    _print_catalogue("spaces", rows, tuple(rows[0]), options.json)
    return 0


def _survey(options: argparse.Namespace) -> int:
    from dendrite_automl.budget import Budget
    from dendrite_automl.devices import get_device
    from dendrite_automl.errors import RequestError
    from dendrite_automl.feasibility.survey import check_file, survey_space
    from dendrite_automl.report.table import print_catalogue
    from dendrite_automl.space import load_space

    if options.check is not None and options.describe is not None:
        raise RequestError("spaces: expected --check or --describe, got both")
    device = get_device(options.device) if options.device is not None else None
    budget = Budget.parse(options.budget) if options.budget is not None else Budget()
    budget = budget.with_defaults(device.limits()) if device else budget
    space = load_space(options.check or options.describe)
    if options.check is not None:
        check_file(space)
        if options.json:
            print(json.dumps({"space": space.name, "points": space.size}))
        else:
            print(f"{options.check}: a space of {space.size:,} points over {space.backbone}")
        return 0
    found = survey_space(space, budget, device)
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{space.name}: {space.description}\n")
    print_catalogue([{"knob": name, "values": ", ".join(map(str, values))} for name, values in found["knobs"].items()])
    shape = " x ".join(map(str, found["input_shape"]))
    print(f"\n{found['points']:,} points, {found['anchors']} anchors; input {shape}, {found['classes']} classes")
    for which in ("smallest", "largest"):
        print(f"{which} network: {found[which]['params']:,} parameters, {found[which]['macs']:,} MACs")
    print(f"half of {found['sampled']} random points end with at most {found['median_params'] or 0:,} parameters")
    if budget.limits:
        print(f"within {budget}: {found['share_that_fits']:.0%} of them; a search moves the others to sizes that fit")
    return 0


def _tasks(options: argparse.Namespace) -> int:
    from dendrite_automl.tasks import TASKS

    rows = []
    for name, load in TASKS.items():
        task = load()
        shape = " x ".join(map(str, task.input_shape))
        sizes = {"classes": len(task.classes), "train": len(task.train), "val": len(task.val)}
        rows.append({"name": name, "input": shape, **sizes, "about": task.about})
    _print_catalogue("tasks", rows, tuple(rows[0]), options.json)
    return 0


def _print_catalogue(name: str, rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    from dendrite_automl.report.table import print_catalogue

    if as_json:
        print(json.dumps({name: rows}))
    else:
        print_catalogue([{column: row[column] for column in columns} for row in rows])


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a whole number, got "{text}"') from None


def _count(text: str) -> int:
    if (number := _whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {number}")
    return number


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f'expected points of accuracy from 0 to 100, got "{text}"')
    return points


def _duration(text: str) -> float:
    """`90s`, `10m`, `2h` -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f'expected a duration > 0 such as 90s, 10m or 2h, got "{text}"')
    return float(match[1]) * _SECONDS[match[2]]
