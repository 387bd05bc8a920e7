"""Folders of PNG and JPEG images, classes by folder or file name, through Pillow; one image at a time at full size."""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.tasks.arrays import Origin, make_array_task
from dendrite_automl.tasks.folders import FolderSplits, LabelledFiles, read_folder
from dendrite_automl.tasks.naming import Naming
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import find_recordings, speaker_notes
from dendrite_automl.tasks.task import Task, check_size

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
OPTIONS = ("image_size", "colour", "label_pattern", "groups")
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
_SMALL = 64  # images of one size up to this many pixels per side keep it
_DEFAULT_SIZE = (32, 32)
# What Pillow raises on damaged files, in their EXIF data too.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What every image is converted to: (height, width) and `grey` or `rgb`."""

    size: tuple[int, int]
    colour: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.colour == "grey" else 3, *self.size)


def read_images(path: str | Path, options: ReadOptions | None = None) -> Task:
    """Images [1 or 3, height, width], values 0..255, each channel standardised by train.

    Without `image_size`: their common size if it is at most 64 pixels per side, else 32x32 (bilinear, the aspect ratio is not
    kept). Without `colour`: as they are, if all are alike. Images are rotated according to their EXIF data; transparency is
    dropped. Splits: the folders train, test and val if present; else a fifth of each class is the locked test split, and a
    fifth of the rest validation, fixed for good. With `label_pattern` or `groups`: as `find_recordings` does it.

    Raises:
        RequestError: an image that cannot be read, a class with too few, grey mixed with colour, or an option for other data.
    """
    folder, options = Path(path), options or ReadOptions()
    options.refuse_all_but(OPTIONS, f"{folder}, a folder of images")
    splits, shared = _find(folder, Naming.make(options.label_pattern, options.groups), one_class=options.problem == ANOMALY)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    paths = [file for part in parts.values() if part is not None for file in part.paths]
    form, notes = _choose_form([_read_head(file) for file in paths], options, str(folder))
    check_size(len(paths), form.shape, str(folder), "choose a smaller --image-size")
    if splits.passed_over:
        notes.append(f"{splits.passed_over:,} files that are neither PNG nor JPEG were skipped")
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        if part is not None:
            arrays |= _load(part, name, form)
    image = {
        "size": list(form.size),
        "colour": form.colour,
        "resize": "bilinear (Pillow), not keeping the ratio",
        "values": "0..255",
    }
    origin = Origin(
        name=folder.resolve().name,
        about=f"images of {folder.resolve().name} (user data)",
        where=str(folder),
        preprocessing={"image": image},
        notes=(*shared, *notes),
        names={
            name: [str(file.relative_to(folder)) for file in part.paths] for name, part in parts.items() if part is not None
        },
    )
    return make_array_task(arrays, origin, reread=lambda: _load(splits.test, "test", form), problem=options.problem)


def _find(folder: Path, naming: Naming, *, one_class: bool) -> tuple[FolderSplits, tuple[str, ...]]:
    """The files of each split, and notes on groups in two of them."""
    if naming.pattern is None:
        return read_folder(folder, SUFFIXES, one_class=one_class), ()
    found = find_recordings(folder, SUFFIXES, naming, one_class=one_class)

    def part(split: str) -> LabelledFiles:
        mine = [one for one in found if one.split == split]
        return LabelledFiles(paths=tuple(one.path for one in mine), labels=tuple(one.label for one in mine))

    splits = FolderSplits(train=part("train"), val=part("val"), test=part("test"), passed_over=0)
    return splits, speaker_notes(found, naming.group) if naming.group else ()


def _choose_form(heads: Sequence[tuple[tuple[int, int], str]], options: ReadOptions, where: str) -> tuple[_Form, list[str]]:
    """Size and colour of all images, and notes on the choice."""
    sizes, modes = Counter(size for size, _ in heads), Counter(mode for _, mode in heads)
    notes = []
    size = options.image_size
    if size is None:
        common = next(iter(sizes))
        size = common if len(sizes) == 1 and max(common) <= _SMALL else _DEFAULT_SIZE
        if size is not common:
            smallest, largest = ("x".join(map(str, pick(sizes))) for pick in (min, max))
            had = smallest if smallest == largest else f"{smallest} to {largest}"
            notes.append(f"images of {had} are resized to {size[0]}x{size[1]}; choose with --image-size")
    colour = options.colour
    if colour is None:
        if len(modes) > 1:
            counts = " and ".join(f"{count:,} {mode}" for mode, count in sorted(modes.items()))
            raise RequestError(f"{where}: expected all images in grey or all in colour, got {counts}; set --colour grey or rgb")
        colour = next(iter(modes))
    return _Form(size=size, colour=colour), notes


def _read_head(file: Path) -> tuple[tuple[int, int], str]:
    """(height, width) and `grey` or `rgb` of a file, without decoding it."""
    with _opened(file) as image:
        if image.mode not in (*_GREY, *_COLOUR):
            raise RequestError(f"{file}: expected 8 bits per channel, got Pillow mode {image.mode}; convert it")
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations from 5 on swap the sides
        return ((width, height) if turned else (height, width)), "grey" if image.mode in _GREY else "rgb"


def _load(files: LabelledFiles, split: str, form: _Form) -> dict[str, NDArray[Any]]:
    """All images of a split, uint8, and their labels."""
    x = np.empty((len(files.paths), *form.shape), np.uint8)
    for index, file in enumerate(files.paths):
        x[index] = _decode(file, form)
    return {f"X_{split}": x, f"y_{split}": np.asarray(files.labels)}


def _decode(file: Path, form: _Form) -> NDArray[np.uint8]:
    from PIL import ImageOps
    from PIL.Image import Resampling

    with _opened(file) as image:
        upright = ImageOps.exif_transpose(image)
        converted = upright.convert("L" if form.colour == "grey" else "RGB")
        height, width = form.size
        pixels = np.asarray(converted.resize((width, height), Resampling.BILINEAR))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(file: Path) -> Iterator[Image]:
    """An image; any error from Pillow, decompression bombs included, is reported in one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd EXIF data, palettes with transparency
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                yield image
    except UnidentifiedImageError:
        raise RequestError(f"{file}: expected a PNG or JPEG image, got something else; remove it") from None
    except (*_BROKEN, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{file}: expected a readable image: {reason}; remove it") from None
