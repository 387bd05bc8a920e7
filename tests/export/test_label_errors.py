"""Suspected label errors: the rule on made-up probabilities, and labels that were really changed."""

from dataclasses import replace

import numpy as np
import torch

from dendrite_automl.backbones import build_backbone
from dendrite_automl.export.label_errors import contradicted, find_suspects
from dendrite_automl.tasks import Split, Task, load_task
from dendrite_automl.train.fit import Data, FitSettings, fit_replicates_

CHANGED = 0.05


def test_a_label_is_suspected_if_another_class_reaches_its_threshold() -> None:
    # thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 for class 0, (0.9 + 0.7) / 2 = 0.8 for class 1
    sure = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    assert contradicted(sure[None], labels) == {2: 1}
    weaker = sure.copy()
    weaker[2] = [0.22, 0.78]  # below the threshold of class 1
    assert contradicted(weaker[None], labels) == {}


def test_all_networks_must_agree() -> None:
    one = np.array([[0.9, 0.1], [0.01, 0.99], [0.4, 0.6]], np.float32)
    other = np.array([[0.9, 0.1], [0.55, 0.45], [0.4, 0.6]], np.float32)
    labels = np.array([0, 0, 1])
    assert contradicted(np.stack([one, one]), labels) == {1: 1}
    assert contradicted(np.stack([one, other]), labels) == {}


def test_a_class_without_examples_is_never_predicted() -> None:
    probabilities = np.array([[[0.1, 0.1, 0.8], [0.2, 0.1, 0.7]]], np.float32)
    assert contradicted(probabilities, np.array([0, 0])) == {}


def _with_changed_labels(split: Split, classes: int, rng: np.random.Generator) -> tuple[Split, set[int]]:
    wrong = rng.permutation(len(split))[: round(CHANGED * len(split))]
    y = split.y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return replace(split, y=y), set(wrong.tolist())


def _noisy_digits() -> tuple[Task, Split, dict[str, set[int]]]:
    task, rng = load_task("digits"), np.random.default_rng(0)
    splits, wrong = {}, {}
    for name, split in (("train", task.train), ("val", task.val), ("test", task.open_test())):
        splits[name], wrong[name] = _with_changed_labels(split, len(task.classes), rng)
    names = {"val": [f"image{i}.png" for i in range(len(task.val))]}
    return replace(task, train=splits["train"], val=splits["val"], names=names), splits["test"], wrong


def test_changed_labels_are_found_with_their_names() -> None:
    task, test, wrong = _noisy_digits()
    data = Data.from_splits(task.train, task.val, len(task.classes))
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(build_backbone("mlp", task.input_shape, len(task.classes), {"hidden": 16}))
    for _ in fit_replicates_(networks, data, FitSettings(learning_rate=0.01, batch_size=32), epochs=10, seed=0):
        pass
    suspects = find_suspects(networks, task, test)
    assert [s.p_label for s in suspects] == sorted(s.p_label for s in suspects)
    for split in ("val", "test"):
        found = {s.index for s in suspects if s.split == split}
        assert len(found & wrong[split]) > 0.5 * len(wrong[split])
        assert len(found & wrong[split]) > 0.5 * len(found)
    assert all(s.example == (f"image{s.index}.png" if s.split == "val" else "") for s in suspects)
    assert all(s.label != s.predicted and s.p_predicted > s.p_label for s in suspects)
