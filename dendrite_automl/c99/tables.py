"""Constants of a program as C: arrays of numbers, records of layers, and the lines that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.integer import (
    TANH,
    IntegerRows,
    Mix,
    Rescale,
    gate_scale,
    product_scale,
    spread_scale,
    sum_scale,
    table_scale,
    table_step,
    times_scale,
)
from dendrite_automl.c99.kernels import KINDS
from dendrite_automl.c99.program import (
    DendriteSet,
    Geometry,
    Layer,
    Map,
    Pool,
    Quant,
    Scalars,
    Shift,
    Squash,
    Step,
    Sum,
    Tensor,
    Times,
    Weights,
    known,
)
from dendrite_automl.c99.render import as_array, c_float
from dendrite_automl.c99.shapes import as_map

Runs = Sequence[tuple[int, int]]
_BYTES = {"float": 4, "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4}


@dataclass(slots=True)
class Tables:
    """Arrays and records of constants, collected as steps ask for them; counted only, with their numbers not `written`."""

    int8: bool
    written: bool = True
    arrays: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    weights: dict[tuple[str, bytes], str] = field(default_factory=dict)
    array_bytes: int = 0

    def calls(self, step: Step, at: Mapping[str, str], runs: Runs | None = None) -> list[str]:
        """The lines that run a step.

        Args:
            at: where each tensor is.
            runs: ranges of columns that are computed, by kernels that take them; None: kernels that compute all.
        """
        number = sum(self.counts.get(kind, 0) for kind in ("layer", "pool", "add", "product", "move", "map"))
        source, target = at[step.source.name], at[step.target.name]
        if isinstance(step, Layer | Pool):
            kind = "layer" if isinstance(step, Layer) else "pool"
            record = self._layer(step, f"layer_{number}") if isinstance(step, Layer) else self._pool(step, f"pool_{number}")
            width = step.geometry.out_w
            parts = runs or [] if width == as_map(step.target.shape)[2] else [(0, width)]
            ranges = [""] if runs is None else [f", {start}, {end}" for start, end in parts]
            return [f"run_{kind}(&{record}, {source}, {target}{each});" for each in ranges]
        if isinstance(step, Shift):
            self.counts["move"] = self.counts.get("move", 0) + 1
            sizes = ", ".join(map(str, (*as_map(step.source.shape), *as_map(step.target.shape)[1:], *step.by)))
            return [f"run_move({source}, {target}, {sizes}{f', {known(step.target.quant).zero}' if self.int8 else ''});"]
        parts = [] if runs in (None, [(0, as_map(step.target.shape)[2])]) else runs or []
        if isinstance(step, Map):
            name = self._record("map", "squash_t", f"squash_{number}", self._squash(step.squash))
            if not parts:
                return [f"run_squash(&{name}, {source}, {target}, {step.target.size});"]
            return [_by_rows(step, part, f"run_squash(&{name}, {{0}}, {{1}}, {{n}});", source, target) for part in parts]
        return self._pair(step, number, at, parts)

    def _pair(self, step: Sum | Times, number: int, at: Mapping[str, str], parts: Runs) -> list[str]:
        """The lines of a sum or product of two tensors, or of a tensor and factors of its channels."""
        source, target = at[step.source.name], at[step.target.name]
        kind = "add" if isinstance(step, Sum) else "product"
        name = f"{kind}_{number}"
        if isinstance(step.other, Tensor):
            other, other_shape = at[step.other.name], step.other.shape
        else:
            other = self._array(f"{name}_factor", "int8_t" if self.int8 else "float", step.other.values)
            other_shape = (len(step.other.values),)
        scale = ""
        if self.int8:
            quants = (known(each.quant) for each in (step.source, step.other, step.target))
            of, text = ("sum_t", _sum_text(*quants)) if kind == "add" else ("product_t", _product_text(*quants))
            scale = f", &{self._record(kind, of, name, text)}"
        else:
            self.counts[kind] = self.counts.get(kind, 0) + 1
        if parts:
            (_, h, w), (_, other_h, other_w) = as_map(step.source.shape), as_map(other_shape)
            row = "r" if other_h == h else f"r / {h}"
            heard = f"{other} + {row}" if other_w == 1 else f"{other} + ({row}) * {other_w} + {{a}}"
            call = f"run_{kind}({{0}}, {heard}, {{1}}, 1, 1, {{n}}, 1, {1 if other_w == 1 < w else '{n}'}{scale});"
            return [_by_rows(step, part, call, source, target) for part in parts]
        c, h, w = (*step.source.shape, 1, 1)[:3]
        _, other_h, other_w = (*other_shape, 1, 1)[:3]
        if step.source.shape == other_shape:  # one long row
            c, h, w, other_h, other_w = 1, 1, step.source.size, 1, step.source.size
        return [f"run_{kind}({source}, {other}, {target}, {c}, {h}, {w}, {other_h}, {other_w}{scale});"]

    def _record(self, kind: str, of: str, name: str, text: str, *, count: int | None = None) -> str:
        """One record, or an array of `count`."""
        self.counts[kind] = self.counts.get(kind, 0) + (count or 1)
        brackets = "" if count is None else f"[{count}]"
        self.records.append({"type": of, "name": name, "text": text, "brackets": brackets})
        return name

    def _array(self, name: str, of: str, values: NDArray[Any]) -> str:
        self.arrays.append(as_array(name, of, values) if self.written else {"name": name})
        self.array_bytes += values.size * _BYTES[of]
        return name

    def _layer(self, step: Layer, name: str) -> str:
        g = step.geometry
        fields = {
            **_plain(g),
            **({"zero_in": known(step.source.quant).zero} if self.int8 else {}),
            "rows": self._rows(step.weights, step.source.quant, name),
        }
        if step.sets:
            sets = ", ".join(self._set(each, d, step, name) for d, each in enumerate(step.sets))
            fields["sets"] = self._record("set", "set_t", f"{name}_sets", f"{{{sets}}}", count=len(step.sets))
            fields["set_count"] = len(step.sets)
        if step.squash:
            fields["squash"] = "&" + self._record("squash", "squash_t", f"{name}_squash", self._squash(step.squash))
        return self._record("layer", "layer_t", name, _fields(fields))

    def _weight(self, name: str, of: str, values: NDArray[Any]) -> str:
        """The array of a product's weights: the one that holds the same already, or a new one."""
        key = of, values.tobytes()
        if key not in self.weights:
            self.weights[key] = self._array(name, of, values)
        return self.weights[key]

    def _rows(self, weights: Weights, source: Quant | None, name: str) -> str:
        if source is None:
            bias = "0" if weights.bias is None else self._array(f"{name}_bias", "float", weights.bias)
            return _fields({"weight": self._weight(f"{name}_weight", "float", weights.values), "bias": bias})
        rows = IntegerRows.of(weights, source)
        factors, shifts = (np.array([getattr(r, f) for r in rows.rescale]) for f in ("multiplier", "shift"))
        return _fields(
            {
                "weight": self._weight(f"{name}_weight", "int8_t", rows.values),
                "bias": self._array(f"{name}_bias", "int32_t", rows.bias),
                "multiplier": self._array(f"{name}_multiplier", "int32_t", factors),
                "shift": self._array(f"{name}_shift", "uint8_t", shifts),
                "zero": rows.zero,
            }
        )

    def _set(self, each: DendriteSet, d: int, step: Layer, layer: str) -> str:
        name = f"{layer}_set_{d}"
        fields: dict[str, Any] = {"rows": self._rows(each.weights, step.source.quant, name)}
        if each.geometry is not None:
            at = {**_plain(each.geometry), **({"zero_in": known(step.source.quant).zero} if self.int8 else {})}
            fields["at"] = "&" + self._record("layer", "layer_t", f"{name}_at", _fields(at))
        if each.slope is not None:
            fields["slope"] = self._array(f"{name}_slope", "float", each.slope)
        if each.mix is not None:
            fields |= {"mix": self._rows(each.mix, each.weights.target, f"{name}_mix"), "rank": len(each.weights.values)}
        if (each.places != np.arange(len(each.places))).any():
            none = 255 if len(each.places) < 256 else 65_535
            places = np.where(each.places < 0, none, each.places)
            fields["place"] = self._array(f"{name}_place", "uint8_t" if none == 255 else "uint16_t", places)
        inner = (each.mix or each.weights).target
        texts = []
        for e, scalars in enumerate(each.cascade):
            texts.append(self._scalars(scalars, inner, step.sets[e].squash.target, f"{name}_hears_{e}"))
            inner = scalars.total
        if texts:
            cascade = f"{{{', '.join(texts)}}}"
            fields["cascade"] = self._record("cascade", "scalars_t", f"{name}_cascade", cascade, count=len(texts))
        before = step.sets[d - 1].gain.total if d else step.weights.target
        fields["gain"] = self._scalars(each.gain, before, each.squash.target, f"{name}_gain")
        fields["squash"] = self._squash(each.squash)
        return _fields(fields)

    def _scalars(self, scalars: Scalars, before: Quant | None, heard: Quant | None, name: str) -> str:
        if not self.int8:
            return _fields({"value": self._array(name, "float", scalars.values)})
        product = known(scalars.product)
        return _fields(
            {
                "value": self._array(name, "int8_t", scalars.values),
                "scale": _rescale_text(product_scale(scalars, known(heard))),
                "zero": known(scalars.quant).zero,
                "zero_in": known(heard).zero,
                "zero_out": product.zero,
                "sum": _sum_text(known(before), product, known(scalars.total)),
            }
        )

    def _squash(self, squash: Squash) -> str:
        fields: dict[str, Any] = {"kind": KINDS[squash.kind]}
        if not self.int8:
            return _fields(fields | ({"slope": c_float(squash.slope)} if squash.kind == "leaky_relu" else {}))
        source, target = known(squash.source), known(squash.target)
        fields |= {"zero_in": source.zero, "zero": target.zero}
        if squash.kind in ("tanh", "sigmoid"):
            if not any(array["name"] == "tanh_table" for array in self.arrays):
                self._array("tanh_table", "int16_t", TANH)
            fields |= {"scale": _rescale_text(table_scale(squash)), "other": _rescale_text(table_step(squash))}
        elif squash.kind == "hard_swish":
            inner, (mix, one) = known(squash.inner), gate_scale(squash)
            fields["scale"] = _rescale_text(Rescale.of(source.scale * inner.scale / target.scale))
            fields |= {"gate_a": mix.a, "gate_b": mix.b, "gate_shift": mix.shift}
            fields |= {"gate_zero": inner.zero, "gate_one": one}
        else:
            fields["scale"] = _rescale_text(Rescale.of(source.scale / target.scale))
            if squash.kind == "leaky_relu":
                fields["other"] = _rescale_text(Rescale.of(squash.slope * source.scale / target.scale))
        return _fields(fields)

    def _pool(self, step: Pool, name: str) -> str:
        fields = _plain(step.geometry)
        for unused in ("group_in", "group_out", "dilation_h", "dilation_w"):
            del fields[unused]
        fields["channels"] = fields.pop("out_c")
        fields["is_max"] = int(step.kind == "max")
        size = 1 if step.kind == "max" else step.geometry.kernel[0] * step.geometry.kernel[1]
        if self.int8:
            source, target = known(step.source.quant), known(step.target.quant)
            scale = _rescale_text(Rescale.of(source.scale / (target.scale * size)))
            fields |= {"zero_in": source.zero, "zero": target.zero, "scale": scale}
        else:
            fields["scale"] = c_float(1 / size)
        if step.kind == "spread":
            fields |= {"is_spread": 1, "least": c_float(step.least)}
            if self.int8:
                rescale, fields["least"] = spread_scale(step)
                fields["scale"] = _rescale_text(rescale)
        return self._record("pool", "pool_t", name, _fields(fields))

    def count_bytes(self, uses: Mapping[str, Any]) -> int:
        """Bytes of arrays and records in flash, with 32-bit pointers and their alignment."""
        rows, rescale, total = (20, 8, 12) if self.int8 else (8, 0, 0)
        squash = 4 + rescale * (1 + uses["two_scales"]) + 12 * uses["hard_swish"] if self.int8 else 4 + 4 * uses["leaky_relu"]
        scalars = 4 + rescale + 4 + total if self.int8 else 4
        layer = 28 + rows + 8 * uses["sets"] + 4 * uses["layer_squash"]
        record = {
            "layer": layer,
            "pool": 24 + 4 + rescale + 4 * uses["spreads"],
            "add": total,
            "product": rescale + 4 if self.int8 else 0,
            "map": squash,
            "squash": squash,
            "set": rows + (rows + 4) * uses["low_rank"] + 4 * uses["tied"] + 4 * uses["slopes"] + 8 + scalars + squash,
            "cascade": scalars,
        }
        return self.array_bytes + sum(self.counts.get(kind, 0) * size for kind, size in record.items())


def _by_rows(step: Step, part: tuple[int, int], call: str, source: str, target: str) -> str:
    """A loop over all rows of a map that calls a kernel for some of its columns."""
    (channels, height, width), (start, end) = as_map(step.target.shape), part
    at = [f"{tensor} + r * {width} + {start}" for tensor in (source, target)]
    return f"for (r = 0; r < {channels * height}; r++) {call.format(*at, n=end - start, a=start)}"


def _plain(g: Geometry) -> dict[str, Any]:
    return {
        "in_h": g.in_h,
        "in_w": g.in_w,
        "out_c": g.out_c,
        "out_h": g.out_h,
        "out_w": g.out_w,
        "group_in": g.group_in,
        "group_out": g.group_out,
        **{
            f"{name}_{axis}": value[i]
            for name in ("kernel", "stride", "pad", "dilation")
            for i, axis in enumerate("hw")
            for value in [getattr(g, name)]
        },
    }


def _rescale_text(r: Rescale) -> str:
    return _fields({"multiplier": r.multiplier, "shift": r.shift})


def _sum_text(one: Quant, other: Quant, total: Quant) -> str:
    mix: Mix = sum_scale(one, other, total)
    return _fields({"a": mix.a, "b": mix.b, "shift": mix.shift, "zero_x": one.zero, "zero_y": other.zero, "zero": total.zero})


def _product_text(one: Quant, other: Quant, product: Quant) -> str:
    scale = _rescale_text(times_scale(one, other, product))
    return _fields({"scale": scale, "zero_x": one.zero, "zero_y": other.zero, "zero": product.zero})


def _fields(fields: dict[str, Any]) -> str:
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"
