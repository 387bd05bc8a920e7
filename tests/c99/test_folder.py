"""The folder of C code from outside: what it holds, that its self-test passes, and what it does not overwrite."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dendrite_automl as da
from dendrite_automl.c99.features import FrontEnd, make_features, make_sound, read_front_end
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.size import estimate_code, measured_with
from dendrite_automl.c99.source import make_source
from dendrite_automl.cli import main
from dendrite_automl.errors import ArtifactMismatch, RequestError, Unsupported
from dendrite_automl.export.artifact.seal import sha256, write_seal
from dendrite_automl.tasks.features import PRESETS, FeatureSettings
from tests.c99.compiled import STRICT, add_node, build, needs_compiler, write
from tests.export.artifact.test_verify import original  # noqa: F401 - an artifact
from tests.thinned import thinned

FILES = {"Makefile", "README.md", "main.c", "model.c", "model.h", "model_int8.c", "model_int8.h", "profile.h", "vectors.h"}


@pytest.fixture
def artifact(original: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(original, tmp_path / "artifact"))


def make_check(folder: Path, flags: str = f"{STRICT} -Og -fsanitize=address,undefined") -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # the tests may run under make
    command = ["make", "check", f"CFLAGS={flags}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def seal_again(artifact: Path) -> None:
    """As a version that wrote other files would have sealed them."""
    description = json.loads((artifact / "artifact.json").read_text())
    description["sha256"] = {name: sha256(artifact / name) for name in description["sha256"]}
    (artifact / "artifact.json").write_text(json.dumps(description))
    write_seal(artifact)


@needs_compiler
def test_folder_compiles_and_passes_its_own_test(artifact, capsys) -> None:
    assert main(["export", str(artifact), "--c"]) == 0
    folder = artifact / "c"
    assert capsys.readouterr().out == f"{folder}\n"
    assert {path.name for path in folder.iterdir()} == FILES
    said = make_check(folder)
    assert "int8: 32 vectors, numbers that differ from the reference: 0" in said
    assert "all as expected\n" in said
    assert main(["verify", str(artifact)]) == 0  # the code is beside what was sealed
    readme = (folder / "README.md").read_text()
    assert "{{" not in readme
    footprint = json.loads((artifact / "artifact.json").read_text())["footprint"]
    assert (
        f"| arena: all RAM but the stack | {footprint['peak_ram_bytes']:,} B | {footprint['peak_ram_bytes_int8']:,} B |"
        in readme
    )


@needs_compiler
@pytest.mark.parametrize("vectors", [1, 5])
def test_self_test_with_fewer_vectors(artifact, vectors) -> None:
    said = make_check(da.export_c(artifact), f"{STRICT} -DTEST_VECTORS={vectors}")
    assert f"int8: {vectors} vectors" in said


@needs_compiler
def test_self_test_can_fail(artifact) -> None:
    folder = da.export_c(artifact)
    for name in ("model.c", "model_int8.c"):
        original_text = (folder / name).read_text()
        first = original_text.index("{\n", original_text.index("_bias[")) + 2  # of the biases, the first number
        (folder / name).write_text(original_text[:first] + "99999" + original_text[original_text.index(",", first) :])
        done = subprocess.run(["make", "check"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "FAILED" in done.stdout
        (folder / name).write_text(original_text)


@needs_compiler
def test_calls_with_different_arenas_do_not_disturb_each_other(artifact) -> None:
    folder = da.export_c(artifact)
    (folder / "two.c").write_text(
        """
#include "model.h"
#include "vectors.h"
int main(void) {
  static model_arena a, b;
  int i, wrong = 0;
  for (i = 0; i < MODEL_INPUTS; i++) model_input(&a)[i] = test_inputs[0][i], model_input(&b)[i] = test_inputs[1][i];
  {
    const float *of_a = model_run(&a), *of_b = model_run(&b);
    for (i = 0; i < MODEL_OUTPUTS; i++)
      wrong += of_a[i] - test_logits[0][i] > 1e-3f || of_b[i] - test_logits[1][i] > 1e-3f;
  }
  (void)test_logits_int8;
  return wrong;
}
"""
    )
    subprocess.run(
        ["gcc", "-std=c99", "-DMODEL_NO_ARENA", "-DTEST_VECTORS=2", "two.c", "model.c", "-lm", "-o", "two"],
        cwd=folder,
        check=True,
    )
    assert b"the_arena" not in (folder / "two").read_bytes()
    subprocess.run(["./two"], cwd=folder, check=True)


@needs_compiler
def test_int8_needs_no_library(artifact) -> None:
    folder = da.export_c(artifact)
    flags = "-std=c99 -O2 -ffreestanding -nostdlib -c model_int8.c -o free.o"
    subprocess.run(["gcc", *flags.split()], cwd=folder, check=True)
    names = subprocess.run(["nm", "-u", "free.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in names.splitlines()} <= {
        "memcpy",
        "memset",
        "_GLOBAL_OFFSET_TABLE_",
        "__stack_chk_fail",
    }
    assert "#include <math.h>" not in (folder / "model_int8.c").read_text()


def test_export_again_replaces_and_elsewhere_is_possible(artifact, tmp_path) -> None:
    first = da.export_c(artifact)
    (first / "stale.txt").write_text("x")
    assert not (da.export_c(artifact) / "stale.txt").exists()
    assert da.export_c(artifact, tmp_path / "deep" / "firmware") == tmp_path / "deep" / "firmware"
    assert not [path for path in artifact.iterdir() if path.name.startswith(".")]


def test_files_of_others_are_not_overwritten(artifact, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.c").write_text("int main(void) { return 0; }")
    with pytest.raises(RequestError, match="new or empty folder"):
        da.export_c(artifact, tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="expected a folder, got a file"):
        da.export_c(artifact, tmp_path / "file")


def test_bad_artifacts(artifact, tmp_path, capsys) -> None:
    with pytest.raises(RequestError, match="expected the folder of an artifact"):
        da.export_c(tmp_path / "none")
    with (artifact / "model.int8.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactMismatch, match="was changed"):
        da.export_c(artifact)
    assert main(["export", str(tmp_path), "--c"]) == 2
    assert main(["export", str(artifact), "--c", "--dynamic-batch"]) == 2
    assert main(["export", str(artifact), "--c", "--snapshot", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_an_operator_without_a_kernel_leaves_nothing_behind(artifact, tmp_path) -> None:
    add_node(artifact / "model.onnx", "Exp")
    seal_again(artifact)
    with pytest.raises(Unsupported, match="the_odd_one"):
        da.export_c(artifact, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert not (artifact / "c").exists()


@needs_compiler
def test_odd_labels_and_names(artifact) -> None:
    description = json.loads((artifact / "artifact.json").read_text())
    description["labels"] = ['"quoted"', "back\\slash", "line\nbreak", "??/", "*/ comment", "grün", "7", "8", "9", "ten|`x`"]
    description["data"]["task"] = "evil */ \n name"
    (artifact / "artifact.json").write_text(json.dumps(description))
    write_seal(artifact)
    make_check(da.export_c(artifact))


def settings_of(preset: str, rate: int) -> FrontEnd:
    pytest.importorskip("librosa")
    s = FeatureSettings.make(preset, rate)
    scale = {"mean": list(np.linspace(-3, 1, s.rows)), "std": list(np.linspace(1, 2, s.rows))}
    prepared = {"features": s.to_json(), "audio": {"clip_samples": rate // 2}, "standardise": scale}
    front = read_front_end({"preprocessing": prepared, "data": {"task": "sounds"}})
    assert front is not None
    return front


def keywords() -> FrontEnd:
    pytest.importorskip("librosa")
    front = read_front_end({"preprocessing": {"features": {}}, "data": {"task": "keywords"}})
    assert front is not None
    return front


@needs_compiler
@pytest.mark.parametrize("loudness", [1, 300, 100_000])
@pytest.mark.parametrize("case", ["keywords", *(f"{preset} {rate}" for preset in PRESETS for rate in (4000, 16_000))])
def test_features_of_c_are_those_of_training(case, loudness, tmp_path) -> None:
    front = keywords() if case == "keywords" else settings_of(case.split()[0], int(case.split()[1]))
    pcm = (make_sound(front.samples).astype(int) // loudness).astype(np.int16)
    header, code = make_features(front, "a */ sound")
    program = """
#include "features.h"
#include <stdio.h>
int main(void) {
  static int16_t pcm[FEATURES_SAMPLES];
  static float x[FEATURES_ROWS * FEATURES_FRAMES];
  static features_scratch scratch;
  if (fread(pcm, 2, FEATURES_SAMPLES, stdin) != FEATURES_SAMPLES) return 1;
  features_compute(pcm, x, &scratch);
  fwrite(x, 4, sizeof x / 4, stdout);
  return 0;
}
"""
    for name, text in (("features.h", header), ("features.c", code), ("main.c", program)):
        (tmp_path / name).write_text(text)
    flags = f"{STRICT} -Og -fsanitize=address,undefined features.c main.c -lm -o run"
    subprocess.run(["gcc", *flags.split()], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "run"], input=pcm.tobytes(), capture_output=True, check=True)
    got, expected = np.frombuffer(done.stdout, np.float32), front.compute(pcm).reshape(-1)
    if front.stored:
        assert (np.abs(got - expected) > 1e-3).mean() < 0.02  # another of 256 steps, now and then
        assert np.abs(got - expected).max() <= front.tolerance
    else:
        np.testing.assert_allclose(got, expected, atol=3e-3)


def test_tasks_without_sound_have_no_features() -> None:
    assert read_front_end({"preprocessing": {"divide_by": 16}, "data": {"task": "digits"}}) is None
    assert read_front_end({"preprocessing": None, "data": {"task": "mine"}}) is None


needs_board = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc")


@needs_board
@pytest.mark.parametrize(
    ("name", "kind", "placement"),
    thinned(
        [
            (name, *grown)
            for name in ("conv2d", "sepconv1d", "bcresnet", "mlp")
            for grown in ((None, "head"), ("gradient", "all"), ("low_rank", "all"))
        ],
        lambda name, kind, placement: kind,
    ),
)
def test_flash_and_ram_of_a_cortex_m4_are_as_reported(name, kind, placement, tmp_path) -> None:
    flags = measured_with().partition(", ")[2].split()
    for file in write(*build(name, kind, placement), tmp_path):
        source = make_source(lower(file), name="net", title="t", labels=list("abcdef"))
        (tmp_path / "net.h").write_text(source.header)
        (tmp_path / "net.c").write_text(source.code)
        subprocess.run(["arm-none-eabi-gcc", *flags, "-c", "net.c", "-o", "net.o"], cwd=tmp_path, check=True)
        listing = subprocess.run(["arm-none-eabi-size", "net.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
        text, data, bss = (int(number) for number in listing.stdout.splitlines()[1].split()[:3])
        assert bss == source.arena_bytes
        assert text + data == pytest.approx(source.constant_bytes + estimate_code(source), rel=0.1)


@needs_board
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm")
def test_an_emulated_board_gives_the_same(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import c_target

    for row in c_target.run_case("keyword clips, with dendrites on all layers"):
        assert row["largest_difference"] <= (0 if row["variant"] == "int8" else 1e-4)
        assert row["macs"] < row["instructions"] < 30 * row["macs"]
