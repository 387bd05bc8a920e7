"""Detectors in C against the clip network in C on the same windows, and against the detector in Python."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.columns import count_macs, plan_columns, runs_of
from dendrite_automl.c99.features import FrontEnd, make_features, read_front_end
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.c99.source import make_source
from dendrite_automl.c99.stream import make_stream_source
from dendrite_automl.c99.stream_cost import count_cost
from dendrite_automl.errors import RequestError
from dendrite_automl.export.artifact.stream import StreamSettings
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.streaming.detect import find_detections, smooth, softmax
from dendrite_automl.streaming.frames import window_features
from dendrite_automl.tasks.features import FeatureSettings, compute_features
from tests.c99.compiled import SANITISED, needs_compiler
from tests.c99.test_folder import keywords
from tests.sample_networks import SOMA_KINDS, randomise_scalars_
from tests.thinned import thinned

pytest.importorskip("librosa")
LABELS = ["noise", "one", "two", "three"]
SETTINGS = StreamSettings(
    hop_frames=2, smoothing=3, threshold=0.4, refractory_seconds=0.15, background=("noise",), network="float32"
)
_MAIN = """
#include "features.h"
#include "net.h"
#include "net_stream.h"
#include <stdio.h>
#define MOST 400000
static int16_t pcm[MOST];
static net_stream_state state;
int main(void) {
  static float x[NET_INPUTS];
  static features_scratch scratch;
  static net_arena arena;
  const int n = (int)fread(pcm, 2, MOST, stdin);
  int at = 0, size = 1;
  uint32_t hops = 0;
  int32_t bytes = sizeof state;
  fwrite(&bytes, 4, 1, stdout);
  net_stream_init(&state);
  while (at < n) {
    int32_t detected;
    size = size * 2 %% 61; /* pieces of 1 to 60 samples */
    if (size > n - at) size = n - at;
    detected = net_stream_push(&state, pcm + at, size);
    at += size;
    if (state.hops != hops) {
      const int start = (int)hops * NET_STREAM_HOP_SAMPLES;
      hops++;
      if (start + FEATURES_SAMPLES > n) break;
      features_compute(pcm + start, x, &scratch);
      %(fill)s
      fwrite(state.logits, sizeof(%(number)s), NET_OUTPUTS, stdout);
      fwrite(net_run(&arena), sizeof(%(number)s), NET_OUTPUTS, stdout);
      detected = detected ? state.detected : -1;
      fwrite(&detected, 4, 1, stdout);
      fwrite(&state.score, 4, 1, stdout);
    }
  }
  return 0;
}
"""
NETWORKS = {
    "sepconv1d": {"width": 1.0, "kernel": 3, "blocks": 2},
    "ressep1d": {"channels": 6, "kernel": 3, "blocks": 2, "nonlinearity": "leaky_relu"},
    "conv2d": {"filters": 3, "blocks": 2, "head": "pool", "norm": "batch"},
    "dscnn": {"channels": 4, "nonlinearity": "tanh", "blocks": 2},
    "invres2d": {"channels": 4, "blocks": 2},
    "bcresnet": {"channels": 4, "blocks": 1, "nonlinearity": "hard_swish", "head": "flatten"},
    "mlp": {"hidden": 6, "depth": 2},
}
IN_2D = ("conv2d", "dscnn", "invres2d")
DENDRITES = {"sepconv1d": "gradient", "ressep1d": "reuse", "dscnn": "low_rank", "invres2d": "shared"}


def front_of(preset: str, seconds: float = 1.0, rate: int = 4000) -> FrontEnd:
    """A front end, standardised on a sound like those of the tests."""
    s = FeatureSettings.make(preset, rate)
    x = compute_features(make_noise(4 * rate)[None] / 32768, s)[0]
    scale = {"mean": x.mean(1).tolist(), "std": x.std(1).tolist()}
    prepared = {"features": s.to_json(), "audio": {"clip_samples": round(rate * seconds)}, "standardise": scale}
    front = read_front_end({"preprocessing": prepared, "data": {"task": "sounds"}})
    assert front is not None
    return front


def make_noise(count: int, seed: int = 0) -> np.ndarray:
    """Samples that change loudness and spectrum every few frames."""
    rng, parts = np.random.default_rng(seed), []
    for _ in range(count // 300 + 1):
        n, kernel = np.arange(300), rng.normal(size=rng.integers(1, 6))
        part = np.convolve(rng.normal(size=300), kernel, "same") + 3 * rng.uniform() * np.sin(rng.uniform(0.1, 3) * n)
        parts.append(part * 10 ** rng.uniform(1, 3))
    return np.concatenate(parts)[:count].clip(-32768, 32767).astype(np.int16)


def network(name: str, front: FrontEnd, folder: Path, kind: str | None = None) -> tuple[Path, Path]:
    """Both files of a network for these features, with all numbers random."""
    torch.manual_seed(0)
    shape = (front.rows, front.frames)
    model = build_backbone(name, shape, len(LABELS), NETWORKS[name])
    if kind is not None:
        add_untrained_(model, kind=kind, placement="all" if name == "mlp" or kind in SOMA_KINDS else "convs")
    return export(model, front, folder)


def export(model: nn.Module, front: FrontEnd, folder: Path) -> tuple[Path, Path]:
    """Both files, with calibration and logits that suit the sounds of the tests."""
    x = window_features(front, make_noise(1 + front.samples + 40 * 5 * front.hop, seed=2) / 32768, 5)
    with torch.no_grad():
        model.train()(torch.from_numpy(x))
        randomise_scalars_(model.eval())
        logits = model(torch.from_numpy(x))
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        head = next(layer for layer in reversed(linear) if layer.out_features == len(LABELS))
        head.weight.mul_(2 / logits.std(0)[:, None])
        head.bias.sub_(logits.mean(0)).mul_(2 / logits.std(0))
    files = folder / "m.onnx", folder / "m.int8.onnx"
    export_onnx(model, (front.rows, front.frames), files[0])
    export_int8(*files, x)
    return files


def sound(front: FrontEnd, windows: int, settings: StreamSettings) -> np.ndarray:
    """Samples of so many windows."""
    return make_noise((windows - 1) * settings.hop_frames * front.hop + front.samples, seed=1)


def listen(
    program: Program, front: FrontEnd, settings: StreamSettings, pcm: np.ndarray, folder: Path, flags: str = SANITISED
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """What the C code finds: bytes of its state, logits of stream and clips [N, classes], and detections with scores."""
    folder.mkdir()
    files = dict(zip(("features.h", "features.c"), make_features(front, "t"), strict=True))
    source = make_source(program, name="net", title="t", labels=LABELS)
    stream = make_stream_source(program, front, settings, name="net_stream", title="t", labels=LABELS)
    files |= {"net.h": source.header, "net.c": source.code, "net_stream.h": stream.header, "net_stream.c": stream.code}
    fill = {
        True: "net_quantise(x, net_input(&arena));",
        False: "{ int i; for (i = 0; i < NET_INPUTS; i++) net_input(&arena)[i] = x[i]; }",
    }
    files["main.c"] = _MAIN % {"number": "int8_t" if source.is_int8 else "float", "fill": fill[source.is_int8]}
    for name, text in files.items():
        (folder / name).write_text(text)
    command = ["gcc", *flags.split(), "main.c", "net.c", "net_stream.c", "features.c", "-lm", "-o", "run"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "run"], input=pcm.tobytes(), capture_output=True, check=True)
    assert not done.stderr
    of = np.dtype(np.int8 if source.is_int8 else np.float32)
    row = np.dtype([("stream", of, len(LABELS)), ("clip", of, len(LABELS)), ("detected", np.int32), ("score", np.float32)])
    rows = np.frombuffer(done.stdout[4:], row)
    assert int.from_bytes(done.stdout[:4], "little") == stream.state_bytes
    return stream.state_bytes, rows["stream"], rows["clip"], rows[["detected", "score"]]


def check(program: Program, front: FrontEnd, settings: StreamSettings, folder: Path, flags: str = SANITISED) -> None:
    windows = 3 * front.frames // (2 * settings.hop_frames)
    pcm = sound(front, windows, settings)
    _, got, expected, _ = listen(program, front, settings, pcm, folder, flags)
    assert len(got) == windows
    assert len(np.unique(got, axis=0)) > windows / 4
    if program.source.quant is not None:
        np.testing.assert_array_equal(got, expected)
    else:
        largest = max(1, np.abs(expected).max(), np.abs(program.steps[-1].weights.bias).max())  # what is added up
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * largest)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "preset"),
    thinned(
        [
            *((name, "mfcc") for name in NETWORKS),
            ("ressep1d", "log-mel"),
            ("sepconv1d", "edge-impulse"),
            ("mlp", "edge-impulse"),
        ],
        lambda name, preset: (preset, name in IN_2D),
    ),
)
def test_every_window_is_as_the_clip(name, preset, tmp_path) -> None:
    front = front_of(preset)
    for file, kind in zip(network(name, front, tmp_path, DENDRITES.get(name)), ("float", "int8"), strict=True):
        check(lower(file), front, SETTINGS, tmp_path / kind)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "hop"),
    thinned(
        [("sepconv1d", 1), ("sepconv1d", 4), ("sepconv1d", 7), ("conv2d", 1), ("conv2d", 4), ("bcresnet", 3)],
        lambda name, hop: name,
    ),
)
def test_hops(name, hop, tmp_path) -> None:
    front = front_of("mfcc", seconds=0.75)
    for file, kind in zip(network(name, front, tmp_path), ("float", "int8"), strict=True):
        check(lower(file), front, replace(SETTINGS, hop_frames=hop), tmp_path / kind)


@needs_compiler
@pytest.mark.parametrize("name", thinned([("ressep1d",), ("conv2d",), ("invres2d",)], lambda name: name in IN_2D))
def test_long_windows_of_which_little_is_computed(name, tmp_path) -> None:
    front, settings = front_of("mfcc", seconds=2.0), replace(SETTINGS, hop_frames=4)
    for file, kind in zip(network(name, front, tmp_path), ("float", "int8"), strict=True):
        program = lower(file)
        cost = count_cost(program, front, settings, 3)
        assert cost.columns is not None
        assert cost.columns.network_macs_per_second < 0.2 * cost.clips.network_macs_per_second
        check(program, front, settings, tmp_path / kind)


@needs_compiler
@pytest.mark.parametrize(
    "how", thinned([("-DTILE=4",), ("-DTILE=4 -DNN_DSP",), ("-DTILE=16",), ("-march=native",)], lambda how: "TILE=4" in how)
)
def test_all_tiles_give_the_same(how, tmp_path) -> None:
    front = front_of("mfcc")
    flags = f"{SANITISED} {how}"
    for file, kind in zip(network("ressep1d", front, tmp_path, "gradient"), ("float", "int8"), strict=True):
        check(lower(file), front, SETTINGS, tmp_path / kind, flags)


@needs_compiler
@pytest.mark.parametrize("rank", thinned([(1,), (2,)], lambda rank: None))
def test_networks_that_are_not_ours(rank, tmp_path) -> None:
    """A gate on the input, valid convolutions, even kernels, a pooling with gaps: whatever decides what a column is."""
    torch.manual_seed(1)
    front = front_of("mfcc")
    conv, pool = (nn.Conv1d, nn.AvgPool1d) if rank == 1 else (nn.Conv2d, nn.MaxPool2d)
    last, along = (lambda size: size if rank == 1 else (1, size)), front.rows if rank == 1 else 1
    model = nn.Sequential(
        *([] if rank == 1 else [nn.Unflatten(1, (1, front.rows))]),
        Gate(conv(along, along, 1)),
        conv(along, 4, last(4), padding=last(1)),
        nn.Tanh(),
        pool(last(2), stride=last(3)),
        conv(4, 4, last(3), dilation=last(2), groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(len(LABELS)),
    )
    model(torch.zeros(1, front.rows, front.frames))
    for file, kind in zip(export(model.eval(), front, tmp_path), ("float", "int8"), strict=True):
        for hop in (1, 3):
            check(lower(file), front, replace(SETTINGS, hop_frames=hop), tmp_path / f"{kind}{hop}")


class Gate(nn.Module):
    """x * sigmoid(f(x))."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.f(x))


@needs_compiler
@pytest.mark.parametrize(
    "kind", thinned([("product",), ("square",), ("statistics",)], lambda kind: None)
)  # shifts, products, whole maps
def test_dendrites_on_the_cell_body(kind, tmp_path) -> None:
    front = front_of("mfcc")
    for file, of in zip(network("ressep1d", front, tmp_path, kind), ("float", "int8"), strict=True):
        check(lower(file), front, SETTINGS, tmp_path / of)


@pytest.mark.slow
@needs_compiler
def test_the_built_in_keywords(tmp_path) -> None:
    front = keywords()
    for file, kind in zip(network("sepconv1d", front, tmp_path), ("float", "int8"), strict=True):
        check(lower(file), front, replace(SETTINGS, hop_frames=10), tmp_path / kind)


@needs_compiler
@pytest.mark.parametrize("int8", [False, True])
def test_detections_are_those_of_python(int8, tmp_path) -> None:
    front = front_of("mfcc", seconds=0.5)
    program = lower(network("sepconv1d", front, tmp_path)[int8])
    pcm = sound(front, 300, SETTINGS)
    _, logits, _, found = listen(program, front, SETTINGS, pcm, tmp_path / "c")
    quant = program.target.quant
    real = logits.astype(float) if quant is None else quant.scale * (logits.astype(float) - quant.zero)
    scores = smooth(softmax(real), SETTINGS.smoothing)[:, 1:]
    expected = find_detections(scores, SETTINGS.threshold, SETTINGS.refractory_hops(2 * front.hop / front.rate))
    assert len({label for _, label in expected}) > 1
    np.testing.assert_allclose(found["score"], scores.max(1), atol=1e-5)
    assert [(i, d - 1) for i, d in enumerate(found["detected"].tolist()) if d >= 0] == expected


def test_maps_are_kept_where_that_saves_columns(tmp_path) -> None:
    front = front_of("mfcc", seconds=2.0)
    program = lower(network("sepconv1d", front, tmp_path)[0])
    plan = plan_columns(program, 2, own_frames=True)
    stem, depthwise, block, *_ = plan.steps  # strides 2, 1, 1, kernels 5, 3, 1, half of that as padding, on 99 frames
    assert plan.kept[block.target.name] == 1
    assert plan.runs(block) == plan.runs(depthwise) == [(0, 2), (47, 50)]  # within reach of padding, and the new one
    assert plan.runs(stem) == [(0, 3), (46, 50)]  # what these read
    assert not {stem.target.name, depthwise.target.name} & plan.kept.keys()
    cost = count_cost(program, front, SETTINGS, 3)
    assert cost.columns is not None
    assert cost.columns.network_macs_per_second < 0.2 * cost.frames.network_macs_per_second
    assert cost.columns.ram_bytes > cost.frames.ram_bytes
    assert cost.frames.network_macs_per_second == cost.clips.network_macs_per_second
    assert cost.frames.features_macs_per_second * front.frames == pytest.approx(
        cost.clips.features_macs_per_second * 2, rel=1e-4
    )


@pytest.mark.parametrize(
    ("preset", "seconds", "hop", "name", "note"),
    [
        ("edge-impulse", 1.0, 2, "sepconv1d", "the features of a frame depend on the window"),
        ("mfcc", 1.0, 3, "sepconv1d", "a hop is no multiple of the first layer's stride"),
        ("mfcc", 0.2, 2, "sepconv1d", "nearly all columns are within the layers' reach of an end"),
    ],
)
def test_why_nothing_is_kept(preset, seconds, hop, name, note, tmp_path) -> None:
    front = front_of(preset, seconds)
    cost = count_cost(lower(network(name, front, tmp_path)[0]), front, replace(SETTINGS, hop_frames=hop), 3)
    assert cost.columns is None
    assert cost.note.startswith(note)


@pytest.mark.parametrize(
    ("name", "kind"), thinned(itertools.product(NETWORKS, [None, "gradient", "low_rank"]), lambda name, kind: name)
)
def test_macs_of_all_columns_are_those_of_the_file(name, kind, tmp_path) -> None:
    front = front_of("mfcc")
    file, _ = network(name, front, tmp_path, kind)
    plan = plan_columns(lower(file), 2, own_frames=True)
    assert sum(count_macs(step, as_map(step.target.shape)[2]) for step in plan.steps) == count_onnx(file)[1]


def test_a_hop_longer_than_the_clip_is_refused(tmp_path) -> None:
    front = front_of("mfcc", seconds=0.2)
    with pytest.raises(RequestError, match="hop: expected at most the 9 frames of a clip, got 10"):
        count_cost(lower(network("mlp", front, tmp_path)[0]), front, replace(SETTINGS, hop_frames=10), 3)


def test_runs() -> None:
    assert runs_of(np.array([True, True, False, True, False])) == [(0, 2), (3, 4)]
    assert runs_of(np.zeros(3, bool)) == []
