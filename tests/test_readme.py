"""What the documents say is run, or compared with what is true."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.cli import main
from dendrite_automl.comparison.paper import restate
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.survey import count_classes
from dendrite_automl.space import available_spaces, load_space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_block(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "benchmarks" / "quickstart.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_search_and_the_artifact_in_plain_onnxruntime_work_as_printed(tmp_path: Path) -> None:
    search, deploy = BLOCKS[0], BLOCKS[3]
    asked = 'task="keywords", budget="2k-params", trials=60'
    assert asked in search
    small = search.replace(asked, 'task="digits", budget="1k-params", trials=2, epochs=8, replicates=2, confirm=2, workers=1')
    out = run_block(small, tmp_path)
    assert "snapshot" in out
    artifact = Path(out.splitlines()[-1])
    assert (artifact / "model.onnx").is_file()
    run_block(deploy, artifact)


def test_dendrites_in_ones_own_model_work_as_printed(tmp_path: Path) -> None:
    assert "add_dendrites_" in BLOCKS[4]
    run_block(BLOCKS[4], tmp_path)
    assert "da.grow" in BLOCKS[5]
    run_block(BLOCKS[5], tmp_path)


def test_a_network_of_ones_own_is_made_smaller_as_printed(tmp_path: Path) -> None:
    assert "trials=30" in BLOCKS[2]
    small = "trials=2, epochs=10, replicates=2, confirm=2, workers=1"
    assert "snapshot" in run_block(BLOCKS[2].replace("trials=30", small), tmp_path)


def test_the_estimator_works_in_a_pipeline_as_printed(tmp_path: Path) -> None:
    assert "trials=20" in BLOCKS[1]
    small = "trials=2, epochs=10, replicates=2, confirm=0, workers=1"
    score, size, *_ = run_block(BLOCKS[1].replace("trials=20", small), tmp_path).split()
    assert float(score) > 0.7
    assert int(size) > 100


def test_the_published_claim_is_restated_as_the_command_does() -> None:
    found = restate()
    low, high = (100 * end for end in found["ci95"])
    said = f"{100 * found['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], {found['verdict']}"
    assert said in README
    assert f"about {round(found['samples_needed'], -2):,} clips" in README


def test_the_docs_repeat_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join((ROOT / "docs" / "do-dendrites-pay.md").read_text(encoding="utf-8").split())
    assert main(["compare", "--paper"]) == 0
    assert " ".join(capsys.readouterr().out.split()) in page
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = {}
    for against in ("the plain network of as many parameters", "the same network trained on without dendrites"):
        rows[against] = re.search(rf"\| {against}[^|]*\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", table).groups()
    all_, better, worse, undecided = rows["the plain network of as many parameters"]
    assert f"{better} of {all_} comparisons are better, {worse} worse, {undecided} undecided" in page
    _, better, worse, undecided = rows["the same network trained on without dendrites"]
    assert f"{better} better, {worse} worse, {undecided} undecided" in page


def test_links_between_the_documents_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists() or target.startswith("https://"), f"{path.name}: {target}"


def test_there_are_no_further_python_blocks_that_nothing_runs() -> None:
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("target", ["search", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target} " in README
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_flag_in_the_readme_is_offered_and_the_other_way_round(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    usage = README.split("automl search   ")[1].split("automl show")[0]
    assert set(re.findall(r"--[a-z-]+", usage)) == offered


def test_the_quickstart_table_is_what_the_results_file_says() -> None:
    module = quickstart()
    written = README.split(module.BEGIN + "\n")[1].split(module.END)[0]
    assert written == module.render(module.load_results())


@pytest.mark.parametrize("name", list(available_spaces()))
def test_the_table_of_spaces_tells_their_size_and_smallest_network(name: str) -> None:
    text = (ROOT / "search_spaces" / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    space = load_space(name)
    reach = Reach(space, space.input_shape, count_classes(space))
    _, cost = reach.smallest(Budget.parse("1-params"))
    assert f"| {space.size:,} |" in row
    assert f"| {cost.params} parameters | {reach.largest()[1].params:,} | {len(space.anchors)} |" in row


def test_every_benchmark_script_is_in_their_table_and_has_its_results() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "benchmarks").glob("*.py"):
        assert f"`{script.name}`" in text
    for path in re.findall(r"`(results/[^`]+)`", text):
        assert (ROOT / "benchmarks" / path).is_file()
