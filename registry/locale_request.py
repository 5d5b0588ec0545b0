"""What a request for a locale may be: a tag, a list of tags, or an Accept-Language header."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.accept_language import MAX_HEADER_ENTRIES, MAX_HEADER_LENGTH
from ..core.errors import InvalidLocaleError
from ..core.locale import accept_language, parse_locale, read_tag
from .locale_index import DEFAULT, NO_EXTRAS, Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.locale import Locale
    from .locale_index import Entry

_ADVICE = "give a BCP 47 tag, a list of them, or an Accept-Language header"


@dataclass(frozen=True, slots=True)
class LocaleRequest:
    """A request, taken apart."""

    wanted: tuple[str, ...]
    """Tags, the most wanted first; none where a header only excludes."""

    choice: Choice = field(default_factory=Choice)
    """The published locales that the header accepts."""

    excluded: tuple[str, ...] = ()
    """What the header gives the weight 0, as it was written."""


def request_key(request: str | Sequence[str]) -> str | tuple[str, ...]:
    """The request as something that can be looked up; nothing of it is read yet.

    Raises:
        InvalidLocaleError: neither a string nor a list of strings, empty, or too long.
    """
    if isinstance(request, str):
        if len(request) > MAX_HEADER_LENGTH:
            raise InvalidLocaleError(
                f"a request of {len(request)} characters is longer than {MAX_HEADER_LENGTH}; "
                f"{_ADVICE}"
            )
        return request
    if not isinstance(request, list | tuple):
        raise InvalidLocaleError(f"{type(request).__name__} is no request; {_ADVICE}")
    if not request:
        raise InvalidLocaleError(f"the list of locales is empty; {_ADVICE}")
    if len(request) > MAX_HEADER_ENTRIES:
        raise InvalidLocaleError(
            f"a list of {len(request)} locales is longer than {MAX_HEADER_ENTRIES}; shorten it"
        )
    for tag in request:
        if not isinstance(tag, str):
            raise InvalidLocaleError(f"a list with {type(tag).__name__} is no request; {_ADVICE}")
    return tuple(request)


def read_request(key: str | tuple[str, ...]) -> LocaleRequest:
    """Take a request apart.

    Args:
        key: what `request_key` gave. A string with a comma or a semicolon, and `*` alone, is a
            header.

    Raises:
        InvalidLocaleError: an ill-formed header, or an ill-formed tag in a list. A single tag is
            left to whoever resolves it.
    """
    if isinstance(key, tuple):
        for tag in key:
            read_tag(tag)
        return LocaleRequest(key)
    if "," not in key and ";" not in key and key.strip() != "*":
        return LocaleRequest((key,))
    header = accept_language(key)
    if not header.excluded and header.wildcard != 0:
        return LocaleRequest(header.wanted)
    return LocaleRequest(
        header.wanted,
        Choice(
            _refusal(
                [parse_locale(tag) for tag in header.wanted],
                [parse_locale(tag) for tag in header.excluded],
                others=header.wildcard != 0,
            )
        ),
        header.excluded + (("*",) if header.wildcard == 0 else ()),
    )


def _refusal(
    wanted: list[Locale], excluded: list[Locale], *, others: bool
) -> Callable[[Entry], bool]:
    """The locales that a header doesn't accept.

    The longest range that fits a locale decides (RFC 9110, section 12.5.4; RFC 4647, section
    3.3.1): `fr;q=0` excludes fr-CA too, unless that is wanted by name.

    Args:
        wanted: ranges of a weight over 0.
        excluded: ranges of weight 0.
        others: False where `*` has weight 0: only the languages that are named are accepted.
    """
    ranges = [(_subtags(locale), locale, True) for locale in wanted]
    ranges += [(_subtags(locale), locale, False) for locale in excluded]
    # The longest first, and of two that are as long the one that is wanted.
    ranges.sort(key=lambda one: (one[0], one[2]), reverse=True)
    named = {locale.language for locale in wanted}
    by_language: dict[str, list[tuple[Locale, bool]]] = {}
    # Entries without variants and private use need not be compared with ranges that have them.
    plain: dict[str, list[tuple[Locale, bool]]] = {}
    for _, locale, welcome in ranges:
        by_language.setdefault(locale.language, []).append((locale, welcome))
        if not locale.variants and not locale.private:
            plain.setdefault(locale.language, []).append((locale, welcome))

    def refuses(entry: Entry) -> bool:
        near = plain if entry.extras == NO_EXTRAS else by_language
        for range_, welcome in near.get(entry.locale.language, ()):
            if _fits(range_, entry):
                return not welcome
        return not (others or entry.locale == DEFAULT or entry.locale.language in named)

    return refuses


def _fits(range_: Locale, entry: Entry) -> bool:
    """Whether a locale is one of a range of the same language."""
    locale = entry.locale
    # A script is one that is written or one that is meant: zh-Hant fits zh-TW.
    return (
        (range_.region is None or range_.region == locale.region)
        and (range_.script is None or range_.script == entry.lsr.script)
        and set(range_.variants) <= set(locale.variants)
        and range_.private == locale.private[: len(range_.private)]
    )


def _subtags(locale: Locale) -> int:
    subtags = (locale.language, locale.script, locale.region, *locale.variants, *locale.private)
    return sum(subtag is not None for subtag in subtags)
