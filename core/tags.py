"""The syntax of locale tags: what BCP 47 (RFC 5646) and UTS #35 both call well formed.

Nothing here looks a subtag up; `locale.py` does, and is what other packages import.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidLocaleError

# RFC 5646 sets no limit. No real tag comes near these, and they bound what a hostile one costs.
MAX_TAG_LENGTH = 255
MAX_SUBTAGS = 32

_ADVICE = "write a BCP 47 tag such as es-MX or gsw-CH"


@dataclass(frozen=True, slots=True)
class Locale:
    """One locale, case and order of its subtags as UTS #35 has them; `str()` gives its tag."""

    language: str
    """Lower case: `es`, `gsw`; `und` where the tag names none."""

    script: str | None = None
    """Title case, ISO 15924: `Hant`."""

    region: str | None = None
    """Upper case ISO 3166 or three digits of UN M.49: `MX`, `419`."""

    variants: tuple[str, ...] = ()
    """Lower case, sorted: `1996`."""

    private: tuple[str, ...] = ()
    """What stands behind `x`, lower case, in the order given: `bernese`."""

    def __str__(self) -> str:
        subtags = [self.language]
        if self.script is not None:
            subtags.append(self.script)
        if self.region is not None:
            subtags.append(self.region)
        subtags += self.variants
        if self.private:
            # `x-other` alone is a tag of its own (RFC 5646, section 2.1).
            subtags = [] if subtags == ["und"] else subtags
            subtags += ["x", *self.private]
        return "-".join(subtags)


@dataclass(frozen=True, slots=True)
class TagParts:
    """A tag taken apart, every subtag in lower case."""

    identifier: tuple[str, ...]
    """What stands before the extensions: language, script, region, variants, or a legacy tag."""

    extensions: tuple[tuple[str, ...], ...]
    """In the order given, each with its singleton in front: `("u", "ca", "buddhist")`."""

    private: tuple[str, ...]
    """What stands behind `x`."""


def split_tag(tag: object) -> TagParts:
    """Take a tag apart, with hyphens or underscores.

    Raises:
        InvalidLocaleError: not a string, too long, a subtag that is not 1 to 8 ASCII letters and
            digits, an extension that is empty or comes twice, or nothing behind `x`.
    """
    if not isinstance(tag, str):
        raise InvalidLocaleError(f"a locale is a string, got {type(tag).__name__}; {_ADVICE}")
    if not tag:
        raise InvalidLocaleError(f"a locale can't be empty; {_ADVICE}")
    if len(tag) > MAX_TAG_LENGTH:
        raise invalid_tag(tag, f"{len(tag)} characters are more than {MAX_TAG_LENGTH}")
    subtags = tag.replace("_", "-").split("-")
    if len(subtags) > MAX_SUBTAGS:
        raise invalid_tag(tag, f"{len(subtags)} subtags are more than {MAX_SUBTAGS}")
    for subtag in subtags:
        if not (1 <= len(subtag) <= 8 and subtag.isascii() and subtag.isalnum()):
            raise invalid_tag(tag, f"{short(subtag)} is not 1 to 8 letters a-z and digits")
    # Only now: lower() makes an ASCII k of the Kelvin sign.
    subtags = [subtag.lower() for subtag in subtags]
    before, private = _cut_private(tag, subtags)
    identifier, extensions = _cut_extensions(tag, before)
    return TagParts(identifier, extensions, private)


def read_identifier(tag: str, subtags: tuple[str, ...], private: tuple[str, ...] = ()) -> Locale:
    """The locale that lower-case subtags say, position and shape deciding which is which.

    Args:
        tag: the whole tag, for the error.
        subtags: language, script, region, variants; an extended language is none of them.
        private: what stands behind `x` in the tag.

    Raises:
        InvalidLocaleError: a subtag of another shape, in the wrong place, or twice.
    """
    if not subtags or subtags == ("root",):  # the root of CLDR, a Unicode identifier too
        return Locale("und", private=private)
    language, *rest = subtags
    if not (language.isalpha() and len(language) in {2, 3, 5, 6, 7, 8}):
        raise invalid_tag(tag, f"{language!r} is no language: 2, 3 or 5 to 8 letters")
    script = rest.pop(0).title() if rest and _is_script(rest[0]) else None
    region = rest.pop(0).upper() if rest and _is_region(rest[0]) else None
    for subtag in rest:
        if not _is_variant(subtag):
            raise invalid_tag(tag, _misfit(subtag, language))
    if len(set(rest)) < len(rest):
        raise invalid_tag(tag, "a variant comes twice")
    return Locale(language, script, region, tuple(sorted(rest)), private)


def invalid_tag(tag: str, problem: str) -> InvalidLocaleError:
    """The error for a tag, in one line whatever the tag."""
    return InvalidLocaleError(f"{short(tag)} is no locale: {problem}; {_ADVICE}")


def short(text: str) -> str:
    """The text in quotes, on one line (repr escapes line breaks), however long it is."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _cut_private(tag: str, subtags: list[str]) -> tuple[list[str], tuple[str, ...]]:
    if "x" not in subtags:
        return subtags, ()
    at = subtags.index("x")
    private = tuple(subtags[at + 1 :])
    if not private:
        raise invalid_tag(tag, "nothing stands behind 'x'")
    return subtags[:at], private


def _cut_extensions(
    tag: str, subtags: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Extensions are a singleton and one or more subtags each (RFC 5646, section 2.2.6)."""
    # A tag can't begin with one, except that legacy tags do: i-klingon.
    starts = [at for at, subtag in enumerate(subtags) if at and len(subtag) == 1]
    if not starts:
        return tuple(subtags), ()
    extensions = [
        tuple(subtags[start:end])
        for start, end in zip(starts, [*starts[1:], len(subtags)], strict=True)
    ]
    for extension in extensions:
        if len(extension) == 1:
            raise invalid_tag(tag, f"nothing stands behind {extension[0]!r}")
    if len({extension[0] for extension in extensions}) < len(extensions):
        raise invalid_tag(tag, "an extension comes twice")
    return tuple(subtags[: starts[0]]), tuple(extensions)


def _is_script(subtag: str) -> bool:
    return len(subtag) == 4 and subtag.isalpha()


def _is_region(subtag: str) -> bool:
    return subtag.isalpha() if len(subtag) == 2 else len(subtag) == 3 and subtag.isdigit()


def _is_variant(subtag: str) -> bool:
    return len(subtag) >= 5 or (len(subtag) == 4 and subtag[0].isdigit())


def _misfit(subtag: str, language: str) -> str:
    """Why a subtag that is no variant can't stand where it does."""
    if _is_script(subtag) or _is_region(subtag):
        return f"{subtag!r} stands in the wrong place"
    if len(subtag) == 3 and subtag.isalpha():
        return f"{subtag!r} is no extended language of {language!r}"
    return f"{subtag!r} has the shape of no subtag"
