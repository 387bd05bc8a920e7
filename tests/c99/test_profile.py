"""What is counted on the network, in its ONNX file and in its C code is the same work; the self-test says what it takes."""

from collections import Counter
from math import prod

import pytest

import dendrite_automl as da
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.profile import describe_step
from dendrite_automl.calibration import read_log
from dendrite_automl.devices import KINDS
from dendrite_automl.export.onnx.count import PRODUCTS, count_layers
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure import count_by_kind, folded_copy
from tests.c99.compiled import NETWORKS, STRICT, build, needs_compiler
from tests.c99.test_folder import artifact, make_check  # noqa: F401
from tests.export.artifact.test_verify import original  # noqa: F401 - an artifact
from tests.thinned import thinned

GROWN = (None, "gradient", "low_rank", "shared")  # "shared" is for convolutions, "gradient" not for every head
CASES = [(n, k) for n in NETWORKS for k in GROWN if (n, k) not in {("mlp", "shared"), ("conv2d_pool", "gradient")}]


@pytest.mark.parametrize(("name", "kind"), thinned(CASES, lambda name, kind: name))
def test_network_file_and_code_have_the_same_work(name, kind, tmp_path) -> None:
    model, shape = build(name, kind, "convs" if kind == "shared" else "all")
    export_onnx(model, shape, tmp_path / "m.onnx")
    expected = count_by_kind(folded_copy(model), shape)
    of_file, of_code = Counter[str](), Counter[str]()
    for layer in count_layers(tmp_path / "m.onnx"):
        of_file.update({layer["kind"]: layer["macs"]})
        of_file.update({"number": prod(layer["output"]) if layer["operator"] in PRODUCTS else 0})
    for step in lower(tmp_path / "m.onnx").steps:
        of, macs, numbers = describe_step(step)
        of_code.update({of: macs, "number": numbers})
    assert +of_file == +expected
    assert of_code["number"] == expected["number"]
    assert sum(of_code[of] for of in KINDS) == sum(expected[of] for of in KINDS)
    if kind is None:  # otherwise products with dendrites' gains are counted with their layer
        assert {of: of_code[of] for of in KINDS if of != "other"} == {of: expected[of] for of in KINDS if of != "other"}


@needs_compiler
def test_a_self_test_with_the_profile_prints_a_log(artifact, tmp_path) -> None:  # noqa: F811
    folder = da.export_c(artifact)
    assert "profile" not in make_check(folder)
    for path in folder.glob("*.o"):
        path.unlink()
    (folder / "selftest").unlink()
    clock = "static inline uint32_t tick(void) { static uint32_t now; return now += 1000; }"
    (folder / "clock.h").write_text(f"#include <stdint.h>\n{clock}\n")
    counter = "-D'NN_CYCLES()=tick()' -include clock.h"
    (tmp_path / "said.log").write_text(make_check(folder, f"{STRICT} -DNN_PROFILE {counter}"))
    float32, int8 = read_log(tmp_path / "said.log", 1.0)
    assert (float32.variant, int8.variant) == ("float32", "int8")
    assert float32.network == int8.network == "nn_0123456789_2"
    assert float32.work == int8.work == {"linear": 296, "number": 14, "operator": 3}
    assert float32.total == int8.total == 2 * 1000


@needs_compiler
def test_the_clock_of_this_machine_counts(artifact, tmp_path) -> None:  # noqa: F811
    said = make_check(da.export_c(artifact), f"{STRICT} -O2 -DNN_PROFILE")
    assert "unit=ns" in said
    assert said.endswith("all as expected\n")
