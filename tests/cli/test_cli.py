"""The command line: one line and an exit code for whatever is wrong, and nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.cli import main
from dendrite_automl.run import Journal
from tests.factories import INFO, make_row, make_run, make_snapshot


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def npz(**changes: object) -> None:
    rng = np.random.default_rng(0)
    arrays = {"X_train": rng.normal(size=(40, 5)), "y_train": np.arange(40) % 2}
    arrays |= {"X_test": rng.normal(size=(10, 5)), "y_test": np.arange(10) % 2}
    arrays |= changes
    np.savez("data.npz", **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--budget", "2q-params"], 'unknown unit "q"'),
        (["--budget", "2k-parms"], 'did you mean "params"'),
        (["--budget", "0-params"], "expected a limit > 0"),
        (["--budget=-5k-params"], "expected a limit > 0"),
        (["--budget", "5ms-latency"], "add --device"),
        (["--device", "toaster"], 'unknown "toaster"'),
        (["--task", "keyword"], 'did you mean "keywords"'),
        (["--space", "nowhere"], "keywords_sepconv1d"),
        (["--space", "keywords_sepconv1d", "--task", "digits"], "2 axes"),
        (["--set", "width"], "expected KNOB=VALUE, KNOB=A,B, KNOB=LOW:HIGH or KNOB!=A,B"),
        (["--set"], "expected one argument"),
        (["--set", "chanels=1"], 'did you mean "channels"?'),
        (["--set", "blocks=2:3", "--set", "blocks!=2,3"], "expected at least one of 2, 3"),
        (["--set", "kernel=8"], 'knob "kernel" = 8: sepconv1d: kernel: expected an odd number >= 1, got 8'),
        (["--set", "kind=perforatd"], "expected one of gradient, perforated"),
        (["--trials", "0"], "expected a whole number >= 1"),
        (["--front-size", "0"], 'front-size: expected a whole number >= 1, got "0"'),
        (["--trials", "many"], "expected a whole number"),
        (["--epochs", "3", "--task", "digits"], "raise --epochs"),
        (["--time", "0m"], "duration > 0"),
        (["--time", "10"], "duration > 0"),
        (["--arms", "dendritic,treatment"], 'got "treatment"'),
        (["--objectives", "val_accuracy,beauty"], 'got "beauty"'),
        (["--workers", "0"], "expected a whole number >= 1"),
        (["--seed", "x"], "expected a whole number"),
        (["--resume"], "--out"),
        (["--resume", "--out", "nothing"], "run.json"),
        (["--task", "digits", "--data", "data.npz"], "leave one out"),
        (["--data", "missing.npz"], "expected a file"),
        (["--replicants", "3"], "unrecognized arguments"),
        (["--replicates", "0"], "expected a whole number >= 1"),
        (["--confirm", "-1"], "expected a whole number"),
        (["--scheduler", "asap"], "expected one of halving, fifo"),
        (["--accelerator", "gpu"], "accelerator: expected one of auto, cpu, cuda"),
        (["--sampler", "guess"], "expected one of gp, tpe, local, nsga2, random"),
        (["--metric", "auc"], "expected one of accuracy, balanced_accuracy, macro_f1"),
        (["--window", "2"], "expected a duration > 0 such as 2s or 500ms"),
        (["--stride", "1m"], "expected a duration > 0 such as 2s or 500ms"),
        (["--rate", "50"], "expected a rate > 0 such as 50Hz or 16kHz"),
        (["--image-size", "32"], "expected HEIGHTxWIDTH"),
        (["--colour", "gray"], "expected one of grey, rgb"),
        (["--target", "label"], "--target does not apply to a built-in task"),
        (["--data", "no_such_module:load"], "No module named"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    code, out, err = run(capsys, "search", *flags)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not list(Path().iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "X_train, y_train, X_test, y_test"),
        ({"X_train": np.full((40, 5), np.nan)}, "NaN"),
        ({"X_test": np.full((10, 5), np.inf)}, "infinity"),
        ({"y_train": np.arange(39) % 2}, "expected 40 labels"),
        ({"y_train": np.zeros(40, int)}, "at least 2 classes"),
        ({"y_test": np.full(10, 7)}, "labels that y_train has"),
    ],
)
def test_bad_data_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], changes: dict, says: str) -> None:
    npz(**changes)
    code, _, err = run(capsys, "search", "--data", "data.npz")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["data.npz"]


def test_an_existing_out_is_refused_and_untouched(capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    Path("here", "mine.txt").write_text("precious")
    code, _, err = run(capsys, "search", "--task", "digits", "--out", "here")
    assert code == 2
    assert "--resume or another --out" in err
    assert Path("here", "mine.txt").read_text() == "precious"


def test_a_space_with_a_wrong_knob_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    from dendrite_automl.space import available_spaces

    text = available_spaces()["digits_conv2d"].read_text()
    Path("mine.toml").write_text(text.replace("prune_ratio", "prune_rato", 1))
    code, _, err = run(capsys, "search", "--task", "digits", "--space", "mine.toml")
    assert code == 2
    assert "mine.toml" in err
    assert "prune_rato" in err


def test_knobs_set_count_before_the_budget_and_the_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    digits = ["--task", "digits", "--space", "digits_conv2d"]
    code, _, err = run(capsys, "search", *digits, "--budget", "100-params", "--set", "filters=8:", "--set", "stages=fit")
    assert code == 3
    assert "the smallest has params" in err
    code, _, err = run(capsys, "search", *digits, "--epochs", "3", "--set", "stages=fit,fit prune")
    assert code == 2
    assert "expected at least 4, 2 for each of the 2 stages" in err
    assert not list(Path().iterdir())


def test_an_unreachable_budget_is_exit_code_3_with_the_smallest_network(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "search", "--budget", "20-params", "--task", "digits", "--space", "digits_conv2d")
    assert (code, out) == (3, "")
    assert "the smallest has params 50" in err
    assert err.count("\n") == 1
    assert not list(Path().iterdir())


def test_show_says_how_many_members_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [
        make_snapshot(candidate=name * 10, params=p, val_accuracy=a) for name, p, a in (("a", 900, 0.9), ("b", 50, 0.11))
    ]
    made = make_run(Path("run"), networks, data={**INFO["data"], "val_examples": [10] * 10})
    Journal(made).write_tables([make_row(networks[0])])
    code, out, err = run(capsys, "show", "run")
    assert (code, "a" * 10 in out, "b" * 10 in out) == (0, True, False)
    assert err.startswith("left out of the front: 1 not above chance (validation accuracy of 10.0 %)")
    assert err.count("\n") == 1
    code, out, err = run(capsys, "show", "run", "--json")
    assert (code, json.loads(out)["recommended"]["knee"], err) == (0, networks[0].id, "")


@pytest.mark.parametrize("command", ["devices", "spaces", "tasks"])
def test_catalogues_print_a_table_or_json(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, table, _ = run(capsys, command)
    assert code == 0
    code, out, _ = run(capsys, command, "--json")
    rows = json.loads(out)[command]
    assert all(row["name"] in table for row in rows)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["verify"], ["show", "nowhere"], ["verify", "nowhere"]])
def test_a_wrong_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.count("\n") == 1


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(word in out for word in ("search", "show", "export", "verify", "devices", "spaces", "tasks", "exit codes"))


def test_help_and_import_load_nothing_heavy() -> None:
    script = (
        "import sys, dendrite_automl.cli as cli\n"
        "try: cli.main(['search', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'onnx', 'onnxruntime', 'optuna', 'pandas', 'numpy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
