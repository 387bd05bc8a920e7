"""Firmware packages from outside: layout, metadata, and that their examples build and find what the network computes."""

import io
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import dendrite_automl as da
from dendrite_automl.c99.package import PACKAGES, name_package
from dendrite_automl.calibration import read_log
from dendrite_automl.cli import main
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.artifact.seal import write_seal
from tests.c99.compiled import STRICT, add_node, needs_compiler
from tests.c99.packaged import ARDUINO_H, ARDUINO_MAIN, IDF_FILES, ZEPHYR_FILES, run_cmake, run_command, write_files
from tests.c99.test_folder import artifact, seal_again  # noqa: F401 - an artifact
from tests.export.artifact.test_verify import original  # noqa: F401

NAME = "nn_0123456789_2"
CODE = {f"src/{NAME}.h", *(f"src/{NAME}/model{end}" for end in (".h", ".c", "_int8.h", "_int8.c"))}
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")


@pytest.fixture
def spoken(artifact: Path) -> Path:  # noqa: F811
    """An artifact for recordings, with odd names."""
    pytest.importorskip("librosa")
    description = json.loads((artifact / "artifact.json").read_text())
    description["preprocessing"], description["data"]["task"] = {"features": {}}, "keywords"
    description["labels"] = ['"quoted"', "back\\slash", "line\nbreak", "??/", "*/ comment", "grün", "<7>", "8&", "%d", "x|`y`"]
    (artifact / "artifact.json").write_text(json.dumps(description))
    write_seal(artifact)
    return artifact


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", PACKAGES)
def test_layout(artifact, kind, capsys) -> None:  # noqa: F811
    assert main(["export", str(artifact), "--package", kind]) == 0
    folder = artifact / kind / NAME
    assert capsys.readouterr().out == f"{folder}\n"
    files = files_of(folder)
    assert CODE | {"README.md", "LICENSE.txt"} < files
    assert sum(name.endswith("/vectors.h") for name in files) == 1
    licence = json.loads((artifact / "artifact.json").read_text())["licence"]
    assert licence in (folder / "LICENSE.txt").read_text()
    for name in (name for name in files if not name.endswith(".pack")):
        assert "{%" not in (folder / name).read_text()
    assert main(["verify", str(artifact)]) == 0  # the package is beside what was sealed


@needs_compiler
@pytest.mark.parametrize("kind", PACKAGES)
def test_code_compiles(spoken, kind) -> None:
    folder = da.export_c(spoken, package=kind)
    sources = [str(path) for path in (folder / "src").rglob("*.c")]
    assert len(sources) == 3
    compilers = [("gcc", STRICT)]
    if shutil.which("arm-none-eabi-gcc"):
        compilers += [
            ("arm-none-eabi-gcc", f"-std=c99 -Os -mthumb -mcpu={core} -Wall -Werror") for core in ("cortex-m0", "cortex-m4")
        ]
    for compiler, flags in compilers:
        for source in sources:
            run_command(compiler, *flags.split(), "-Isrc", "-c", source, "-o", "out.o", cwd=folder)


@needs_compiler
@pytest.mark.parametrize("which", ["artifact", "spoken"])
def test_arduino(which, request, tmp_path) -> None:
    folder = da.export_c(request.getfixturevalue(which), package="arduino")
    write_files({"Arduino.h": ARDUINO_H, "start.cpp": ARDUINO_MAIN}, tmp_path)
    objects = []
    for source in (folder / "src").rglob("*.c"):
        objects.append(f"{source.stem}.o")
        run_command("gcc", "-c", source, "-o", objects[-1], cwd=tmp_path)
    sketch = folder / "examples" / "Classify" / "Classify.ino"
    flags = ["-std=gnu++17", "-Wall", "-Werror", f"-I{folder / 'src'}", f"-I{tmp_path}", f"-I{sketch.parent}"]
    run_command("g++", *flags, "-include", "Arduino.h", "-x", "c++", "-c", sketch, "-o", "sketch.o", cwd=tmp_path)
    run_command("g++", "start.cpp", "sketch.o", *objects, "-lm", "-o", "sketch", cwd=tmp_path)
    said = run_command(tmp_path / "sketch", cwd=tmp_path)
    assert len(re.findall(r"^vector \d+: ", said, re.MULTILINE)) == 32
    assert said.count(", 7 us\n") == 32
    assert said.endswith("numbers that differ from the reference: 0\nall as expected\n")


def test_arduino_metadata_keeps_the_rules_of_the_linter(artifact) -> None:  # noqa: F811
    """Rules of arduino-lint at its level "strict", as in its JSON schema."""
    folder = da.export_c(artifact, package="arduino")
    lines = (folder / "library.properties").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required | {"includes"} == set(found)
    assert all(found.values())
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9 _.\-]*", found["name"])
    assert len(found["name"]) <= 16
    assert " " not in found["name"]
    assert not re.search("arduino|library", found["name"], re.IGNORECASE)
    assert not re.match("arduino", found["maintainer"], re.IGNORECASE)
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", found["version"])
    assert found["category"] == "Data Processing"
    assert found["sentence"] not in found["paragraph"]
    assert found["url"].startswith("https://")
    assert found["includes"] == f"{found['name']}.h"
    assert (folder / "src" / found["includes"]).is_file()
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in found["architectures"].split(","))
    assert [path.stem for path in (folder / "examples").rglob("*.ino")] == ["Classify"]
    assert (folder / "examples" / "Classify" / "Classify.ino").is_file()  # a sketch is named as its folder


@needs_cmake
@needs_compiler
@pytest.mark.parametrize("which", ["artifact", "spoken"])
def test_esp_idf(which, request, tmp_path) -> None:
    folder = da.export_c(request.getfixturevalue(which), package="esp-idf")
    idf = write_files(IDF_FILES, tmp_path / "idf")
    said = run_cmake(folder / "examples" / "classify", tmp_path / "build", IDF_PATH=str(idf))
    assert said.count(", 7 us\n") == 32
    assert ("features: largest" in said) == (which == "spoken")
    assert said.endswith("all as expected\n")
    manifest = yaml.safe_load((folder / "idf_component.yml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert "0123456789-2" in manifest["description"]
    assert manifest["dependencies"] == {"idf": ">=5.0"}


@needs_cmake
@needs_compiler
@pytest.mark.parametrize("which", ["artifact", "spoken"])
def test_zephyr(which, request, tmp_path) -> None:
    folder = da.export_c(request.getfixturevalue(which), package="zephyr")
    zephyr = write_files(ZEPHYR_FILES, tmp_path / "zephyr")
    sample = folder / "samples" / "classify"
    said = run_cmake(sample, tmp_path / "build", f"-DZephyr_DIR={zephyr}")
    assert said.count(", 7 us\n") == 32
    assert ("features: largest" in said) == (which == "spoken")
    module = yaml.safe_load((folder / "zephyr" / "module.yml").read_text())
    assert module == {"name": NAME, "build": {"cmake": ".", "kconfig": "Kconfig"}, "samples": ["samples"]}
    kconfig = (folder / "Kconfig").read_text()
    assert re.findall(r"^config (\w+)$", kconfig, re.MULTILINE) == [NAME.upper()]
    assert f"CONFIG_{NAME.upper()}=y" in (sample / "prj.conf").read_text()
    console = yaml.safe_load((sample / "sample.yaml").read_text())["common"]["harness_config"]["regex"]
    assert said.splitlines()[-1] == console[0]


@needs_cmake
@needs_compiler
@pytest.mark.parametrize("kind", ["esp-idf", "zephyr"])
def test_examples_print_a_profile_on_request(artifact, kind, tmp_path) -> None:  # noqa: F811
    folder = da.export_c(artifact, package=kind)
    flags = ["-DPROFILE=1"]
    if kind == "zephyr":
        flags.append(f"-DZephyr_DIR={write_files(ZEPHYR_FILES, tmp_path / 'sdk')}")
    idf = write_files(IDF_FILES, tmp_path / "idf")
    example = folder / ("samples" if kind == "zephyr" else "examples") / "classify"
    (tmp_path / "said.log").write_text(run_cmake(example, tmp_path / "build", *flags, IDF_PATH=str(idf)))
    found = read_log(tmp_path / "said.log", 1.0)
    assert [(each.network, each.variant) for each in found] == [(NAME, "float32"), (NAME, "int8")]


@needs_compiler
def test_cmsis_pack(spoken, tmp_path) -> None:
    folder = da.export_c(spoken, package="cmsis-pack")
    (description,) = folder.glob("*.pdsc")
    package = ElementTree.parse(description).getroot()
    vendor, name = package.findtext("vendor"), package.findtext("name")
    assert description.name == f"{vendor}.{name}.pdsc"
    assert all(re.fullmatch(r"[\-_A-Za-z0-9]+", each or "") for each in (vendor, name))
    elements = {
        "vendor",
        "name",
        "description",
        "url",
        "license",
        "releases",
        "keywords",
        "taxonomy",
        "requirements",
        "components",
    }
    assert [child.tag for child in package] == list(dict.fromkeys(child.tag for child in package))
    assert {child.tag for child in package} == elements
    version = package.find("releases/release").attrib["version"]
    archive = folder / f"{vendor}.{name}.{version}.pack"
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        inside = set(opened.namelist())
    assert inside == files_of(folder) - {archive.name}
    components = package.findall("components/component")
    assert [each.attrib["Csub"] for each in components] == ["Float32", "Int8", "Features", "Self-test"]
    for each in components:
        assert set(each.attrib) == {"Cclass", "Cgroup", "Csub", "Cversion"}
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+()'/\-\s.]{1,31}", each.attrib[key]) for key in ("Cclass", "Cgroup"))
    listed = {file.attrib["name"] for file in package.iter("file")}
    assert {name for name in listed if not name.endswith("/")} | {package.findtext("license")} <= inside
    sources = [f"{folder / file.attrib['name']}" for file in package.iter("file") if file.attrib["category"] == "sourceC"]
    includes = [f"-I{folder / file.attrib['name']}" for file in package.iter("file") if file.attrib["category"] == "include"]
    run_command("gcc", *STRICT.split(), *includes, *sources, "-lm", "-o", tmp_path / "app", cwd=tmp_path)
    assert run_command(tmp_path / "app", cwd=tmp_path).endswith("all as expected\n")


def test_a_pack_has_the_same_bytes_each_time(artifact, tmp_path) -> None:  # noqa: F811
    one, two = (next(da.export_c(artifact, tmp_path / str(i), package="cmsis-pack").glob("*.pack")) for i in range(2))
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(io.BytesIO(one.read_bytes())) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@needs_compiler
def test_an_example_can_fail(artifact, tmp_path) -> None:  # noqa: F811
    folder = da.export_c(artifact, package="cmsis-pack")
    source = folder / "src" / NAME / "model_int8.c"
    text = source.read_text()
    first = text.index("{\n", text.index("_bias[")) + 2  # of the biases, the first number
    source.write_text(text[:first] + "99999" + text[text.index(",", first) :])
    sources = [*(folder / "src").rglob("*.c"), folder / "examples" / "classify" / "main.c"]
    subprocess.run(["gcc", "-Isrc", *sources, "-lm", "-o", tmp_path / "app"], cwd=folder, check=True)
    done = subprocess.run([tmp_path / "app"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.endswith("FAILED\n")


def test_names_are_safe() -> None:
    for odd in ("0123456789-0", "ab/..\\c-1", "Ünï code-2", "a b;c$(d)-3"):
        assert re.fullmatch(r"nn_[A-Za-z0-9_]+", name_package(odd))
    assert len(name_package("6f0d28a1c3-0")) <= 16


def test_export_again_replaces_and_elsewhere_is_possible(artifact, tmp_path) -> None:  # noqa: F811
    first = da.export_c(artifact, package="zephyr")
    (first / "build").mkdir()
    assert "build" not in {path.name for path in da.export_c(artifact, package="zephyr").iterdir()}
    assert (da.export_c(artifact, tmp_path / "deep" / "module", package="zephyr") / "zephyr" / "module.yml").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own")
    with pytest.raises(RequestError, match="new or empty folder"):
        da.export_c(artifact, tmp_path / "mine", package="zephyr")
    assert files_of(tmp_path / "mine") == {"README.md"}


def test_bad_requests(artifact, tmp_path, capsys) -> None:  # noqa: F811
    before = files_of(artifact)
    with pytest.raises(RequestError, match=r'expected one of arduino, .*, got "arduno"; did you mean "arduino"\?'):
        da.export_c(artifact, package="arduno")
    with pytest.raises(RequestError, match="expected the folder of an artifact"):
        da.export_c(tmp_path / "none", package="arduino")
    export = ["export", str(artifact)]
    assert main([*export, "--package", "platformio"]) == 2
    assert main([*export, "--tflite", "--package", "arduino"]) == 2
    assert main([*export, "--hub", str(tmp_path / "hub"), "--package", "arduino"]) == 2
    assert main([*export, "--package", "arduino", "--dynamic-batch"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "expected one of arduino, esp-idf, zephyr, cmsis-pack" in lines[0]
    assert files_of(artifact) == before
    description = json.loads((artifact / "artifact.json").read_text())
    (artifact / "artifact.json").write_text(json.dumps({**description, "format": 1}))
    write_seal(artifact)
    with pytest.raises(RequestError, match="format"):
        da.export_c(artifact, tmp_path / "other", package="arduino")
    assert not (tmp_path / "other").exists()


def test_nothing_is_left_of_what_cannot_be_written(artifact, tmp_path) -> None:  # noqa: F811
    (tmp_path / "file").touch()
    with pytest.raises(AutoMLError, match="cannot write"):
        da.export_c(artifact, tmp_path / "file" / "library", package="arduino")
    add_node(artifact / "model.onnx", "Exp")
    seal_again(artifact)
    assert main(["export", str(artifact), "--package", "esp-idf"]) != 0
    assert not (artifact / "esp-idf").exists()
