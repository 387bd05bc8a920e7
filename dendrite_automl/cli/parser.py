"""The flags of `automl`: those of `search` come from the settings, the others are defined here."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import dendrite_automl
from dendrite_automl.settings import flag_of, known_settings

_EXIT_CODES = (
    "exit codes: 0 done; 1 a check failed; 2 the request is wrong; 3 nothing fits the budget; 130 interrupted, all saved"
)
_RUN = "folder of a search"


class _Parser(argparse.ArgumentParser):
    """Reports an error on one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser for all commands; `run` in its result is the command's function."""
    parser = _Parser(prog="automl", description=(dendrite_automl.__doc__ or "").split("\n\n")[0], epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"automl {dendrite_automl.__version__}")
    parser.add_argument("--debug", action="store_true", help="print a traceback with an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_search(commands)
    _add_results(commands)
    _add_catalogues(commands)
    return parser


def _add_search(commands: Any) -> None:
    about = "search, train and export the Pareto front of networks within a budget"
    search = _command(commands, "search", "search", about, argument_default=argparse.SUPPRESS)
    groups: dict[str, Any] = {}
    for name, setting in known_settings().items():
        if setting.group not in groups:
            groups[setting.group] = search.add_argument_group(setting.group)
        kind: dict[str, Any] = {"metavar": setting.metavar} if setting.metavar else {"action": "store_true"}
        if setting.repeats:
            kind["action"] = "append"
        groups[setting.group].add_argument(f"--{flag_of(name)}", dest=name, help=setting.help, **kind)
    results = search.add_argument_group("results")
    mlflow = "log the finished run to this MLflow server or store, such as http://127.0.0.1:5000 or sqlite:///mlflow.db"
    results.add_argument("--mlflow", metavar="URI", help=mlflow)
    results.add_argument("--register", metavar="NAME", help="register the best network in MLflow under this name")
    config = 'flags from a TOML file (budget = "2k-params"), or the run.json of an earlier search, which repeats it; the '
    results.add_argument("--config", metavar="FILE", help=config + "command line wins")
    _add_json(results)

    def parse(words: Sequence[str]) -> dict[str, Any]:
        known = vars(search.parse_args(words))
        return {name: value for name, value in known.items() if name in known_settings()}

    search.set_defaults(parse=parse)


def _add_results(commands: Any) -> None:
    watch = _command(commands, "watch", "results", "follow a search from another terminal; ends with it, or on Ctrl-C")
    watch.add_argument("path", metavar="RUN", help="folder of a search, running or finished")
    show = _command(commands, "show", "results", "the front of a run as a table")
    show.add_argument("path", metavar="RUN", help=_RUN)
    _add_json(show)
    about = "rewrite report.html, front.png and front.svg of a run, from its folder alone"
    report = _command(commands, "report", "results", about)
    report.add_argument("path", metavar="RUN", help=_RUN)
    report.add_argument("--mlflow", metavar="URI", help="also log the run to this MLflow server or store")
    report.add_argument("--register", metavar="NAME", help="register the best network in MLflow under this name")
    report.add_argument("--latex", action="store_true", help="print the front as a LaTeX table (booktabs) instead")
    _add_json(report)
    about = (
        "the dendritic arm of a run, or of several searches, against the baseline arm, or one run or method against another: "
        "intervals and verdict, on test data"
    )
    compare = _command(commands, "compare", "results", about)
    folders = (
        "folder of a search: its arms; two: one search against the other, on the same data and budget; a folder of `search "
        "--repeat`, or three searches or more: the arms over all these searches; two such folders: one method against the other"
    )
    compare.add_argument("paths", metavar="RUN", nargs="*", help=folders)
    compare.add_argument("--force", action="store_true", help="compare runs that should not be compared, with a warning")
    gate = "exit 1 if the first is worse by more than P points at some budget, over its whole 95%% interval (P defaults to 0)"
    compare.add_argument("--fail-below", metavar="P", type=_points, nargs="?", const=0.0, help=gate)
    paper = "instead of runs: the published claim for dendrites in keyword spotting, in the same terms"
    compare.add_argument("--paper", action="store_true", help=paper)
    _add_json(compare)
    about = (
        "rewrite the artifacts of a run or of one snapshot, or write C code, packages or TensorFlow Lite; nothing is trained"
    )
    export = _command(commands, "export", "results", about)
    export.add_argument(
        "path", metavar="RUN", help="folder of a search; with --c, --package, --tflite or --hub also that of one artifact"
    )
    which = "only this one, on the front or not (see candidates.csv); default: the reported front"
    export.add_argument("--snapshot", metavar="ID", help=which)
    free = "leave the batch of the ONNX files free (default: fixed at 1, as microcontroller tools require it)"
    export.add_argument("--dynamic-batch", action="store_true", help=free)
    code = "C99 code of the existing artifacts, for bare metal: a folder `c` in each (float32, int8, features, self-test)"
    form = export.add_mutually_exclusive_group()
    form.add_argument("--c", action="store_const", const="c", dest="form", help=code)
    detector = "with --c, for recordings: also detectors that listen to a stream and keep their state from call to call"
    export.add_argument("--stream", action="store_true", help=detector)
    file = "the existing artifacts for TensorFlow Lite Micro: `model.int8.tflite` in each (needs dendrite-automl[tflite])"
    form.add_argument("--tflite", action="store_const", const="tflite", dest="form", help=file)
    package = (
        "the C code as a firmware package: arduino, esp-idf, zephyr or cmsis-pack, in a folder of that name in each artifact, "
        "with an example that classifies the test vectors (implies --c)"
    )
    export.add_argument("--package", metavar="KIND", help=package)
    hub = "new folder for a model hub, such as Hugging Face: the most accurate artifact, or that of --snapshot, and a card"
    export.add_argument("--hub", metavar="DIR", help=hub)
    _add_json(export)
    about = "check an artifact against its hashes, counts, test vectors and device; exit 1 if it differs"
    verify = _command(commands, "verify", "results", about)
    verify.add_argument("path", metavar="ARTIFACT", help="folder with an artifact.json")
    signature = "a detached signature of the artifact's SHA256SUMS, raw or base64: Ed25519, ECDSA or RSA; with --key"
    verify.add_argument("--signature", metavar="FILE", help=signature)
    verify.add_argument("--key", metavar="FILE", help="the public key in PEM that the signature must be by")
    _add_json(verify)
    _add_stream(commands)


def _add_stream(commands: Any) -> None:
    about = "run an artifact over long recordings: detections, or misses and false accepts per hour; choose its threshold"
    stream = _command(commands, "stream", "stream", about)
    stream.add_argument("artifact", metavar="ARTIFACT", help="folder with an artifact.json, of a network for recordings")
    stream.add_argument("recordings", metavar="AUDIO", nargs="+", help=".wav, .flac, .ogg or .mp3 at the rate of the features")
    labels = "CSV with the columns file, start, end, label (seconds): every keyword that is said; then errors are counted"
    stream.add_argument("--labels", metavar="FILE", help=labels)
    choose = "take the lowest threshold within --false-accepts-per-hour on these recordings, and keep it in artifact.json"
    stream.add_argument("--choose-threshold", action="store_true", help=choose)
    limit = "for --choose-threshold, of all keywords together (default: 1)"
    stream.add_argument("--false-accepts-per-hour", metavar="F", type=float, help=limit)
    stream.add_argument("--threshold", metavar="P", type=float, help="detect a keyword from this average probability on")
    stream.add_argument("--hop", metavar="N", type=int, help="frames from one window to the next (default: those of 80 ms)")
    stream.add_argument("--smoothing", metavar="N", type=int, help="windows that are averaged (default: 3)")
    rest = "seconds without another detection (default: while the windows overlap)"
    stream.add_argument("--refractory", metavar="S", type=float, help=rest)
    background = "classes that are no keywords (default: those named unknown, silence, noise, background and the like)"
    stream.add_argument("--background", metavar="A,B", help=background)
    stream.add_argument("--int8", action="store_true", help="the int8 network (default: float32, or what the artifact keeps)")
    _add_json(stream)


def _add_catalogues(commands: Any) -> None:
    devices = _command(commands, "devices", "catalogues", "devices for --device, with the figures and their sources")
    one = (
        "all figures of one device, or of your own profile (FILE.toml[:NAME], in the form that --json shows); for --calibrate: "
        "the device whose clock and memory the new profile has"
    )
    devices.add_argument("name", metavar="NAME", nargs="?", help=one)
    logs = "fit the speeds to logs of C self-tests compiled with -DNN_PROFILE, of three networks or more, and write NAME.toml"
    devices.add_argument("--calibrate", metavar="LOG", nargs="+", help=logs)
    measured = "of the new profile of --calibrate; default: the device's. If no device is given, NAME is also the device"
    devices.add_argument("--name", metavar="NAME", dest="profile", help=measured)
    spaces = _command(commands, "spaces", "catalogues", "search spaces for --space")
    check = "check a file: its entries, and its backbone with every value of every knob; exit 2 if one is wrong"
    spaces.add_argument("--check", metavar="FILE", help=check)
    about = "a space, by name or file: its knobs, its smallest and largest network, the share of it that fits --budget"
    spaces.add_argument("--describe", metavar="NAME", help=about)
    spaces.add_argument("--budget", metavar="B", help="for --describe")
    spaces.add_argument("--device", metavar="NAME", help="for --describe")
    spaces.add_argument("--runtime", metavar="R", help="for --describe: what needs flash and RAM, as for search")
    tasks = _command(commands, "tasks", "catalogues", "built-in tasks for --task")
    for catalogue in (devices, spaces, tasks):
        _add_json(catalogue)


def _command(commands: Any, name: str, module: str, about: str, **options: Any) -> argparse.ArgumentParser:
    """Add a command; the function behind it has the same name, in a module of this package."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about, epilog=_EXIT_CODES, **options)
    parser.set_defaults(run=_Late(module, name))
    return parser


class _Late:
    """A function that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = f"dendrite_automl.cli.{module}", name

    def __call__(self, options: argparse.Namespace) -> int:
        call: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(self._module), self._name)
        return call(options)


def _add_json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f'expected points of accuracy from 0 to 100, got "{text}"')
    return points
