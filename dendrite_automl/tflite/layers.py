"""Convolutions and linear layers with their dendrites as operators of TensorFlow Lite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.program import DendriteSet, Geometry, Layer, Quant, Scalars, Squash, Weights, known
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.errors import Unsupported
from dendrite_automl.tflite.builder import SAME, VALID, Builder, Map, Window, fuse, map_of, order
from dendrite_automl.tflite.model import Value


def layer_map(layer: Layer) -> Map:
    """The map that a layer reads: [channels, height, width]; the C kernels see it in other shapes."""
    if _is_linear(layer):
        return as_map(layer.source.shape)
    if _is_pointwise(layer):
        return (layer.source.size // (layer.target.size // layer.target.shape[0]), *as_map(layer.target.shape)[1:])
    g = layer.geometry
    return layer.source.size // (g.in_h * g.in_w), g.in_h, g.in_w


def add_layer(b: Builder, layer: Layer, source: Value) -> Value:
    """A layer's neurons, plus each dendrite's output times its gain, and the activation."""
    x = source if _is_linear(layer) else b.view(source, layer_map(layer))
    product, name = _Product(b, layer, x), layer.target.name
    every = np.arange(layer.geometry.out_c)
    y = product.add(layer.weights, every, None if layer.sets else layer.squash, name)
    heard: list[tuple[Value, NDArray[np.int64]]] = []  # of each set its outputs, and the place of each neuron's one
    for d, each in enumerate(layer.sets):
        a = _add_set(b, product, each, heard, f"{name}/dendrite{d}")
        heard.append((a, each.places))
        squash = layer.squash if d == len(layer.sets) - 1 else None
        spread = b.spread(a, each.places, f"{a.name}/spread")
        gained = _gain(b, spread, each.gain, each.places, f"{name}/gain{d}")
        y = b.add(y, gained, known(each.gain.total), squash=squash, name=f"{name}/with{d}")
    return y


def _add_set(
    b: Builder, product: _Product, each: DendriteSet, heard: list[tuple[Value, NDArray[np.int64]]], name: str
) -> Value:
    """The outputs of a set, one channel for each neuron that has a dendrite."""
    owners = np.flatnonzero(each.places >= 0)
    ends = each.squash if not each.cascade else None
    if each.mix is None:
        z = product.add(each.weights, owners, ends, name, each.geometry)
    else:
        features = product.add(each.weights, np.arange(len(each.weights.values)), None, f"{name}/features")
        z = product.mix(features, known(each.weights.target), each.mix, ends, name)
    for e, (scalars, (a, places)) in enumerate(zip(each.cascade, heard, strict=True)):
        own = places[owners]
        scaled = _gain(b, b.spread(a, own, f"{name}/hears{e}"), scalars, None, f"{name}/cascade{e}")
        squash = each.squash if e == len(each.cascade) - 1 else None
        z = b.add(z, scaled, known(scalars.total), squash=squash, name=f"{name}/sum{e}")
    return z


def _gain(b: Builder, a: Value, scalars: Scalars, places: NDArray[np.int64] | None, name: str) -> Value:
    """Outputs times one constant each; `places`: of each neuron in the constants, or -1."""
    quant = known(scalars.quant)
    values = scalars.values if places is None else np.where(places < 0, quant.zero, scalars.values[places])
    return b.multiply(a, b.factors(values, quant, f"{name}/factors"), known(scalars.product), name)


def _is_linear(layer: Layer) -> bool:
    return len(layer.target.shape) == 1


def _is_pointwise(layer: Layer) -> bool:
    g, weights = layer.geometry, layer.weights.values
    return weights.shape[2:] == (1, 1) and g.stride == (1, 1) and not g.is_padded


class _Product:
    """Rows of weights on one input."""

    def __init__(self, b: Builder, layer: Layer, x: Value) -> None:
        self._b, self._x, self._linear = b, x, _is_linear(layer)
        g, (c, h, w) = layer.geometry, layer_map(layer)
        if not self._linear and _is_pointwise(layer):
            g = replace(
                g, in_h=h, in_w=w, out_h=h, out_w=w, kernel=(1, 1), dilation=(1, 1), group_in=layer.weights.values.shape[1]
            )
        self._geometry, self._channels, self._source = g, c, known(layer.source.quant)
        self._padded: dict[Window, Value] = {}

    def add(
        self, weights: Weights, neurons: NDArray[np.int64], squash: Squash | None, name: str, geometry: Geometry | None = None
    ) -> Value:
        """The product of some rows, which read the inputs of these neurons; `geometry`: if not that of the layer."""
        if self._linear:
            return self._multiply(self._x, weights, self._source, squash, name)
        g = geometry or self._geometry
        window = Window.of(g)
        if not window.is_same and window not in self._padded:  # once for a layer and its dendrites
            self._padded[window] = self._b.pad_map(self._x, window, name=f"{self._x.name}/padded")
        x, padding = (self._x, SAME) if window.is_same else (self._padded[window], VALID)
        apart = g.group_in == 1 and self._channels > 1
        if 1 < g.group_in < self._channels and len(neurons) < g.out_c:
            raise Unsupported(f"{name}: expected dendrites on all neurons of a grouped layer, got {len(neurons)} of {g.out_c}")
        if apart and len(neurons) < g.out_c:
            x = self._b.take(x, neurons // g.group_out, f"{name}/inputs")
        options = {"Padding": padding, **window.strides()}
        options |= {"DilationHFactor": window.dilation[0], "DilationWFactor": window.dilation[1]}
        return self._convolve(x, weights, self._source, squash, name, apart=apart, **options)

    def mix(self, features: Value, of: Quant, weights: Weights, squash: Squash | None, name: str) -> Value:
        """Features, quantised as `of`, mixed for each row."""
        if self._linear:
            return self._multiply(features, weights, of, squash, name)
        options = {"Padding": VALID, **Window(kernel=(1, 1)).strides(), "DilationHFactor": 1, "DilationWFactor": 1}
        return self._convolve(features, weights, of, squash, name, apart=False, **options)

    def _multiply(self, x: Value, weights: Weights, source: Quant, squash: Squash | None, name: str) -> Value:
        rows = weights.values.reshape(len(weights.values), -1)[:, order(map_of(x))]
        fused, quant = fuse(squash, known(weights.target))
        inputs = [x, *_constants(x, weights, rows, 0, source, name)]
        y = self._b.emit("FULLY_CONNECTED", inputs, (1, len(rows)), quant, name=name, FusedActivationFunction=fused)
        return self._b.squash(y, squash, name)

    def _convolve(
        self, x: Value, weights: Weights, source: Quant, squash: Squash | None, name: str, *, apart: bool, **options: int
    ) -> Value:
        """One row per output channel; `apart`: each reads one channel only."""
        code, axis = ("DEPTHWISE_CONV_2D", 3) if apart else ("CONV_2D", 0)
        kernels = weights.values.transpose((1, 2, 3, 0) if apart else (0, 2, 3, 1))
        fused, quant = fuse(squash, known(weights.target))
        inputs = [x, *_constants(x, weights, kernels, axis, source, name)]
        shape = (1, self._geometry.out_h, self._geometry.out_w, len(weights.values))
        if apart:
            options["DepthMultiplier"] = len(weights.values) // x.shape[-1]
        y = self._b.emit(code, inputs, shape, quant, name=name, FusedActivationFunction=fused, **options)
        return self._b.squash(y, squash, name)


def _constants(x: Value, weights: Weights, values: NDArray[Any], axis: int, source: Quant, name: str) -> list[Value]:
    """Weights and biases; these are stored in units of `source`, which is the program's scale of x and may not be x's own."""
    assert weights.scales is not None
    scale, signs, scales = known(x.quant).scale, np.sign(weights.scales), np.abs(weights.scales)
    if (signs < 1).any():  # of a dendrite that is its neuron times a factor of any sign: scales are positive
        values = np.clip(values * signs.reshape([-1 if i == axis else 1 for i in range(values.ndim)]), -127, 127)
        scales = np.where(scales > 0, scales, scale)
    given = np.zeros(len(scales)) if weights.bias is None else weights.bias * signs  # LiteRT has no kernel without biases
    bias = np.rint(given * (source.scale / scale))
    return [
        Value(name=f"{name}/weights", shape=values.shape, scales=scales, axis=axis, data=values),
        Value(name=f"{name}/bias", shape=bias.shape, type="int32", scales=scales * scale, data=bias),
    ]
