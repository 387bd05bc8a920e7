"""Backbones of the user's: `backbone = "module:function"` in a space file, checked before and used by a search."""

import sys
from pathlib import Path

import pytest

import dendrite_automl as da
from dendrite_automl.backbones import build_backbone, check_space
from dendrite_automl.errors import RequestError
from dendrite_automl.feasibility.survey import check_file
from dendrite_automl.networks.foreign import check_foreign, is_foreign
from dendrite_automl.run import load_run
from dendrite_automl.space import SearchSpace, parse_space

MODULE = """
import torch
from torch import nn

def build(classes, *, units=8, slope=0.1):
    first = [nn.Flatten(), nn.Linear(64, units), nn.BatchNorm1d(units), nn.LeakyReLU(slope)]
    return nn.Sequential(*first, nn.Linear(units, classes))

def shaped(units, input_shape, **others):
    layers = [nn.Flatten(), nn.Linear(torch.zeros(input_shape).numel(), units), nn.Identity(str(others))]
    return nn.Sequential(*layers, nn.Linear(units, 10))

def odd(units):
    if units % 2:
        raise ValueError("units must be even\\nand more")
    return build(10, units=units)

def wrong(units):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, units))

def normed(units):
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))

def nothing(units):
    return None

class Fixed(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.units, self.first, self.head = units, nn.Linear(64, units), nn.Linear(units, 10)

    def forward(self, x):
        return self.head(self.first(x.flatten(1)).view(-1, self.units))

number = 3
"""
TEXT = """
name = "mine"
description = "d"
source = "s"
task = "digits"
backbone = "{backbone}"
input_shape = [1, 8, 8]
[network]
units = {units}
[schedule]
stages = ["fit", "{stage}"]
prune_ratio = 0.3
shrink_ratio = 0.3
cycles = 1
kind = "gradient"
placement = "head"
activation = "tanh"
[training]
learning_rate = 0.01
"""
SHAPE = (1, 8, 8)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"nets_{tmp_path.name.replace('-', '_')}"  # one of its own for each test: modules are imported once
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return name


def make(backbone: str, units: str = "[8, 6]", stage: str = "fit prune") -> SearchSpace:
    return parse_space(TEXT.format(backbone=backbone, units=units, stage=stage), where="mine")


def test_a_function_gets_the_knobs_and_the_data_if_it_asks_for_them(module: str) -> None:
    model = build_backbone(f"{module}:build", SHAPE, 7, {"units": 5})
    assert (model[1].out_features, model[-1].out_features) == (5, 7)
    model = build_backbone(f"{module}:shaped", (2, 3), 7, {"units": 5, "other": "x"})
    assert model[1].in_features == 6
    for function in ("build", "shaped"):
        space = make(f"{module}:{function}")
        check_space(space, SHAPE, 10)
        assert check_foreign(space, SHAPE, 10) is not None


@pytest.mark.parametrize(
    ("function", "units", "says"),
    [
        ("missing", "[8]", "backbone: {module}:missing: expected a function that can be imported, got AttributeError"),
        ("number", "[8]", "backbone: {module}:number: expected a function, got int"),
        ("odd", "[8, 7]", 'knob "units" = 7: ValueError: units must be even'),
        ("build", '["x"]', "knob \"units\" = 'x': TypeError"),
        ("wrong", "[8]", "backbone {module}:wrong: expected logits [B, 10], one per class of the data, got [3, 8]"),
        ("normed", "[8]", 'backbone {module}:normed: layer "1" (LayerNorm): expected weights only in Linear'),
        ("nothing", "[8]", "backbone {module}:nothing: expected a torch.nn.Module, got NoneType"),
        ("Fixed", "[8]", "expected one that torch-pruning can prune, with no layer sizes hard-coded"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(module: str, function: str, units: str, says: str) -> None:
    space = make(f"{module}:{function}", units)
    with pytest.raises(RequestError) as caught:
        check_file(space)
    assert 'space "mine"' in str(caught.value)
    assert says.format(module=module) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_written_into_the_code_matter_only_where_networks_are_cut(module: str) -> None:
    assert check_foreign(make(f"{module}:Fixed", stage="fit grow"), SHAPE, 10) is not None


@pytest.mark.parametrize("fingerprint", ["abc0123456789def", "0123456789abcdef"])
def test_a_fingerprint_of_a_given_network_is_no_function(fingerprint: str) -> None:
    assert not is_foreign(make(f"given:{fingerprint}"))
    assert is_foreign(make(f"nets:{'f'}{fingerprint}"))


@pytest.mark.parametrize(("function", "knob"), [("odd", "size"), ("shaped", "units")])
def test_a_missing_or_unknown_knob_is_named(module: str, function: str, knob: str) -> None:
    text = TEXT.format(backbone=f"{module}:{function}", units=8, stage="fit grow").replace("units = 8", "size = 3")
    with pytest.raises(RequestError, match=f'knob "{knob}"'):
        check_file(parse_space(text, where="mine"))


def test_a_search_trains_and_exports_networks_of_the_users(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TEXT.format(backbone=f"{module}:build", units="[8, 6]", stage="fit prune"))
    settings = {"epochs": 4, "replicates": 2, "confirm": 0, "finish": "none", "workers": 1, "seed": 0, "arms": "baseline"}
    run = da.search(task="digits", space=str(file), budget="1k-params", trials=2, out=tmp_path / "run", **settings)
    assert len(run.front) >= 1
    assert run.front["val_accuracy"].max() > 0.3
    monkeypatch.chdir("/")
    assert len(load_run(tmp_path / "run").front) == len(run.front)
    (tmp_path / f"{module}.py").write_text(MODULE + "\n# changed\n")
    with pytest.raises(RequestError, match=f"resume: the code of {module}:build differs"):
        da.search(out=tmp_path / "run", trials=3, resume=True)
