"""Whole tags in canonical form, extensions included (UTS #35, Annex C, "Processing LocaleIds")."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .canonical import canonicalise, read_parts
from .cldr_data import cldr_data
from .tags import Locale, read_identifier, split_tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The keywords whose value is a region or one of its parts.
_SUBDIVISION_KEYS = {"rg", "sd"}


def canonical_tag(tag: str) -> str:
    """The canonical spelling of a tag: of the locale as `parse_locale` has it, and its extensions.

    Extensions stand in the order of their singletons, the attributes and keywords of `-u-` and the
    fields of `-t-` in theirs; of a repeated key the first counts; a value `true` is left out; the
    subdivisions of `rg` and `sd` and the language of `-t-` are replaced by their aliases. Other
    values are kept: CLDR's core data has no aliases for them.

    Raises:
        InvalidLocaleError: not a string, or not well formed.
    """
    parts = split_tag(tag)
    locale = canonicalise(read_parts(tag, parts))
    if not parts.extensions:
        return str(locale)
    canonical = [str(Locale(locale.language, locale.script, locale.region, locale.variants))]
    for singleton, *subtags in sorted(parts.extensions):
        canonical.append(singleton)
        if singleton == "u":
            canonical += _keywords(subtags)
        elif singleton == "t":
            canonical += _transform(tag, subtags)
        else:
            canonical += subtags
    if locale.private:
        canonical += ["x", *locale.private]
    return "-".join(canonical)


def _keywords(subtags: Sequence[str]) -> list[str]:
    """Attributes (3 to 8 characters), then keywords: a key of two characters and its value."""
    attributes, keywords = _fields(subtags, [len(subtag) == 2 for subtag in subtags])
    canonical = sorted(set(attributes))
    for key, value in sorted(keywords.items()):
        canonical.append(key)
        if key in _SUBDIVISION_KEYS and len(value) == 1:
            canonical.append(_subdivisions().get(value[0], value[0]))
        elif value != ["true"]:
            canonical += value
    return canonical


def _transform(tag: str, subtags: Sequence[str]) -> list[str]:
    """The language that a text was made from, then fields: a letter and a digit, and a value."""
    starts = [len(subtag) == 2 and subtag[1].isdigit() for subtag in subtags]
    source, fields = _fields(subtags, starts)
    canonical: list[str] = []
    if source:
        locale = canonicalise(read_identifier(tag, tuple(source)))
        canonical += str(locale).lower().split("-")
    for key, value in sorted(fields.items()):
        canonical += [key, *value]
    return canonical


def _fields(
    subtags: Sequence[str], starts: Sequence[bool]
) -> tuple[list[str], dict[str, list[str]]]:
    """What stands before the first key, and the values by key; of a repeated key the first."""
    before: list[str] = []
    fields: dict[str, list[str]] = {}
    values = before
    for subtag, is_key in zip(subtags, starts, strict=True):
        if is_key:
            values = []
            fields.setdefault(subtag, values)
        else:
            values.append(subtag)
    return before, fields


@cache
def _subdivisions() -> Mapping[str, str]:
    """By the code of a subdivision its first replacement; a whole region is filled up with z."""
    aliases = cldr_data("locales")["subdivision_aliases"]
    first = {old: new.split()[0].lower() for old, new in aliases.items()}
    return {old: f"{new}zzzz" if len(new) == 2 else new for old, new in first.items()}
