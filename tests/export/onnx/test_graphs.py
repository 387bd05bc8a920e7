"""Networks that are exported together have the graphs that they have alone; other weights can be put into a graph."""

import copy
import re

import onnx
import pytest
import torch
from torch import nn

from dendrite_automl.export.onnx import graphs
from dendrite_automl.export.onnx.graphs import deploy_form, make_graphs, with_weights
from tests.export.onnx.test_write import make

SEQUENCES = [("conv2d", None, 0), ("sepconv1d", None, 0), ("conv2d", "perforated", 2), ("sepconv1d", "gradient", 1)]


def make_all() -> tuple[list[nn.Module], tuple[int, ...]]:
    made = [make(*case) for case in SEQUENCES]
    assert len({shape for _, shape in made}) == 1
    return [model.eval() for model, _ in made], made[0][1]


def names(graph: onnx.ModelProto) -> set[str]:
    return {name for node in graph.graph.node for name in (node.name, *node.input, *node.output)}


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_does_not_depend_on_what_is_exported_with_it(dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    models, shape = make_all()
    alone = [next(make_graphs([model], shape, dynamic_batch=dynamic)).SerializeToString() for model in models]
    runs = []
    monkeypatch.setattr(graphs, "_BATCH", 3)
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: runs.append(k["output_names"]) or export(*a, **k))
    assert [graph.SerializeToString() for graph in make_graphs(models, shape, dynamic_batch=dynamic)] == alone
    assert [len(run) for run in runs] == [3, 1]


def test_equal_networks_are_exported_too() -> None:
    """The exporter stores equal weights once, under the name of the first network."""
    model, shape = make("sepconv1d", None, 0)
    one, two = make_graphs([model.eval(), copy.deepcopy(model)], shape)
    assert one.SerializeToString() == two.SerializeToString()
    assert not any("networks" in name for name in names(two))


def test_names_are_those_of_the_weights_and_operators_are_counted() -> None:
    models, shape = make_all()
    for model, graph in zip(models, make_graphs(models, shape), strict=True):
        found = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
        assert {name for name in found if "." in name} <= deploy_form(model, shape).state_dict().keys()
        assert not any(name.startswith(("networks", "logits.")) for name in names(graph))
        assert len({node.name for node in graph.graph.node}) == len(graph.graph.node)
        [first, *_] = (node for node in graph.graph.node if node.op_type == "Conv")
        assert re.fullmatch(r"node_(conv[12]d|Conv)(_1)?", first.name)


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # cannot be traced
            return x.flatten(1)
        return -x.flatten(1)


def test_a_network_that_cannot_be_exported_does_not_stop_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "deploy_form", lambda model, shape: model)
    made = make_graphs([nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Broken()], (4,))
    assert next(made).graph.output[0].name == "logits"
    with pytest.raises(Exception, match=r"Broken|guard|data-dependent"):
        next(made)


@pytest.mark.parametrize("case", [*SEQUENCES, ("conv2d picture", "perforated", 1), ("mlp", "perforated", 2)])
def test_a_graph_with_other_weights_is_that_of_the_other_network(case: tuple[str, str | None, int]) -> None:
    model, shape = make(*case)
    other = copy.deepcopy(model.eval())
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight))
    graph, expected = (next(make_graphs([network], shape)) for network in (model, other))
    changed = with_weights(graph, deploy_form(model, shape), deploy_form(other, shape))
    assert changed is not None
    assert changed.SerializeToString() == expected.SerializeToString()


def test_a_graph_that_stores_more_than_the_weights_is_left_alone() -> None:
    model, shape = make("mlp", None, 0)
    form, other = (deploy_form(m.eval(), shape) for m in (model, copy.deepcopy(model)))
    graph = next(make_graphs([model], shape))
    assert with_weights(graph, form, other) is not None
    graph.graph.initializer.append(onnx.numpy_helper.from_array(torch.ones(2).numpy(), "product"))
    assert with_weights(graph, form, other) is None
    del graph.graph.initializer[-1]
    next(iter(form.parameters())).data.add_(1)  # the graph has a weight under this name, but with other values
    assert with_weights(graph, form, other) is None
