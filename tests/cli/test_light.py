"""A light install: reading results and writing C code work without torch and Ray, everything else says what is missing."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dendrite_automl.tasks import load_task
from tests.export.test_front import Search

ROOT = Path(__file__).parents[2]
# Import names of the packages that are dependencies, but not in light.txt.
_LEFT_OUT = (
    "joblib matplotlib onnxscript optuna pandas PIL psutil pyarrow ray safetensors sklearn threadpoolctl torch torch_pruning"
)
_RUN = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_LEFT_OUT.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from dendrite_automl.cli import main
sys.exit(main(sys.argv[1:]))
"""


def automl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", _RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    search = Search(tmp_path_factory.mktemp("light") / "run")
    search.add(5, 0.9)
    search.export(load_task("digits"))
    return search.run.path


def requirements(lines: list[str]) -> dict[str, str]:
    """Lower bounds by the names of the packages."""
    return dict(re.match(r"([\w-]+)(?:\[\w+\])?>=(.*)", line).groups() for line in lines)


def test_light_requirements_are_a_part_of_all_and_the_rest_is_what_is_left_out_here() -> None:
    everything = requirements(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])
    lines = (ROOT / "light.txt").read_text(encoding="utf-8").splitlines()
    light = requirements([line for line in lines if not line.startswith("#")])
    assert light.items() <= everything.items()
    called = {"PIL": "pillow", "sklearn": "scikit-learn", "torch_pruning": "torch-pruning"}
    assert {called.get(name, name) for name in _LEFT_OUT.split()} == everything.keys() - light.keys()


def test_show_verify_c_and_hub_need_neither_torch_nor_ray(run: Path, tmp_path: Path) -> None:
    [row] = json.loads((shown := automl("show", run, "--json")).stdout)["front"]
    assert shown.returncode == 0
    for arguments in (
        ("show", run),
        ("verify", row["artifact"]),
        ("export", run, "--c"),
        ("export", run, "--c", "--snapshot", row["snapshot"]),
        ("export", run, "--hub", tmp_path / "hub"),
    ):
        done = automl(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert (Path(row["artifact"]) / "c" / "model.c").is_file()
    assert automl("verify", tmp_path / "hub").returncode == 0


@pytest.mark.parametrize("arguments", [["search", "--budget", "2k-params"], ["export"], ["report"], ["tasks"]])
def test_every_other_command_says_in_one_line_which_package_is_missing(run: Path, arguments: list[str]) -> None:
    done = automl(*arguments, *([run] if arguments[0] in ("export", "report") else []))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"automl: expected the package \w+, which is not installed; .*a light install has .*\n", done.stderr)


def test_help_devices_and_comparisons_work(run: Path) -> None:
    for arguments in (["--help"], ["devices"], ["search", "--help"], ["compare", "--paper"]):
        assert automl(*arguments).returncode == 0


def test_both_names_of_the_program_are_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(scripts) == {"automl", "dendrite-automl"}
    assert len(set(scripts.values())) == 1
