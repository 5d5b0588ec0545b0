"""The canonical form of a locale: aliases replaced as UTS #35, Annex C, has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from .cldr_data import cldr_data
from .likely import maximise
from .tags import Locale, read_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .tags import TagParts


def canonicalise(locale: Locale) -> Locale:
    """Replace what CLDR calls deprecated, overlong, legacy or a macrolanguage's default.

    `iw` is `he`, `arb` is `ar`, `sh` is `sr-Latn`, `hy-arevmda` is `hyw`, `UK` is `GB`, `SU` is
    the one of its successors where the language is likely spoken. Private use is kept. The
    result is its own canonical form.
    """
    rules = _alias_rules()
    rule = _first_match(locale, rules)
    while rule is not None:
        locale = _replaced(locale, rule)
        rule = _first_match(locale, rules)
    return locale


def read_parts(tag: str, parts: TagParts) -> Locale:
    """The locale of a tag that was taken apart, aliases as they are.

    Tags whose whole shape is legacy come in canonical form: those that RFC 5646 grandfathers
    (`i-klingon`, `zh-min-nan`) and extended languages, which take the place of their prefix
    (`zh-yue` is `yue`).

    Raises:
        InvalidLocaleError: language, script, region or variants are not well formed.
    """
    legacy = _legacy()
    subtags = parts.identifier
    instead = legacy.tags.get("-".join(subtags))
    if instead is not None:
        return replace(instead, private=instead.private + parts.private)
    if len(subtags) > 1 and subtags[1] in legacy.extlangs.get(subtags[0], ()):
        return canonicalise(read_identifier(tag, subtags[1:], parts.private))
    return read_identifier(tag, subtags, parts.private)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One alias: where a locale has everything of `type`, that gives way to the replacement."""

    rank: tuple[object, ...]
    type: Locale
    replacements: tuple[Locale, ...]  # the first is the default; only regions have more


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules by the first subtag of their type, so that few are looked at."""

    by_language: Mapping[str, tuple[_Rule, ...]]
    by_script: Mapping[str, tuple[_Rule, ...]]
    by_region: Mapping[str, tuple[_Rule, ...]]
    by_variant: Mapping[str, tuple[_Rule, ...]]


@cache
def _alias_rules() -> _Rules:
    data = cldr_data("locales")
    rules = [_rule(tag, instead) for tag, instead in data["language_aliases"].items()]
    for name in ("script_aliases", "region_aliases", "variant_aliases"):
        for subtag, instead in data[name].items():
            words = (f"und-{word}" for word in instead.split())
            rules.append(_rule(f"und-{subtag}", " ".join(words)))
    rules.sort(key=lambda rule: rule.rank)
    languages: dict[str, tuple[_Rule, ...]] = {}
    scripts: dict[str, tuple[_Rule, ...]] = {}
    regions: dict[str, tuple[_Rule, ...]] = {}
    variants: dict[str, tuple[_Rule, ...]] = {}
    for rule in rules:
        old = rule.type
        if old.language != "und":
            languages[old.language] = (*languages.get(old.language, ()), rule)
        elif old.script is not None:
            scripts[old.script] = (*scripts.get(old.script, ()), rule)
        elif old.region is not None:
            regions[old.region] = (*regions.get(old.region, ()), rule)
        else:
            variants[old.variants[0]] = (*variants.get(old.variants[0], ()), rule)
    return _Rules(languages, scripts, regions, variants)


def _rule(tag: str, replacements: str) -> _Rule:
    old = _read(tag)
    language = () if old.language == "und" else (old.language,)
    script = () if old.script is None else (old.script,)
    region = () if old.region is None else (old.region,)
    fields = (language, script, region, old.variants)
    # Annex C, preprocessing, 5: more subtags first, then language before script before region
    # before variants, then the subtags themselves.
    present = tuple(not field for field in fields)
    rank = (-sum(len(field) for field in fields), present, fields)
    return _Rule(rank, old, tuple(_read(word) for word in replacements.split()))


def _read(tag: str) -> Locale:
    """A locale of the data, written as this module reads it: no extlang, no extension."""
    before, _, private = tag.lower().partition("-x-")
    return read_identifier(
        tag, tuple(before.split("-")), tuple(private.split("-")) if private else ()
    )


def _first_match(locale: Locale, rules: _Rules) -> _Rule | None:
    """The rule that applies first, by rank; None for a locale in canonical form."""
    best: _Rule | None = None
    if (found := rules.by_language.get(locale.language)) is not None:
        best = _preferred(locale, found, best)
    if locale.script is not None and (found := rules.by_script.get(locale.script)) is not None:
        best = _preferred(locale, found, best)
    if locale.region is not None and (found := rules.by_region.get(locale.region)) is not None:
        best = _preferred(locale, found, best)
    for variant in locale.variants:
        if (found := rules.by_variant.get(variant)) is not None:
            best = _preferred(locale, found, best)
    return best


def _preferred(locale: Locale, rules: Iterable[_Rule], best: _Rule | None) -> _Rule | None:
    for rule in rules:  # by rank
        if _matches(locale, rule.type):
            return rule if best is None or rule.rank < best.rank else best
    return best


def _matches(locale: Locale, old: Locale) -> bool:
    return (
        old.language in {"und", locale.language}
        and old.script in {None, locale.script}
        and old.region in {None, locale.region}
        and set(old.variants) <= set(locale.variants)
    )


def _replaced(locale: Locale, rule: _Rule) -> Locale:
    old, new = rule.type, _choice(locale, rule.replacements)
    language = locale.language
    # A type of no language never brings one, and one that names a language always does.
    if old.language != "und":
        language = new.language
    script = new.script if old.script is not None or locale.script is None else locale.script
    region = new.region if old.region is not None or locale.region is None else locale.region
    kept = set(locale.variants) - set(old.variants)
    added = new.variants if old.variants or not locale.variants else ()
    return Locale(language, script, region, tuple(sorted(kept.union(added))), locale.private)


def _choice(locale: Locale, replacements: tuple[Locale, ...]) -> Locale:
    """Of several regions the likely one of language and script (Annex C, "Territory Exception")."""
    if len(replacements) > 1:
        region = maximise(Locale(locale.language, locale.script)).region
        for replacement in replacements:
            if replacement.region == region:
                return replacement
    return replacements[0]


@dataclass(frozen=True, slots=True)
class _Legacy:
    """Whole tags, and extended languages by their prefix."""

    tags: Mapping[str, Locale]
    extlangs: Mapping[str, frozenset[str]]


@cache
def _legacy() -> _Legacy:
    data = cldr_data("locales")
    return _Legacy(
        {tag: canonicalise(_read(instead)) for tag, instead in data["legacy_tags"].items()},
        {prefix: frozenset(words.split()) for prefix, words in data["extlangs"].items()},
    )
