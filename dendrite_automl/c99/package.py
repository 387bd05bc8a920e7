"""Firmware packages: C code and its test vectors in the layout that Arduino, ESP-IDF, Zephyr or CMSIS-Pack expects.

Source:
    Arduino library specification 1.5 (rev. 2.2) and the rules of arduino-lint; ESP-IDF build system and the manifest of its
    component manager; Zephyr's module.yml; Open-CMSIS-Pack, PACK.xsd 1.7.
"""

from __future__ import annotations

import difflib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from dendrite_automl.c99.render import environment
from dendrite_automl.errors import RequestError
from dendrite_automl.version import __version__

_VENDOR = "dendrite-automl"  # of a CMSIS-Pack: who made the pack, for an artifact does not say who trained the network
_VECTOR_BYTES = 65_536  # of test inputs in the example's flash, at most, if more than one vector
_EVERY = {
    "README.md": "README.md.j2",
    "LICENSE.txt": "LICENSE.txt.j2",
    "src/{name}.h": "all.h.j2",
}
# kind -> file in the package -> template in packages/<kind>/, in packages/ or in this folder, whichever comes first
PACKAGES: Mapping[str, Mapping[str, str]] = {
    "arduino": {
        "library.properties": "library.properties.j2",
        "examples/Classify/Classify.ino": "Classify.ino.j2",
        "examples/Classify/vectors.h": "vectors.h.j2",
    },
    "esp-idf": {
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "idf_component.yml": "idf_component.yml.j2",
        "examples/classify/CMakeLists.txt": "project.txt.j2",
        "examples/classify/main/CMakeLists.txt": "main.txt.j2",
        "examples/classify/main/main.c": "main.c.j2",
        "examples/classify/main/vectors.h": "vectors.h.j2",
    },
    "zephyr": {
        "zephyr/module.yml": "module.yml.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "Kconfig": "Kconfig.j2",
        "samples/classify/CMakeLists.txt": "sample.txt.j2",
        "samples/classify/prj.conf": "prj.conf.j2",
        "samples/classify/sample.yaml": "sample.yaml.j2",
        "samples/classify/src/main.c": "main.c.j2",
        "samples/classify/src/vectors.h": "vectors.h.j2",
    },
    "cmsis-pack": {
        "{vendor}.{name}.pdsc": "pdsc.j2",
        "examples/classify/main.c": "main.c.j2",
        "examples/classify/vectors.h": "vectors.h.j2",
    },
}


def check_package(kind: str) -> None:
    """Refuse a package that does not exist.

    Raises:
        RequestError: it is none of `PACKAGES`.
    """
    if kind not in PACKAGES:
        close = difflib.get_close_matches(kind.lower(), PACKAGES, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise RequestError(f'export: package: expected one of {", ".join(PACKAGES)}, got "{kind}"{hint}')


def name_package(snapshot: str) -> str:
    """A name that is valid in C, CMake, Kconfig and as the name of a library in each package system."""
    return "nn_" + re.sub(r"[^A-Za-z0-9]", "_", snapshot)


def make_package(kind: str, name: str, code: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str | bytes]:
    """All files of a package.

    Args:
        kind: a key of `PACKAGES`.
        name: from `name_package`.
        code: the C code by file name.
        values: what the templates need, as for a folder that is no package.
    """
    templates, vectors = environment(), int(values["vectors"])
    values = {
        **values,
        "name": name,
        "vendor": _VENDOR,
        "package_version": ".".join(re.findall(r"\d+", __version__)[:3]),
        "code": sorted(code),
        "shipped": min(vectors, max(1, _VECTOR_BYTES // (4 * int(values["inputs"])))),
    }
    files: dict[str, str | bytes] = {f"src/{name}/{file}": text for file, text in code.items()}
    for path, template in (_EVERY | dict(PACKAGES[kind])).items():
        found = templates.select_template([f"packages/{kind}/{template}", f"packages/{template}", template])
        files[path.format(name=name, vendor=_VENDOR)] = found.render(values)
    if kind == "cmsis-pack":
        files[f"{_VENDOR}.{name}.{values['package_version']}.pack"] = _zip(files)
    return files


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    """An archive whose bytes depend on the files alone: no times, no compression, sorted."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path)  # of 1 January 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[path])
    return target.getvalue()
