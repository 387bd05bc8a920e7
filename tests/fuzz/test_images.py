"""Images: damaged files and metadata, and small files that declare or inflate to gigabytes."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.images import read_images
from dendrite_automl.tasks.task import Task
from tests.fuzz.contract import damaged, examples, read
from tests.fuzz.memory import peak_bytes


def encoded(kind: str, seed: int = 0) -> bytes:
    """An image with EXIF data, and with text and a colour profile if it is a PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "made up"
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "x" * 50, zip=True)
    content = io.BytesIO()
    options: dict[str, Any] = {"pnginfo": about, "icc_profile": b"p" * 40} if kind == "PNG" else {}
    Image.fromarray(pixels).save(content, kind, exif=exif, **options)
    return content.getvalue()


ENCODED = {"PNG": encoded("PNG"), "JPEG": encoded("JPEG")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "data"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            (folder / name / f"{i}.png").write_bytes(encoded("PNG", seed=i + len(name)))
    return folder


def load(folder: Path, content: bytes) -> Any:
    (folder / "cat" / "damaged.png").write_bytes(content)
    return read(read_images, folder)


@pytest.mark.parametrize("kind", ENCODED)
def test_the_files_that_are_damaged_below_can_be_read(folder: Path, kind: str) -> None:
    assert isinstance(load(folder, ENCODED[kind]), Task)


@examples(200)
@given(content=st.sampled_from(sorted(ENCODED)).flatmap(lambda kind: damaged(ENCODED[kind])))
def test_a_damaged_image_is_refused_or_read(folder: Path, content: bytes) -> None:
    assert isinstance(load(folder, content), Task | RequestError)


@examples(80)
@given(data=st.data())
def test_damaged_exif_data_are_refused_or_read(folder: Path, data: st.DataObject) -> None:
    """With right checksums, so that Pillow believes it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    broken = data.draw(damaged(exif.tobytes()))
    Image.new("RGB", (8, 9)).save(content, data.draw(st.sampled_from(["PNG", "JPEG"])), exif=broken)
    assert isinstance(load(folder, content.getvalue()), Task | RequestError)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *more: bytes, rows: int = 4) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = zlib.compress(bytes((width + 1) * rows)) if width < 2**20 else b""
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    content = bytearray(ENCODED["JPEG"])
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


INFLATES = zlib.compress(bytes(80 * 2**20), 9)
BOMBS = {
    "a PNG of 10 gigapixels": png(100_000, 100_000),
    "a PNG of all pixels that there are": png(2**31 - 1, 2**31 - 1),
    "a JPEG of 4 gigapixels": jpeg(65_535, 65_535),
    "text that inflates": png(8, 9, chunk(b"zTXt", b"comment\0\0" + INFLATES), rows=9),
    "a colour profile that inflates": png(8, 9, chunk(b"iCCP", b"profile\0\0" + INFLATES), rows=9),
}


@pytest.mark.parametrize("which", BOMBS)
def test_a_small_file_does_not_become_gigabytes(folder: Path, which: str) -> None:
    found, peak = peak_bytes(lambda: load(folder, BOMBS[which]))
    assert isinstance(found, RequestError) or "inflates" in which
    assert peak < 20 * 2**20


def test_pixels_that_a_file_has_more_of_than_it_says_are_not_read(folder: Path) -> None:
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 9, 8, 0, 0, 0, 0))
    content += chunk(b"IDAT", INFLATES) + chunk(b"IEND", b"")
    _, peak = peak_bytes(lambda: load(folder, content))
    assert peak < 20 * 2**20
