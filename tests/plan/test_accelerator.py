"""Which searches train on a GPU: those that ask for one, and those with networks large enough to gain from it."""

from typing import Any

import pytest
import torch
from torch import nn

from dendrite_automl.errors import RequestError
from dendrite_automl.networks.pretrained import make_pretrained
from dendrite_automl.plan import Plan, make_plan
from dendrite_automl.plan import accelerator as module
from dendrite_automl.plan.accelerator import accelerator_here, choose_accelerator, decide_accelerator, step_products
from dendrite_automl.train.fit import batch_of


def make(**changes: Any) -> Plan:
    return make_plan({"task": "digits", "space": "digits_conv2d", "budget": "2k-params", "replicates": 4, **changes})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_is_used_and_a_wish_for_one_is_refused() -> None:
    assert choose_accelerator(make()) == choose_accelerator(make(accelerator="cpu")) == accelerator_here("auto") == "cpu"
    with pytest.raises(RequestError, match=r"accelerator: expected a GPU that torch can use, got none \(.*\); use --acc"):
        make(accelerator="cuda")


def test_an_accelerator_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(RequestError, match='accelerator: expected one of auto, cpu, cuda, got "gpu"'):
        make(accelerator="gpu")


@pytest.mark.usefixtures("gpu")
def test_with_a_gpu_small_networks_stay_on_the_cpu_unless_it_is_asked_for() -> None:
    assert choose_accelerator(make()) == choose_accelerator(make(accelerator="cpu")) == "cpu"
    assert choose_accelerator(make(accelerator="cuda")) == accelerator_here("cuda") == accelerator_here("auto") == "cuda"
    assert accelerator_here("cpu") == "cpu"


@pytest.mark.usefixtures("gpu")
def test_large_networks_go_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make()
    monkeypatch.setattr(module, "WORTH", step_products(plan) + 1)
    assert choose_accelerator(plan) == "cpu"
    monkeypatch.setattr(module, "WORTH", step_products(plan))
    decided = decide_accelerator(plan)
    assert decided.machine.accelerator == "auto"
    assert (decided.machine.workers, decided.settings()) == (plan.machine.workers, plan.settings())


def test_products_of_a_step_are_macs_times_batch_times_replicates() -> None:
    settings = {"budget": "2k-params,20k-macs", "set_knobs": ["batch_size=32"]}
    plan = make(**settings)
    assert len(plan.task.train) >= 16 * 32
    macs, rest = divmod(step_products(plan), 32 * 4)
    assert rest == 0
    assert 0 < macs <= 20_000
    assert step_products(make(**settings, replicates=8)) == 2 * step_products(plan)


def test_of_a_given_network_its_own_macs_count_whatever_the_budget() -> None:
    network = nn.Sequential(nn.Conv2d(1, 300, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(300, 10))
    start = make_pretrained(network)
    plan = make_plan({"task": "digits", "budget": "1k-params,10k-macs", "replicates": 4, "teacher": network}, start)
    macs = 300 * 9 * 6 * 6 + 300 * 10
    assert step_products(plan) == macs * batch_of(len(plan.task.train), 64) * 4


def test_where_a_search_trains_is_not_part_of_what_it_is() -> None:
    assert make(accelerator="cpu").settings() == make().settings()
    assert "accelerator" not in make(accelerator="cpu").command()
