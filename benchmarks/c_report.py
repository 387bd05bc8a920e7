"""The section on C code in benchmarks/README.md, from results/c_speed.json, c_target.json and c_size.json.

`python benchmarks/c_report.py` writes it.
"""

from __future__ import annotations

import json
from typing import Any

from section import README, replace_section

RESULTS = README.parent / "results"


def main() -> None:
    """Write the section."""
    replace_section("c", "\n".join([*speed(read("c_speed")), "", *board(read("c_target")), "", *size(read("c_size"))]))


def read(name: str) -> dict[str, Any]:
    """A results file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def speed(found: dict[str, Any]) -> list[str]:
    """Speed compared with onnxruntime."""
    flags = list(found["rows"][0]["ratio"])
    best = [max(row["ratio"].values()) for row in found["rows"]]
    small = [value for row, value in zip(found["rows"], best, strict=True) if row["macs"] < 50_000]
    large = [value for row, value in zip(found["rows"], best, strict=True) if row["macs"] >= 50_000]
    lines = [
        f"**Speed on a PC** (`c_speed.py`, {found['date']}, {found['versions']['compiler']}, onnxruntime "
        f"{found['versions']['onnxruntime']}): time of onnxruntime divided by time of the C code, one example, one thread; "
        "above 1 the C code is faster. With the better of the two sets of flags it is at least as fast on "
        f"{sum(v >= 1 for v in small)} of {len(small)} networks with fewer than 50,000 MACs and on "
        f"{sum(v >= 1 for v in large)} of {len(large)} larger ones. "
        f"{found['empty_network_us']:.1f} µs of onnxruntime's time is what calling an empty network from Python takes.",
        "",
        f"| network | | parameters | MACs | {' | '.join(f'`{each}`' for each in flags)} |",
        f"|---|---|--:|--:|{'--:|' * len(flags)}",
    ]
    for row in found["rows"]:
        ratios = " | ".join(f"{row['ratio'][each]:.2f}" for each in flags)
        lines.append(f"| {row['network']} | {row['variant']} | {row['params']:,} | {row['macs']:,} | {ratios} |")
    return lines


def board(found: dict[str, Any]) -> list[str]:
    """Results on the emulated board."""
    lines = [
        f"**An emulated Cortex-M4** (`c_target.py`, {found['date']}, `{found['flags']}`): instructions per inference; the "
        "catalogue's figure, on which latency estimates are based, is in cycles and assumed.",
        "",
        "| network | | parameters | MACs | instructions | per MAC | cycles assumed | largest logit difference | "
        "code and constants, bytes | with `-Os` |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["runs"]:
        lines.append(
            f"| {row['network']} | {row['variant']} | {row['params']:,} | {row['macs']:,} | {row['instructions']:,} | "
            f"{row['instructions_per_mac']:.1f} | {row['assumed_cycles_per_mac']:.1f} | {row['largest_difference']:.1g} | "
            f"{row['code_and_constants']:,} | {row['code_and_constants_small']:,} |"
        )
    return lines


def size(found: dict[str, Any]) -> list[str]:
    """Flash, as estimated and as compiled."""
    codes = {variant: [e["code"] for e in found["objects"] if e["variant"] == variant] for variant in ("float32", "int8")}
    ranges = ", ".join(f"{min(sizes):,} to {max(sizes):,} bytes ({variant})" for variant, sizes in codes.items())
    return [
        f"**Size** (`c_size.py`, {found['date']}, {found['compiler']}): {len(found['objects'])} objects. Code takes {ranges}; "
        f"flash as `export --c` reports it, constants and code, is within {100 * found['largest_error_of_flash']:.1f} % of "
        "the object's, on the networks that the estimate is fitted to. RAM equals the arena to the byte."
    ]


if __name__ == "__main__":
    main()
