"""The exported detectors: their folder, their self-test, and that they detect what `automl stream` does."""

import json
import subprocess
from pathlib import Path

import pytest
import soundfile

import dendrite_automl as da
from dendrite_automl.cli import main
from tests.c99.compiled import STRICT, needs_compiler
from tests.c99.test_folder import FILES, make_check
from tests.export.artifact.test_verify import original  # noqa: F401 - an artifact without sound
from tests.streaming.test_listen import made, place, recordings  # noqa: F401

pytest.importorskip("librosa")
SOUND = {"features.c", "features.h"}
STREAMS = {f"{name}_stream.{end}" for name in ("model", "model_int8") for end in "ch"}
_MAIN = """
#include "%(name)s.h"
#include <stdio.h>
int main(void) {
  static %(name)s_state state;
  int16_t sample;
  %(name)s_init(&state);
  while (fread(&sample, 2, 1, stdin) == 1)
    if (%(name)s_push(&state, &sample, 1))
      printf("%%d %%s %%.4f\\n", (int)state.hops - 1, %(name)s_labels[state.detected], state.score);
  return 0;
}
"""


@needs_compiler
def test_the_folder_compiles_and_its_detectors_pass_the_self_test(place, capsys) -> None:  # noqa: F811
    assert main(["export", str(place / "artifact"), "--c", "--stream"]) == 0
    folder = place / "artifact" / "c"
    assert capsys.readouterr().out == f"{folder}\n"
    assert {path.name for path in folder.iterdir()} == FILES | SOUND | STREAMS
    said = make_check(folder)
    assert "stream: 5 windows, " in said
    assert "int8 numbers that differ: 0\n" in said
    readme = (folder / "README.md").read_text()
    assert "{{" not in readme
    assert "| features of new frames only |" in readme.replace("*", "").replace(", as in this code", "")
    assert "The threshold is a default, not chosen on recordings." in readme
    assert main(["verify", str(place / "artifact")]) == 0


@needs_compiler
@pytest.mark.parametrize("network", ["float32", "int8"])
def test_c_detects_what_python_does(place, network) -> None:  # noqa: F811
    options = {"network": network, "hop_frames": 2}
    da.stream(place / "artifact", recordings(place), place / "labels.csv", choose=True, false_accepts_per_hour=500, **options)
    name = "model_stream" if network == "float32" else "model_int8_stream"
    folder = da.export_c(place / "artifact", stream=True)
    assert f"The threshold is chosen with the {network} network, on 2 recordings." in (folder / "README.md").read_text()
    (folder / "listen.c").write_text(_MAIN % {"name": name})
    command = ["gcc", *STRICT.split(), "-O1", "listen.c", f"{name}.c", "features.c", "-lm", "-o", "listen"]
    subprocess.run(command, cwd=folder, check=True)
    pcm, _ = soundfile.read(place / "0.wav", dtype="int16")
    said = subprocess.run([folder / "listen"], input=pcm.tobytes(), capture_output=True, check=True).stdout.decode()
    found = da.stream(place / "artifact", [place / "0.wav"])
    assert found.detections
    expected = [(round((d.seconds - 0.5) / found.hop_seconds), d.label, d.score) for d in found.detections]
    got = [line.split() for line in said.splitlines()]
    assert [(int(hop), label) for hop, label, _ in got] == [(hop, label) for hop, label, _ in expected]
    # onnxruntime's int8 arithmetic differs from that of C by a step now and then
    assert [float(score) for *_, score in got] == pytest.approx(
        [score for *_, score in expected], abs=0.05 if "8" in name else 1e-3
    )


def test_costs_are_told_and_kept(place, capsys) -> None:  # noqa: F811
    arguments = ["stream", str(place / "artifact"), *map(str, recordings(place)), "--labels", str(place / "labels.csv")]
    assert main([*arguments, "--int8", "--choose-threshold", "--false-accepts-per-hour", "500"]) == 0
    out = capsys.readouterr().out
    cost = json.loads((place / "artifact" / "artifact.json").read_text())["stream"]["cost"]
    assert f"Features of new frames only: {cost['frames']['ram_bytes']:,} B of RAM" in out
    header = (da.export_c(place / "artifact", stream=True) / "model_int8_stream.h").read_text()
    used = cost["columns"] or cost["frames"]
    assert f"MODEL_INT8_STREAM_STATE_BYTES {used['ram_bytes']}\n" in header
    assert f"features {used['features_macs_per_second']:,}, network {used['network_macs_per_second']:,}" in header


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stream"], "expected --stream together with --c, got it alone"),
        (["--stream", "--tflite"], "expected --stream together with --c, got it with --tflite"),
        (["--stream", "--c"], "expected the artifact of a network for recordings, got one for the task"),
    ],
)
def test_bad_requests_write_nothing(original: Path, capsys, arguments, message) -> None:  # noqa: F811
    before = {path.name for path in original.iterdir()}
    assert main(["export", str(original), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert {path.name for path in original.iterdir()} == before


@needs_compiler
def test_a_firmware_package_has_the_detectors_and_checks_them_too(place) -> None:  # noqa: F811
    folder = da.export_c(place / "artifact", package="cmsis-pack", stream=True)
    name = folder.name
    assert {path.name for path in (folder / "src" / name).iterdir()} >= STREAMS
    sources = [*(folder / "src" / name).glob("*.c"), folder / "examples" / "classify" / "main.c"]
    command = ["gcc", "-std=c99", "-O1", f"-I{folder / 'src'}", *map(str, sources), "-lm", "-o", str(folder / "example")]
    subprocess.run(command, check=True)
    said = subprocess.run([folder / "example"], capture_output=True, check=True, text=True).stdout
    assert "stream: 5 windows, " in said
    assert said.endswith("all as expected\n")
