"""What holds for every reader, whatever is in a file: it returns, or raises one of our errors with a message of one line.

By default each test tries the same few examples every time. `pytest tests/fuzz --hypothesis-profile=fuzz` tries thousands of
others.
"""

import contextlib
import copy
import math
import signal
import struct
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dendrite_automl.errors import AutoMLError
from dendrite_automl.plain import is_plain

_MORE = 40  # times as many examples in the profile `fuzz`
_SECONDS = 60  # of CPU time: what takes longer hangs
NASTY = (
    '<script>document.title="ran"</script>',
    '"><img src=x onerror=document.title="ran">',
    "javascript:alert(1)",
    '=HYPERLINK("http://example.org")',
    "+1+1",
    "-1",
    "@SUM(1)",
    "../../etc",
    "a/b\\c",
    "*/ int x; /*",
    "??/",
    "\\",
    "`|` [x](http://example.org) *b* _i_",
    "{{ 7 * 7 }} {% raw %}",
    "%s%n$",
    "',\"",
    "grün 日本",
    "a" * 300,
)  # names that can be printed
UNPRINTABLE = ("line\nbreak", "\r=1+1", "nul\0x", "\x1b[31mred", "\u202egnp.exe", "\u2066x\u2069", "\ud800", "tab\t", "\u2028x")


def examples(count: int) -> settings:
    """Settings for a test: this many fixed examples, or far more random ones in the profile `fuzz`."""
    is_long = settings.get_current_profile_name() == "fuzz"
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=count * _MORE if is_long else count,
        derandomize=not is_long,
        deadline=None,
        database=None,
        suppress_health_check=checks,
    )


def read(reader: Callable[..., Any], *arguments: Any) -> Any:
    """What a reader returns; its error if it refuses."""
    with _within_seconds():
        try:
            return reader(*arguments)
        except AutoMLError as error:
            found = error
    assert str(found), repr(found)
    assert is_plain(str(found)), repr(found)
    return found


@contextlib.contextmanager
def _within_seconds() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {_SECONDS} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


_WHOLE = (("H", 0xFFFF), ("I", 0xFFFFFFFF), ("I", 0), ("I", 0x7FFFFFFF), ("Q", 2**63), ("Q", 2**40))
_LIES = [struct.pack(end + size, value) for end in "<>" for size, value in (*_WHOLE, ("d", math.nan), ("d", 1e308))]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, *, most: int = 4) -> bytes:
    """A file with some bytes changed, replaced by numbers at the ends of their ranges, doubled or cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        size = len(found)
        # most of what a reader believes stands at the beginning or at the end
        at = draw(st.one_of(st.integers(0, min(size, 128)), st.integers(max(0, size - 256), size), st.integers(0, size)))
        kind = draw(st.sampled_from(("flip", "byte", "lie", "cut", "drop", "double", "insert")))
        if kind == "flip" and at < size:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and at < size:
            found[at] = draw(st.integers(0, 255))
        elif kind == "lie":
            lie = draw(st.sampled_from(_LIES))
            found[at : at + len(lie)] = lie
        elif kind == "cut":
            del found[at:]
        elif kind == "drop":
            del found[at : at + draw(st.integers(1, 64))]
        elif kind == "double":
            found[at:at] = found[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            found[at:at] = draw(st.binary(max_size=16))
    return bytes(found)


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400]),
    st.sampled_from([0.5, -1.5, 1e308, -0.0, math.nan, math.inf, -math.inf]),
    st.sampled_from(["", "x", "1", *NASTY, *UNPRINTABLE]),
    st.sampled_from([[], {}, [None], [[]], [1, 2], ["x"], {"x": 1}, [0.5, "x"], {"x": {"y": []}}]),
)


@st.composite
def changed(draw: st.DrawFn, value: Any, *, most: int = 2) -> Any:
    """A JSON value with some of its parts replaced by others, of other types, or removed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from([()] + list(_places(value)))) if isinstance(value, dict | list) else ()
        if not place:
            value = copy.deepcopy(draw(STRANGE)) if draw(st.integers(0, 9)) == 0 else value
            continue
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        how = draw(st.sampled_from(("replace", "replace", "remove", "rename")))
        if how == "replace":
            inner[place[-1]] = copy.deepcopy(draw(STRANGE))  # changed further below
        else:
            found = inner.pop(place[-1])
            if how == "rename" and isinstance(inner, dict):
                inner[draw(st.sampled_from(["x", *NASTY, *UNPRINTABLE]))] = found
    return value


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:20]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from _places(inner, (*before, key))
