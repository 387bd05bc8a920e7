"""`automl spaces --check` and `--describe`: what a space file contains, and what is wrong with it."""

import json
import re
from pathlib import Path

import pytest

from dendrite_automl.backbones import build_backbone
from dendrite_automl.cli import main
from dendrite_automl.runtimes import make_runtime
from dendrite_automl.space import available_spaces

SPACE = """
name = "s"
description = "a test"
source = "none"
task = "elsewhere"
backbone = "mlp"
input_shape = [5]

[network]
hidden = [2, 4]
depth = 1

[schedule]
stages = "fit"

[training]
learning_rate = 0.01
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SPACE)
    return path


def test_describe_counts_what_can_be_counted_by_hand(space, capsys) -> None:
    # 5 -> h -> 10 classes: 5 h + h and 10 h + 10 parameters, 15 h MACs
    assert main(["spaces", "--describe", str(space), "--budget", "50-params", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["points"], found["classes"], found["knobs"]["hidden"]) == (2, 10, [2, 4])
    assert found["smallest"] == {"params": 42, "macs": 30}
    assert found["largest"] == {"params": 74, "macs": 60}
    assert 0.35 < found["share_that_fits"] < 0.65  # one of two values
    assert main(["spaces", "--describe", str(space), "--budget", "50-params"]) == 0
    out = capsys.readouterr().out
    assert "smallest network: 42 parameters, 30 MACs" in out
    assert re.search(r"within params <= 50: \d+%", out)


def test_a_budget_is_of_the_runtime_that_is_named(space, capsys) -> None:
    sizes = []
    for hidden in (2, 4):
        model = build_backbone("mlp", (5,), 10, {"hidden": hidden, "depth": 1}).eval()
        sizes.append(make_runtime("c", list(map(str, range(10)))).need_of_network(model, (5,)).flash_bytes)
    shares = []
    for budget, runtime in ((f"{sizes[0]}B-flash", "c"), (f"{sizes[1]}B-flash", "c"), ("200B-flash", "interpreter")):
        assert main(["spaces", "--describe", str(space), "--budget", budget, "--runtime", runtime, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["runtime"] == runtime
        shares.append(found["share_that_fits"])
    assert 0.35 < shares[0] < 0.65
    assert shares[1] == 1
    assert shares[2] == shares[0]  # 4 bytes for each of 42 parameters
    assert main(["spaces", "--describe", str(space), "--budget", "9KiB-flash", "--runtime", "c"]) == 0
    assert "within flash_bytes <= 9,216 (flash and RAM of runtime c): 100%" in capsys.readouterr().out


@pytest.mark.parametrize("name", available_spaces())
def test_every_shipped_space_passes(name, capsys) -> None:
    assert main(["spaces", "--check", name]) == 0
    assert "points over" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate = 0.01", 'learning_rate = "fast"', r'knob "learning_rate": expected a number > 0.*\(line 17\)'),
        ("input_shape = [5]", "input_shape = 5", r"input_shape: expected a list.*\(line 7\)"),
        ("hidden = [2, 4]", "hidden = [2, 2]", r'knob "hidden": expected one value or a list of different ones.*\(line 10\)'),
        ("hidden = [2, 4]", "hidden = [2, -4]", r"hidden.*-4"),
        ("depth = 1", "depht = 1", r"depht"),
        ('backbone = "mlp"', 'backbone = "mpl"', r'backbone: expected one of .*mlp.*got "mpl"'),
        ('backbone = "mlp"', 'backbone = "sepconv1d"', "expected inputs with 2 axes"),
        ("hidden = [2, 4]", "hidden = [2, 4", r"expected TOML: .*line 1\d"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(space, capsys, old, new, message) -> None:
    space.write_text(SPACE.replace(old, new))
    assert main(["spaces", "--check", str(space)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "nowhere.toml"], "expected one of "),
        (["--describe", "digits_conv2d", "--check", "digits_conv2d"], "expected --check or --describe, got both"),
        (["--budget", "2k-params"], "need --describe"),
        (["--runtime", "c"], "need --describe"),
        (["--describe", "digits_conv2d", "--runtime", "d"], 'runtime: expected one of interpreter, c, got "d"'),
        (["--describe", "digits_conv2d", "--budget", "2k-parms"], 'did you mean "params"'),
    ],
)
def test_wrong_flags_are_one_line(arguments, message, capsys) -> None:
    assert main(["spaces", *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
