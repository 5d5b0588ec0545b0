"""The Accept-Language header (RFC 9110, section 12.5.4): which languages, and how much of each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .canonical import read_parts
from .errors import InvalidLocaleError
from .tags import short, split_tag

# No browser comes near these; they bound what a hostile header costs.
MAX_HEADER_LENGTH = 1024
MAX_HEADER_ENTRIES = 32

_ADVICE = "write it like de-AT, de;q=0.8, *;q=0.1"

# A weight has three digits at most (RFC 9110, section 12.4.2).
_WEIGHT = re.compile(r"[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptLanguage:
    """What a header asks for."""

    wanted: tuple[str, ...]
    """Well-formed tags as they were written, best first; equal weights keep their order."""

    weights: tuple[float, ...]
    """Of each of these, over 0 and up to 1."""

    excluded: tuple[str, ...] = ()
    """The tags of weight 0: not acceptable."""

    wildcard: float | None = None
    """The weight of `*`, any other language; None without one, and 0 excludes all others."""


def accept_language(header: str) -> AcceptLanguage:
    """Read a header; a tag that comes twice has the greater weight, and weight 0 outdoes both.

    Args:
        header: at most 1,024 characters and 32 entries. Empty entries are skipped.

    Raises:
        InvalidLocaleError: not a string, beyond these limits, no entry at all, an ill-formed
            weight, or an ill-formed tag.
    """
    weights: dict[str, float] = {}
    for entry in _entries(header):
        tag, weight = _entry(entry)
        known = weights.get(tag, weight)
        weights[tag] = min(known, weight) if 0.0 in {known, weight} else max(known, weight)
    if not weights:
        raise InvalidLocaleError(f"an Accept-Language header names no language; {_ADVICE}")
    wildcard = weights.pop("*", None)
    wanted = sorted((tag for tag in weights if weights[tag]), key=weights.__getitem__, reverse=True)
    return AcceptLanguage(
        wanted=tuple(wanted),
        weights=tuple(weights[tag] for tag in wanted),
        excluded=tuple(tag for tag in weights if not weights[tag]),
        wildcard=wildcard,
    )


def _entries(header: object) -> list[str]:
    """What stands between the commas, without the empty ones."""
    if not isinstance(header, str):
        got = type(header).__name__
        raise InvalidLocaleError(f"an Accept-Language header is a string, got {got}; {_ADVICE}")
    # Before anything else, so that a megabyte costs nothing.
    if len(header) > MAX_HEADER_LENGTH:
        problem = f"{len(header)} characters are more than {MAX_HEADER_LENGTH}"
        raise InvalidLocaleError(f"an Accept-Language header is too long: {problem}; shorten it")
    entries = header.count(",") + 1
    if entries > MAX_HEADER_ENTRIES:
        problem = f"{entries} entries are more than {MAX_HEADER_ENTRIES}"
        raise InvalidLocaleError(f"an Accept-Language header is too long: {problem}; shorten it")
    return [entry for entry in header.split(",") if entry.strip(" \t")]


def _entry(entry: str) -> tuple[str, float]:
    """A tag or `*`, and its weight."""
    tag, mark, parameter = entry.partition(";")
    tag = tag.strip(" \t")
    weight = 1.0
    if mark:
        written = _WEIGHT.fullmatch(parameter)
        if written is None:
            raise InvalidLocaleError(
                f"{short(parameter.strip())} is no weight of an Accept-Language header: "
                f"q=0 to q=1, three decimals at most; {_ADVICE}"
            )
        weight = float(written[1])
    if tag != "*":
        read_parts(tag, split_tag(tag))
    return tag, weight
