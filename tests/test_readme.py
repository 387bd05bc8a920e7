"""What the documents say is run, or compared with what is true."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.cli import main
from dendrite_automl.comparison.paper import restate
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.survey import count_classes
from dendrite_automl.space import available_spaces, load_space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
# Without comments: a block that stands on several pages is run once.
BLOCKS = {re.sub(r" +# .*", "", block) for page in PAGES.values() for block in re.findall(r"(?s)```python\n(.*?)```", page)}
COMMANDS = ("search", "watch", "show", "report", "compare", "export", "verify", "stream", "devices", "spaces", "tasks")


def block_with(part: str) -> str:
    """The one Python block that holds `part`; on several pages its code must be the same."""
    (block,) = [block for block in BLOCKS if part in block]
    return block


def run_block(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_search_and_the_artifact_in_plain_onnxruntime_work_as_printed(tmp_path: Path) -> None:
    asked = 'task="keywords", budget="2k-params", trials=60'
    small = 'task="digits", budget="1k-params", trials=2, epochs=8, replicates=2, confirm=2, workers=1'
    out = run_block(block_with(asked).replace(asked, small), tmp_path)
    assert "snapshot" in out
    artifact = Path(out.splitlines()[-1])
    assert (artifact / "model.onnx").is_file()
    run_block(block_with("InferenceSession("), artifact)
    example = "runs/first/artifacts/6f0d28a1c3-0"
    (tmp_path / "c").mkdir()
    run_block(block_with('da.export_c("').replace(example, str(artifact)), tmp_path / "c")
    assert (tmp_path / "c" / "firmware" / "model" / "model.c").is_file()
    if importlib.util.find_spec("tflite"):
        run_block(block_with("da.export_tflite(").replace(example, str(artifact)), tmp_path)
        assert (artifact / "model.int8.tflite").is_file()


@pytest.mark.slow
def test_the_pipelines_page_searches_with_callbacks_as_printed(tmp_path: Path) -> None:
    small = 'trials=2, epochs=8, replicates=2, confirm=2, finish="none", workers=1'
    out = run_block(block_with("trials=40").replace("trials=40", small), tmp_path)
    assert "on the front" in out
    assert (Path(out.splitlines()[-1].split()[0]) / "model.onnx").is_file()


@pytest.mark.slow
def test_dendrites_in_ones_own_model_work_as_printed(tmp_path: Path) -> None:
    run_block(block_with("train_dendrites_("), tmp_path)
    run_block(block_with("da.grow("), tmp_path)


def test_dendrites_on_the_cell_body_go_where_it_is_printed(tmp_path: Path) -> None:
    page = PAGES["dendrites.md"]
    block = block_with('kind="statistics"')
    for place in run_block(block, tmp_path).splitlines():
        assert f"# {place}: " in page


@pytest.mark.slow
def test_a_network_of_ones_own_is_made_smaller_as_printed(tmp_path: Path) -> None:
    small = 'trials=2, epochs=10, replicates=2, confirm=2, finish="none", workers=1'
    seed = "import torch; torch.manual_seed(0)\n"  # with few trials it depends on the weights whether one fits
    assert "snapshot" in run_block(seed + block_with("trials=30").replace("trials=30", small), tmp_path)


@pytest.mark.slow
def test_the_estimator_works_in_a_pipeline_as_printed(tmp_path: Path) -> None:
    small = 'trials=2, epochs=10, replicates=2, confirm=0, finish="none", workers=1'
    score, size, *_ = run_block(block_with("trials=20").replace("trials=20", small), tmp_path).split()
    assert float(score) > 0.7
    assert int(size) > 100


def test_the_published_claim_is_restated_as_the_command_does() -> None:
    found = restate()
    low, high = (100 * end for end in found["ci95"])
    said = f"{100 * found['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], {found['verdict']}"
    stated = [text for text in (" ".join(page.split()) for page in PAGES.values()) if "clips would be needed" in text]
    assert stated
    for text in stated:
        assert said in text
        assert f"about {round(found['samples_needed'], -2):,} clips" in text


def test_the_docs_repeat_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join(PAGES["do-dendrites-pay.md"].split())
    assert main(["compare", "--paper"]) == 0
    assert " ".join(capsys.readouterr().out.split()) in page
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = {}
    for against in ("the plain network with as many parameters", "the same network trained further without dendrites"):
        rows[against] = re.search(rf"\| {against}[^|]*\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", table).groups()
    all_, better, worse, undecided = rows["the plain network with as many parameters"]
    assert f"{better} of {all_} comparisons are better, {worse} worse, {undecided} undecided" in page
    _, better, worse, undecided = rows["the same network trained further without dendrites"]
    assert f"{better} better, {worse} worse, {undecided} undecided" in page


def test_links_between_the_documents_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists() or target.startswith("https://"), f"{path.name}: {target}"


def test_there_are_no_further_python_blocks_that_nothing_runs() -> None:
    assert len(BLOCKS) == 10


@pytest.mark.parametrize("target", ["search", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target} " in README
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_on_the_command_line_page_is_offered_and_the_other_way_round(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    offered = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    section = PAGES["command-line.md"].split(f"\n## automl {command}\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == offered


def test_the_command_line_page_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)) == set(COMMANDS)


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
