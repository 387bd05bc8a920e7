"""File names that tell the class or the speaker: patterns such as `{label}_{speaker}_{index}.wav`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from dendrite_automl.errors import RequestError

LABEL = "label"
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SUFFIX = re.compile(r"\.(wav|flac|ogg|mp3|png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePattern:
    """A file name in which fields stand between literal texts.

    Attributes:
        text: the pattern as it was typed.
        fields: names of the fields, in order.
        literals: the texts before, between and after them: one more than fields.
        suffix: the suffix that the pattern ends with, lower case; empty: any.
    """

    text: str
    fields: tuple[str, ...]
    literals: tuple[str, ...]
    suffix: str

    @classmethod
    def parse(cls, text: str, flag: str) -> NamePattern:
        """Read a pattern.

        Raises:
            RequestError: no field, one twice, two without text between them, other braces, or a path separator.
        """
        tail = _SUFFIX.fullmatch(PurePath(text).suffix)
        suffix = tail[0] if tail else ""
        parts = _FIELD.split(text.removesuffix(suffix))
        fields, literals = tuple(parts[1::2]), tuple(parts[::2])
        if not fields or len(set(fields)) < len(fields) or not all(literals[1:-1]) or re.search(r"[{}/\\]", "".join(literals)):
            raise RequestError(
                f"{flag}: expected a file name with different {{fields}} and text between them, such as "
                f'"{{speaker}}_{{index}}", got "{text}"'
            )
        return cls(text=text, fields=fields, literals=literals, suffix=suffix.lower())

    def match(self, name: str) -> dict[str, str] | None:
        """The fields of a file name, its suffix left out, or None if it has another form.

        Each field has one or more characters, and no more than it must: the text after it is looked for from the left. As
        fields take any character, going back would find nothing more.
        """
        path = PurePath(name)
        return self._match(path.stem) if self.suffix in ("", path.suffix.lower()) else None

    def _match(self, stem: str) -> dict[str, str] | None:
        last = self.literals[-1]
        if not (stem.startswith(self.literals[0]) and stem.endswith(last)):
            return None
        values = []
        at, end = len(self.literals[0]), len(stem) - len(last)
        for literal in self.literals[1:-1]:
            found = stem.find(literal, at + 1, end)
            if found < 0:
                return None
            values.append(stem[at:found])
            at = found + len(literal)
        return dict(zip(self.fields, (*values, stem[at:end]), strict=True)) if at < end else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What file names tell.

    Attributes:
        pattern: of every file name; None: names tell nothing.
        has_label: the class is the field `label`, and the files are not in class folders.
        group: the field that must not be in two splits; None: no such field.
    """

    pattern: NamePattern | None = None
    has_label: bool = False
    group: str | None = None

    @classmethod
    def make(cls, label_pattern: str | None, groups: str | None) -> Naming:
        """From the options `--label-pattern` and `--groups`.

        Raises:
            RequestError: a pattern of another form, or groups by a field that it does not have.
        """
        if label_pattern is None:
            return cls._of_class_folders(groups)
        pattern = NamePattern.parse(label_pattern, "--label-pattern")
        if LABEL not in pattern.fields:
            raise RequestError(f'--label-pattern: expected a field {{{LABEL}}}, the class, got "{label_pattern}"')
        others = [name for name in pattern.fields if name != LABEL]
        if groups is not None and groups not in others:
            choice = f"one of {', '.join(others)}" if others else f"a field besides {{{LABEL}}} in --label-pattern"
            raise RequestError(f'--groups: expected {choice}, got "{groups}"')
        return cls(pattern=pattern, has_label=True, group=groups)

    @classmethod
    def _of_class_folders(cls, groups: str | None) -> Naming:
        if groups is None:
            return cls()
        if "{" not in groups:
            raise RequestError(
                f'--groups: expected a pattern such as "{{speaker}}_{{index}}" for files in class folders, got "{groups}"; '
                "for files directly in one folder add --label-pattern"
            )
        pattern = NamePattern.parse(groups, "--groups")
        return cls(pattern=pattern, group=pattern.fields[0])

    def read(self, names: Sequence[str], where: str) -> list[dict[str, str]]:
        """The fields of each name; none if there is no pattern.

        Raises:
            RequestError: names that do not match; the message has the first one and their number.
        """
        if self.pattern is None:
            return [{} for _ in names]
        found = [(name, self.pattern.match(name)) for name in names]
        strangers = [name for name, fields in found if fields is None]
        if strangers:
            flag = "--label-pattern" if self.has_label else "--groups"
            raise RequestError(
                f'{where}: expected file names like {flag} "{self.pattern.text}", got {len(strangers):,} others of '
                f"{len(names):,}, the first {strangers[0]!r}; rename or remove them, or change the pattern"
            )
        return [fields for _, fields in found if fields is not None]
