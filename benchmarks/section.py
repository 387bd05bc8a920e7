"""The part of a Markdown file that a benchmark writes, between its two comments."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parent / "README.md"
PROJECT_README = README.parent.parent / "README.md"


def replace_section(name: str, text: str, file: Path = README) -> None:
    """Put `text` between `<!-- NAME: written by … -->` and `<!-- end of NAME -->`."""
    before = file.read_text(encoding="utf-8")
    begin = before.index("-->", before.index(f"<!-- {name}: written by")) + len("-->")
    end = before.index(f"<!-- end of {name} -->")
    file.write_text(f"{before[:begin]}\n{text}\n{before[end:]}", encoding="utf-8")
