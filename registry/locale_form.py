"""The forms in which a requested locale is looked for, and the ground on which that is done."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..core.cldr_data import cldr_data
from ..core.likely import likely_script
from ..core.locale import Locale
from .distance import lsr
from .locale_index import NO_EXTRAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .locale_index import Extras, LocaleIndex
    from .policy import Policy


class Form:
    """A locale to look for, and what of it may be let go."""

    __slots__ = ("_written", "extras", "locale", "lsr")

    def __init__(self, locale: Locale, written: str) -> None:
        """Maximise a locale.

        Args:
            locale: in canonical form.
            written: the tag as it was written, in lower case and with hyphens.
        """
        self.locale = locale
        self.lsr = lsr(locale)
        self.extras: Extras = (locale.variants, locale.private)
        self._written = written

    @property
    def has_neighbours(self) -> bool:
        """Whether it names a language: private use alone doesn't, nor a pseudo-locale."""
        return self.lsr.language != "und" and self.lsr.script != ""

    def fewer_extras(self) -> list[Extras]:
        """Private use, then variants, less and less of them from the right; nothing at last.

        The right is that of the tag as it was written, and then of its canonical form: RFC 4647
        looks up sl-rozaj-biske, sl-rozaj, sl, and UTS #35 sorts variants.
        """
        variants, private = self.extras
        if not variants and not private:
            return []
        fewer: list[Extras] = [(variants, private[:end]) for end in reversed(range(len(private)))]
        places = {subtag: at for at, subtag in enumerate(self._written.split("-"))}
        written = sorted(variants, key=lambda variant: places.get(variant, len(places)))
        for end in reversed(range(len(variants))):
            fewer.append((tuple(sorted(written[:end])), ()))
            fewer.append((variants[:end], ()))
        return list(dict.fromkeys(fewer))

    def allowed_extras(self) -> list[Extras]:
        """What an adapter may have of variants and private use, the least first."""
        return (
            [NO_EXTRAS]
            if self.extras == NO_EXTRAS
            else [*reversed(self.fewer_extras()), self.extras]
        )

    def in_parents(self) -> Locale:
        """Language and region, and the script where it is not usual for both, as CLDR has it.

        zh-TW is zh-Hant-TW; sr-Cyrl-ME stays, as Cyrl is usual for the language but not there.
        """
        language, script, likely_region = self.lsr
        named = self.locale.region if self.locale.language == language else likely_region
        usual = {likely_script(language), likely_script(language, named)}
        return Locale(language, None if usual == {script} else script, named)


class Ground:
    """What resolution stands on: the published locales and how far to go from a request."""

    def __init__(
        self, index: LocaleIndex, policy: Policy, aliases: Mapping[Locale, Locale]
    ) -> None:
        """Arrange the aliases.

        Args:
            index: the published locales.
            policy: its own aliases are left aside.
            aliases: in canonical form.
        """
        self.index = index
        self.script_limit = policy.script_limit
        self.language_limit = policy.language_limit
        self.partners = policy.partners()
        # Most languages have no more parents than the tag without its region.
        self.with_parents = {tag.partition("-")[0] for tag in cldr_data("locales")["parents"]}
        self._aliases: dict[str, list[tuple[Locale, Locale]]] = defaultdict(list)
        # UTS #35, Annex C: the rule with the most subtags first.
        for old in sorted(aliases, key=_fewest_last):
            self._aliases[old.language].append((old, aliases[old]))

    def instead(self, locale: Locale) -> list[Locale]:
        """What a locale stands for by alias, and that in turn; no circles."""
        found = {locale: None}
        # Each applies once: {"de": "de-x-a"} would make its own result longer for ever.
        used: set[Locale] = set()
        while (alias := self._alias(locale, used)) is not None:
            used.add(alias[0])
            locale = _replaced(locale, *alias)
            if locale in found:
                break
            found[locale] = None
        return list(found)[1:]

    def _alias(self, locale: Locale, used: set[Locale]) -> tuple[Locale, Locale] | None:
        for alias in self._aliases.get(locale.language, ()):
            old = alias[0]
            if (
                old.script in {None, locale.script}
                and old.region in {None, locale.region}
                and set(old.variants) <= set(locale.variants)
                and old.private == locale.private[: len(old.private)]
                and old not in used
            ):
                return alias
        return None


def _replaced(locale: Locale, old: Locale, new: Locale) -> Locale:
    """The locale with what the alias says in place of what it is said of."""
    variants = {*locale.variants} - {*old.variants} | {*new.variants}
    return Locale(
        new.language,
        new.script or (locale.script if old.script is None else None),
        new.region or (locale.region if old.region is None else None),
        tuple(sorted(variants)),
        new.private + locale.private[len(old.private) :],
    )


def _fewest_last(locale: Locale) -> tuple[int, str]:
    subtags = (locale.script, locale.region, *locale.variants, *locale.private)
    return -sum(subtag is not None for subtag in subtags), str(locale)
