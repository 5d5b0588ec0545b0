"""From the locale of a request to a published adapter, with the reason.

The request itself, then its parents in CLDR (UTS #35) until one of them is published. Nothing
else answers: an adapter of another dialect, or of someone else's private use, is never reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ..core.locale import Locale, cldr_version, parent, parse_locale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Stage = Literal[
    "exact",
    "alias",
    "equivalent",
    "drop-private",
    "drop-variant",
    "parent",
    "region",
    "script",
    "language",
    "default",
    "base",
]
"""How an adapter was found, from the closest stage to the furthest."""

_STAGES: tuple[Stage, ...] = get_args(Stage)

# Stages at which language, script and region stay those of the request.
_NO_DISTANCE: frozenset[Stage] = frozenset({"exact", "alias", "equivalent", "drop-private"})

# CLDR's parents serve the texts of a user interface, so that hi-Latn inherits from en-IN and ht
# from fr-HT. A model of another language is of no use; these are the parents that are the same
# language (IANA macrolanguage).
_MACROLANGUAGES = {"nb": "no", "nn": "no"}


@dataclass(frozen=True, kw_only=True)
class LocaleMatch:
    """What answers for a requested locale, and why."""

    requested: str
    """The locale, as it was requested."""

    locale: str | None
    """The tag, as it was published; None where only the bare base can answer."""

    stage: Stage
    """The furthest stage on the way; `base` where nothing was found."""

    distance: int | None
    """CLDR's distance: 0 for `exact`, `alias`, `equivalent` and `drop-private`; None: not
    computed."""

    trace: tuple[str, ...]
    """What was tried, in order, one sentence a step."""


class LocaleResolver:
    """Finds the published locale that answers for a request."""

    def __init__(self, tags: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
        """Index the published locales.

        Args:
            tags: the locales that have an adapter, in any spelling. An adapter published as `und`
                is the default. Of two spellings of one locale the first by code point answers.
            aliases: locales to be resolved instead, `{"bar": "de"}`: applied to the request and to
                its parents, where these are not published themselves.

        Raises:
            InvalidLocaleError: a tag, or one of an alias, is not a valid BCP 47 tag.
        """
        self._published: dict[Locale, str] = {}
        for tag in tags:
            locale = parse_locale(tag)
            self._published[locale] = min(tag, self._published.get(locale, tag))
        self._aliases = {
            parse_locale(tag): parse_locale(instead) for tag, instead in (aliases or {}).items()
        }

    def resolve(self, request: str) -> LocaleMatch:
        """Find what answers for a locale; the same request always gives the same answer.

        Args:
            request: a BCP 47 tag, in any case, with hyphens or underscores.

        Returns:
            The match; its `locale` is None where neither the locale, nor a parent, nor a default
            is published.

        Raises:
            InvalidLocaleError: the request is not a valid BCP 47 tag.
        """
        locale: Locale | None = parse_locale(request)
        stage: Stage = "exact"
        step = str(locale)
        trace: list[str] = []
        tried: set[Locale] = set()  # an alias may lead back to where it came from

        while locale is not None and locale not in tried:
            tag = self._published.get(locale)
            if tag is not None:
                trace.append(f"{step}: published" + (f" as {tag}" if tag != str(locale) else ""))
                return _match(request, tag, stage, trace)
            trace.append(f"{step}: nothing published")
            tried.add(locale)
            locale, taken, step = self._next(locale)
            stage = max(stage, taken, key=_STAGES.index)
        if step:
            trace.append(step if locale is None else f"{step}: tried before")

        default = self._published.get(Locale("und"))
        if default is not None:
            trace.append("und: published, the default")
            return _match(request, default, "default", trace)
        trace.append("no default (und) is published: the bare base is left")
        return _match(request, None, "base", trace)

    def _next(self, locale: Locale) -> tuple[Locale | None, Stage, str]:
        """The locale to try after this one, the stage of that step, and the step in words."""
        instead = self._aliases.get(locale)
        if instead is not None:
            return instead, "alias", f"alias of {locale} is {instead}"
        above = parent(locale)
        if above is None:
            return None, "base", ""
        if above.private != locale.private:
            return above, "drop-private", f"{locale} with less private use is {above}"
        if above.variants != locale.variants:
            return above, "drop-variant", f"{locale} with fewer variants is {above}"
        step = f"parent of {locale} is {above} (CLDR {cldr_version()})"
        if above.language not in (locale.language, _MACROLANGUAGES.get(locale.language)):
            return None, "base", f"{step}: another language, not followed"
        return above, "parent", step


def _match(request: str, tag: str | None, stage: Stage, trace: list[str]) -> LocaleMatch:
    return LocaleMatch(
        requested=request,
        locale=tag,
        stage=stage,
        distance=0 if stage in _NO_DISTANCE else None,
        trace=tuple(trace),
    )
