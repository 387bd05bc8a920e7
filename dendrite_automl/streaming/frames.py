"""Features of overlapping windows of a recording, each frame computed once, by the definition of the front end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.features import FrontEnd
from dendrite_automl.tasks.features import normalise_sliding

Floats = NDArray[np.float64]


def window_features(front: FrontEnd, wave: NDArray[np.floating], hop_frames: int) -> NDArray[np.float32]:
    """The network's inputs for windows of one clip's length: equal to the features of each clip on its own.

    Frames inside a window are those of the recording. Where the front end treats a clip's ends in its own way (no sample
    before the first, zeros after the last), the frames there are computed for each window.

    Args:
        wave: [1 + (W - 1) * hop_frames * hop + samples] in [-1, 1]: the sample before the first window, then W windows.

    Returns:
        [W, rows, frames].
    """
    x, step = np.asarray(wave, np.float64), hop_frames * front.hop
    count, inner = (len(x) - 1 - front.samples) // step + 1, front.inner_frames
    frames = np.lib.stride_tricks.sliding_window_view(x, front.frame + 1)[:: front.hop]  # each with the sample before it
    rows = _frame_features(front, frames[: (count - 1) * hop_frames + inner])
    features = rows[hop_frames * np.arange(count)[:, None] + np.arange(inner)]  # [W, inner, rows]
    if front.has_own_ends:
        starts = step * np.arange(count)
        first = np.stack([x[start : start + front.frame + 1] for start in starts])
        first[:, 0] = x[starts + front.samples] if front.wrap else 0
        features[:, 0] = _frame_features(front, first)
        for f in range(inner, front.frames):
            at, size = starts + f * front.hop, front.samples - f * front.hop
            last = np.stack([x[start : start + size + 1] for start in at])
            features = np.concatenate([features, _frame_features(front, last)[:, None]], 1)
    return _finish(front, features.transpose(0, 2, 1))


def _frame_features(front: FrontEnd, frames: Floats) -> Floats:
    """[N, 1 + up to frame samples], the first is the one before the frame, zeros follow -> [N, rows], not normalised."""
    x = frames[:, 1:] - front.preemphasis * frames[:, :-1]
    if front.window is not None:
        x = x * front.window[: x.shape[1]]
    power = np.abs(np.fft.rfft(x, front.fft)) ** 2 * front.power_factor
    bands = front.log_factor * np.log(np.maximum(power @ front.bank.T, front.floor))
    rows = bands if front.cosines is None else bands @ front.cosines.T
    if front.energy:
        rows[:, 0] = front.log_factor * np.log(np.maximum(power.sum(1), front.floor))
    return rows


def _finish(front: FrontEnd, x: Floats) -> NDArray[np.float32]:
    """[W, rows, frames] normalised over each window where the front end does that, and standardised."""
    if front.sliding:
        x = normalise_sliding(x, front.sliding, front.epsilon)
    elif front.per_clip:
        x = (x - x.mean(2, keepdims=True)) / (x.std(2, keepdims=True) + front.epsilon)
    shift, scale = front.shift[:, None], front.scale[:, None]
    if front.stored:
        return (np.clip(np.rint((x - shift) / scale), 0, 255) * scale + shift).astype(np.float32)
    return ((x - shift) / scale).astype(np.float32)
