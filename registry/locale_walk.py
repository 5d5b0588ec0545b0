"""The steps from one requested locale to published ones, nearest first.

`LocaleResolver` in `resolution.py` is what others use.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..core.likely import likely_script
from ..core.locale import Locale, parent
from .distance import LSR, distance, language_rules, lsr, script_distance
from .locale_form import Form
from .locale_index import DEFAULT, NO_EXTRAS, Entry, spelling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .locale_form import Ground
    from .locale_index import Choice, Groups, Near

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

NO_RULE = 80
"""CLDR's distance between languages that it has no rule for."""

# CLDR's parents serve the texts of a user interface, so that hi-Latn inherits from en-IN and ht
# from fr-HT. A model of another language is of no use; these are the parents that are the same
# language (IANA macrolanguage).
_MACROLANGUAGES = {"nb": "no", "nn": "no"}

# A trace is for people: of what was refused for one reason the nearest are named.
_NAMED = 3


class Found(NamedTuple):
    """A published locale on the way."""

    entry: Entry
    stage: Stage
    distance: int | None
    script_changed: bool = False


class Walk:
    """The way of one request through the published locales."""

    def __init__(self, ground: Ground, choice: Choice) -> None:
        """Begin with an empty trace.

        Args:
            ground: what is published, and how far to go.
            choice: the published locales that may answer.
        """
        self.trace: list[str] = []
        """What was tried, in order, as far as the steps were taken."""

        self._ground = ground
        self._choice = choice

    def steps(self, tag: str) -> Iterator[Found]:
        """The published locales that answer, nearest first, each once; at most one for a step.

        Raises:
            InvalidLocaleError: the tag is not well formed.
        """
        all_, seen = self._choice, set[str]()
        for found in self._steps(tag):
            seen.add(found.entry.tag)
            self._choice = all_.without(seen)
            yield found

    def default(self) -> Iterator[Found]:
        """The adapter that answers where no other does, if there is one that has not yet."""
        entry = self._choice.first(self._ground.index.canonical.get(DEFAULT, ()))
        if entry is None:
            self.trace.append("no default (und) is published: the bare base is left")
        else:
            self.trace.append(_published("und", entry, "und") + ", the default")
            yield Found(entry, "default", None)

    def _steps(self, tag: str) -> Iterator[Found]:
        written, locale = spelling(tag)
        yield from self._exact(tag, written)
        yield from self._canonical(written, locale)
        lower = written.lower()
        aliases = self._ground.instead(locale)
        yield from self._aliased(locale, aliases)
        # What a locale was declared to be goes before what it is.
        forms = [Form(form, lower) for form in (*aliases, locale)]
        for step in (self._equivalent, self._fewer):
            for form in forms:
                yield from step(form)
        forms = [form for form in forms if form.has_neighbours]
        if not forms:
            self.trace.append(f"{locale} names no language that others could be near to")
        for step in (self._parents, self._regions, self._scripts, self._languages):
            for form in forms:
                yield from step(form)

    def _exact(self, tag: str, written: str) -> Iterator[Found]:
        entries = self._ground.index.written.get(written, ())
        same = [entry for entry in entries if entry.tag == tag]
        entry = self._choice.first(same) or self._choice.first(entries)
        if entry is None:
            self.trace.append(f"{written}: nothing published")
        else:
            self.trace.append(_published(written, entry))
            yield Found(entry, "exact", 0)

    def _canonical(self, written: str, locale: Locale) -> Iterator[Found]:
        entry = self._choice.first(self._ground.index.canonical.get(locale, ()))
        name = str(locale)
        step = name if name == written else f"canonical form of {written}, {name}"
        if entry is not None:
            self.trace.append(_published(step, entry, name))
            yield Found(entry, "alias", 0)
        elif name != written:
            self.trace.append(f"{step}: nothing published")

    def _aliased(self, locale: Locale, aliases: list[Locale]) -> Iterator[Found]:
        for instead in aliases:
            step, name = f"alias of {locale}, {instead}", str(instead)
            entry = self._choice.first(self._ground.index.canonical.get(instead, ()))
            if entry is None:
                self.trace.append(f"{step}: nothing published")
            else:
                self.trace.append(_published(step, entry, name))
                yield Found(entry, "alias", 0)
            locale = instead

    def _equivalent(self, form: Form) -> Iterator[Found]:
        full = "-".join(filter(None, form.lsr))
        entry = self._choice.first(self._ground.index.equivalent.get((form.lsr, form.extras), ()))
        if entry is not None:
            self.trace.append(_published(f"{form.locale} means {full}", entry, ""))
            yield Found(entry, "equivalent", 0)
        elif full != str(form.locale):
            self.trace.append(f"{form.locale} means {full}: not published in any spelling")

    def _fewer(self, form: Form) -> Iterator[Found]:
        index, full = self._ground.index, form.lsr
        # Private use alone, and pseudo-locales, are other languages with less behind them.
        same = full.language == form.locale.language
        groups = index.groups(full.language, full.script)
        for extras in form.fewer_extras():
            if same and (groups is None or extras not in groups):
                continue
            locale = replace(form.locale, variants=extras[0], private=extras[1])
            # That is the default, and has its own step.
            if locale == DEFAULT:
                return
            meaning = full if same else lsr(locale)
            entry = self._choice.first(index.canonical.get(locale, ())) or self._choice.first(
                index.equivalent.get((meaning, extras), ())
            )
            if entry is None:
                continue
            variant = extras[0] != form.locale.variants
            less = "fewer variants" if variant else "less private use"
            self.trace.append(_published(f"with {less}, {locale}", entry, str(locale)))
            yield Found(entry, "drop-variant" if variant else "drop-private", 0)
        if form.extras != NO_EXTRAS:
            self.trace.append(
                f"{form.locale} with fewer variants or less private use: nothing published"
            )

    def _parents(self, form: Form) -> Iterator[Found]:
        here = form.in_parents()
        if here.script is None and here.language not in self._ground.with_parents:
            return
        missed: list[str] = []
        while (above := parent(here)) is not None:
            if above.language not in (here.language, _MACROLANGUAGES.get(here.language)):
                self._missed_parents(missed)
                self.trace.append(f"CLDR parent {above} is another language: refused")
                return
            # The language alone is as near as its likely region, which the next step weighs; it
            # comes first only where CLDR goes on from it to another language.
            usual = above.script in {None, likely_script(above.language)}
            alone = usual and above.language == here.language and not above.region
            here = above = Locale(above.language) if alone else above
            if alone and parent(above) is None:
                break
            if lsr(above) == form.lsr:
                continue
            stage: Stage = "region" if alone else "parent"
            entry = self._named(form, above, whole=alone)
            if entry is None:
                missed.append(str(above))
                continue
            self._missed_parents(missed)
            missed = []
            self.trace.append(_published(f"CLDR parent {above}", entry, str(above)))
            yield Found(entry, stage, _total(form.lsr, entry.lsr))
        self._missed_parents(missed)

    def _missed_parents(self, missed: list[str]) -> None:
        if missed:
            several = "s" if len(missed) > 1 else ""
            self.trace.append(f"CLDR parent{several} {', '.join(missed)}: nothing published")

    def _named(self, form: Form, locale: Locale, *, whole: bool) -> Entry | None:
        """The entry of this language, script and region, or of the likely region with `whole`."""
        full = lsr(locale)
        groups = self._ground.index.groups(full.language, full.script)
        for extras in form.allowed_extras() if groups is not None else ():
            if groups is None or (group := groups.get(extras)) is None:
                continue
            entries = (
                group.regions.get(full.region, ())
                if whole
                else group.named.get(locale.region or "", ())
            )
            if (entry := self._choice.first(entries)) is not None:
                return entry
        return None

    def _regions(self, form: Form) -> Iterator[Found]:
        language, script, _ = form.lsr
        groups = self._ground.index.groups(language, script)
        if groups is None:
            self.trace.append(f"nothing in {language}-{script} is published")
            return
        found = self._nearest(form, [(groups, 0)], groups.likely_region)
        if found is not None:
            self.trace.append(
                f"nearest region in {language}-{script}: {found.entry.tag}, "
                f"distance {found.distance}"
            )
            yield Found(found.entry, "region", found.distance)

    def _scripts(self, form: Form) -> Iterator[Found]:
        language, script, _ = form.lsr
        near: list[tuple[Groups, int]] = []
        far: list[tuple[int, str]] = []
        for other, groups in self._ground.index.languages.get(language, {}).items():
            if other == script:
                continue
            rule = script_distance(form.lsr, LSR(language, other, ""))
            if rule <= self._ground.script_limit:
                near.append((groups, rule))
            else:
                far.append((rule, f"{language}-{other}"))
        self._too_far("another script", far, self._ground.script_limit)
        found = self._nearest(form, near)
        if found is not None:
            tag = found.entry.tag
            self.trace.append(
                f"script_changed: {tag} is in {found.entry.lsr.script}, not {script}, "
                f"distance {found.distance}"
            )
            yield Found(found.entry, "script", found.distance, script_changed=True)

    def _languages(self, form: Form) -> Iterator[Found]:
        wanted, script, _ = form.lsr
        published = self._ground.index.languages
        rules = {
            language: rule
            for language, rule in language_rules(wanted).items()
            if language in published
        }
        partners = self._ground.partners.get(wanted, ())
        for language in partners:
            if language in published:
                rules.setdefault(language, NO_RULE)
        if not rules:
            self.trace.append(f"CLDR has no rule from {wanted} to a language that is published")
            return
        near: list[tuple[Groups, int]] = []
        far: list[tuple[int, str]] = []
        elsewhere: list[str] = []
        for language, rule in rules.items():
            groups = published[language].get(script)
            if rule > self._ground.language_limit and language not in partners:
                far.append((rule, language))
            elif groups is None:
                elsewhere.append(language)
            else:
                near.append((groups, rule))
        if elsewhere:
            self.trace.append(f"{_some(sorted(elsewhere))}: not in {script}: refused")
        self._too_far("another language", far, self._ground.language_limit)
        found = self._nearest(form, near)
        if found is not None:
            self.trace.append(
                f"nearest other language: {found.entry.tag}, distance {found.distance}"
            )
            yield Found(found.entry, "language", found.distance)

    def _too_far(self, what: str, far: list[tuple[int, str]], limit: int) -> None:
        if far:
            rules = [f"{name} ({rule})" for rule, name in sorted(far)]
            self.trace.append(f"{what}, CLDR's rule over {limit}: {_some(rules)}: refused")

    def _nearest(
        self, form: Form, near: list[tuple[Groups, int]], likely_region: str | None = None
    ) -> Near | None:
        """The nearest of some languages or scripts, each with what it adds to the distance."""
        if not near:
            return None
        allowed = form.allowed_extras()
        if likely_region is None:
            likely_region = lsr(Locale(form.lsr.language, form.lsr.script)).region
        lacking: list[str] = []
        best: Near | None = None
        for groups, rule in near:
            others = (groups.sample(extras) for extras in groups if extras not in allowed)
            lacking += islice(others, _NAMED + 1)
            for extras in allowed:
                group = groups.get(extras)
                found = group and group.nearest(form.lsr, likely_region, self._choice)
                if found:
                    if rule:
                        found = found._replace(distance=found.distance + rule)
                    best = found if best is None or found < best else best
        if lacking:
            self.trace.append(
                f"{_some(lacking)}: variants or private use that {form.locale} lacks: refused"
            )
        return best


def _total(wanted: LSR, offered: LSR) -> int | None:
    found = distance(wanted, offered)
    return None if found is None else found.total


def _published(step: str, entry: Entry, name: str | None = None) -> str:
    spelled = "" if entry.tag == (step if name is None else name) else f" as {entry.tag}"
    return f"{step}: published{spelled}"


def _some(names: list[str]) -> str:
    """The first few of many."""
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
