"""What does a search lose when it is killed, when the disk is full, when the clock jumps? Nothing is the claim; this tries.

Small searches (digits; trials, confirmation, finish, export) are started and disturbed at random moments: the driver or a
worker is killed (SIGKILL), every write to the folder fails from some point on, or the clock jumps by days. What was disturbed
is resumed and disturbed again, until it completes. After each disturbance:

- every complete line that was in results.jsonl and confirmed.jsonl is still there, and the files have only grown;
- no trial, ending, snapshot or retraining is there twice, and every snapshot has its weights;
- every artifact verifies, or is not there;
- a disk that is full or read-only is told in one line, with exit code 2; a lost worker and a wrong clock end nothing.

    python benchmarks/chaos.py                    # 100 kills, 40 other disturbances; resumable
    python benchmarks/chaos.py --render           # the section of README.md, from results/chaos.json only
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from chaos_faults import CLOCK, DISK, REFUSED
from section import replace_section

import dendrite_automl as da
from dendrite_automl.errors import AutoMLError
from dendrite_automl.run import Run

RESULTS = Path(__file__).parent / "results" / "chaos.json"
FAULTS = Path(__file__).parent / "chaos_faults.py"
KILLS, OTHERS, SEED = 100, 40, 0
DRIVER, WORKER = "driver killed", "worker killed"
_SIZES = ("--trials", "3", "--epochs", "6", "--replicates", "2", "--confirm", "2", "--finish", "long", "--workers", "2")
SEARCH = ("--task", "digits", "--space", "digits_conv2d", "--budget", "1k-params", *_SIZES)
PHASES = ("start", "trials", "confirmation", "finish", "export")
_PER_RUN = 4  # disturbances of a run; then it may complete
_WRITES, _LOOKS = 80, 400  # in which a disk breaks, and a clock
_LINGER_SECONDS, _HANG_SECONDS = 3.0, 240.0
_WORKER = re.compile(r"^ray::\w*Trainable|export\.parallel import serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One process of a search, until it ended, and what was wrong then.

    Attributes:
        fault: what was done to it; "": nothing, or it had ended before.
        phase: one of `PHASES`, or what was writing when the disk failed.
    """

    fault: str
    phase: str
    exit_code: int
    problems: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Search:
    """A search in a working folder of its own, through all its sessions."""

    place: Path
    kept: dict[str, str] = field(default_factory=dict)  # of the two files of lines

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.place / "run"

    def state(self) -> tuple[Any, ...]:
        """Something that changes whenever a session writes anything of note."""
        return self.text("results.jsonl"), self.text("confirmed.jsonl"), sorted(self.artifacts())

    def phase(self, before: tuple[Any, ...] | None = None) -> str:
        """How far it has come; "start" as long as the state is as it was before this session."""
        if before is not None and self.state() == before:
            return "start"
        begun: dict[str, Sequence[Any]] = {"trials": self.lines("results.jsonl"), "confirmation": self.lines("confirmed.jsonl")}
        finish = [line for line in self.lines("confirmed.jsonl") if line["record"] == "finish"]
        begun |= {"finish": finish, "export": self.artifacts()}
        return next((phase for phase in reversed(PHASES[1:]) if begun[phase]), "start")

    def artifacts(self) -> list[Path]:
        """Its artifacts, and those that are being written."""
        return [*(self.folder / "artifacts").glob("*")]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a file, parsed."""
        return [json.loads(line) for line in self.text(name).splitlines()]

    def text(self, name: str) -> str:
        """The complete lines of a file."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return text[: text.rfind("\n") + 1]

    def problems(self) -> list[str]:
        """What is lost, or there twice, or does not verify; remembers what there is now."""
        names = ("results.jsonl", "confirmed.jsonl")
        found = [f"{name}: lines are gone" for name in names if not self.text(name).startswith(self.kept.get(name, ""))]
        self.kept = {name: self.text(name) for name in names}
        if not (self.folder / "run.json").exists():
            return found
        run = Run.open(self.folder)
        counted = collections.Counter(map(_identity, [*run.records, *run.confirmations]))
        found += [f"twice: {what}" for what, count in counted.items() if count > 1 and what is not None]
        found += [f"no weights: {s.id}" for s in run.snapshots() if not run.weights_path(s.id).exists()]
        for artifact in self.artifacts():
            try:
                if not artifact.name.startswith("."):
                    da.verify_artifact(artifact)
            except AutoMLError as error:
                found.append(f"artifact: {error}")
        return found

    def leftovers(self) -> list[str]:
        """What a completed search should not leave behind."""
        run = Run.open(self.folder)
        scratch = [path.name for path in (self.folder / "weights").iterdir() if path.suffix != ".safetensors"]
        scratch += [path.name for path in self.folder.rglob(".*")]
        missing = [row["snapshot"] for row in run.front_rows() if not (self.folder / row["artifact"]).exists()]
        left = [f"left behind: {name}" for name in scratch] + [f"no artifact: {name}" for name in missing]
        return left + ([f"Ray's folder is left: {run.info.ray_folder}"] if run.info.ray_folder else [])


def _identity(line: dict[str, Any]) -> tuple[Any, ...] | None:
    """What there should be one line of; None: there may be several."""
    value = line.get("value") or {}
    if line["record"] in ("trial", "end"):
        return line["record"], line["candidate"]
    if line["record"] == "snapshot":
        return "snapshot", value["candidate"], value["path"][-1]
    if value or "snapshot" in line:
        who = line.get("snapshot") or (value["candidate"], value["path"][-1])
        return line["record"], line.get("round", line.get("training")), who
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--others", type=int, default=OTHERS, help="full disks, read-only folders, jumping clocks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true", help="only write the section, from the results file")
    asked = parser.parse_args()
    results = load(asked.results)
    if not asked.render:
        with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
            for session in storm(Path(scratch), SEED + len(results["sessions"]), *still_wanted(results, asked)):
                print(json.dumps(asdict(session)), flush=True)
                results["sessions"].append(asdict(session))
                results |= {"date": date.today().isoformat(), "versions": versions(), "seed": SEED}
                asked.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.results == RESULTS:
        replace_section("chaos", render(results))
    else:
        print(render(results))


def load(path: Path) -> dict[str, Any]:
    """What earlier runs of this script found."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sessions": []}
    return found


def still_wanted(results: dict[str, Any], asked: argparse.Namespace) -> tuple[int, int]:
    """How many kills and other disturbances are missing."""
    done = [session["fault"] for session in results["sessions"] if session["fault"]]
    kills = sum(fault in (DRIVER, WORKER) for fault in done)
    return max(0, asked.kills - kills), max(0, asked.others - (len(done) - kills))


def storm(place: Path, seed: int, kills: int, others: int) -> Iterator[Session]:
    """Disturb searches until there were so many kills and other disturbances, and let the last one complete."""
    rng = random.Random(seed)
    faults = [*itertools.islice(itertools.cycle((DRIVER, DRIVER, WORKER)), kills)]
    faults += itertools.islice(itertools.cycle((*DISK, *DISK, CLOCK)), others)
    rng.shuffle(faults)
    for number in itertools.count():
        if not faults:
            return
        search = Search(place=place / str(number))
        search.place.mkdir()
        for attempt in itertools.count():
            disturbed = faults.pop() if faults and attempt < _PER_RUN else ""
            session = live(search, disturbed, rng)
            if disturbed and not session.fault:
                faults.append(disturbed)  # it had ended before
            yield session
            if session.exit_code == 0 or attempt > 2 * _PER_RUN:
                break
        shutil.rmtree(search.place)


def live(search: Search, fault: str, rng: random.Random) -> Session:
    """Start or resume a search, and disturb it."""
    begun = (search.folder / "run.json").exists()
    if not begun:
        shutil.rmtree(search.folder, ignore_errors=True)  # killed before it was a run: nothing can be lost
        search.kept = {}
    arguments = ["search", *(("--resume",) if begun else (*SEARCH, "--seed", str(rng.randrange(1000)))), "--out", "run"]
    log = search.place.with_suffix(".log")
    log.unlink(missing_ok=True)
    if fault in (DRIVER, WORKER, ""):
        command = [sys.executable, "-m", "dendrite_automl.cli"]
    else:
        command = [sys.executable, str(FAULTS), fault, str(rng.randrange(1, _LOOKS if fault == CLOCK else _WRITES)), str(log)]
    with (search.place.with_suffix(".err")).open("w+") as stderr:
        process = subprocess.Popen([*command, *arguments], cwd=search.place, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            phase = strike(search, process, fault, rng) if fault in (DRIVER, WORKER) else None
            exit_code = process.wait(_HANG_SECONDS)
            hangs = []
        except subprocess.TimeoutExpired:
            phase, exit_code, hangs = None, -1, ["hangs"]
        finally:
            process.kill()
        stderr.seek(0)
        said = stderr.read()
    if fault in DISK:
        refused = [line for line in log.read_text().splitlines() if line.startswith(REFUSED)]
        phase = refused[0].removeprefix(REFUSED) if refused else None
    happened = fault if fault == CLOCK or phase is not None else ""
    problems = [*hangs, *search.problems(), *ending_problems(happened, exit_code, said)]
    if exit_code == 0:
        problems += search.leftovers()
    return Session(fault=happened, phase=phase or search.phase(), exit_code=exit_code, problems=tuple(problems))


def strike(search: Search, process: subprocess.Popen[bytes], fault: str, rng: random.Random) -> str | None:
    """Wait for a random moment and kill; the phase in which that was, or None if the search was over before."""
    before = search.state()
    moment, deadline = PHASES.index(rng.choice(PHASES)), time.monotonic() + _HANG_SECONDS
    while process.poll() is None and PHASES.index(search.phase(before)) < moment and time.monotonic() < deadline:
        time.sleep(0.05)
    after = time.monotonic() + rng.uniform(0, _LINGER_SECONDS)
    while process.poll() is None and time.monotonic() < after:
        time.sleep(0.02)
    while process.poll() is None and time.monotonic() < deadline:
        phase = search.phase(before)
        if fault == DRIVER:
            process.kill()
            return phase
        try:
            family = psutil.Process(process.pid).children(recursive=True)
            victims = [child for child in family if _WORKER.search(" ".join(child.cmdline()))]
            if victims:
                rng.choice(victims).kill()
                return phase
        except psutil.Error:
            pass  # one of them has just ended
        time.sleep(0.05)  # until a worker is there
    return None


def ending_problems(fault: str, exit_code: int, said: str) -> list[str]:
    """What is wrong with how a session ended."""
    errors = [line for line in said.splitlines() if line.startswith("automl: ")]
    found = ["a traceback"] if "Traceback" in said else []
    expected = {DRIVER: (-9, 0), **dict.fromkeys(DISK, (2,))}.get(fault, (0,))
    if exit_code not in expected:
        found.append(f"exit code {exit_code}: {said.splitlines()[-1:]}")
    if exit_code == 2 and errors != said.splitlines()[-1:]:
        found.append(f"not one line: {errors}")
    return found


def versions() -> dict[str, str]:
    """What it ran with."""
    return {name: version(name) for name in ("ray", "torch")} | {"dendrite_automl": da.__version__}


def render(results: dict[str, Any]) -> str:
    """The section of README.md."""
    sessions: Sequence[dict[str, Any]] = results["sessions"]
    if not sessions:
        return "Not measured yet."
    disturbed = [session for session in sessions if session["fault"]]
    problems = [f"{session['fault'] or 'undisturbed'}: {text}" for session in sessions for text in session["problems"]]
    completed = sum(session["exit_code"] == 0 for session in sessions)
    out = [
        f"Last run on {results['date']}, {_listed(results['versions'])}. {len(disturbed)} disturbances, "
        f"{completed} searches were completed in spite of them. Problems: **{len(problems)}**.",
        "",
        f"| | {' | '.join(PHASES)} |",
        "|---|" + "--:|" * len(PHASES),
    ]
    for fault in (DRIVER, WORKER, CLOCK):
        phases = collections.Counter(session["phase"] for session in disturbed if session["fault"] == fault)
        out.append(f"| {fault} | {' | '.join(str(phases[phase]) for phase in PHASES)} |")
    sites = {fault: {s["phase"] for s in disturbed if s["fault"] == fault} for fault in DISK}
    out += ["", "Writes that failed:", ""]
    out += [f"- {fault}: {', '.join(f'`{site}`' for site in sorted(found))}" for fault, found in sites.items()]
    out += ["", *[f"- {text}" for text in problems]]
    return "\n".join(out).strip() + "\n"


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())


if __name__ == "__main__":
    main()
