"""What has been counted is remembered, up to a limit: a search of 100,000 trials counts a million designs."""

from __future__ import annotations

from typing import Any


def forget_oldest(known: dict[Any, Any], most: int) -> None:
    """Make room in place for one more entry: of `most`, the half that was stored first is dropped."""
    if len(known) >= most:
        for key in list(known)[: len(known) - most // 2]:
            del known[key]
