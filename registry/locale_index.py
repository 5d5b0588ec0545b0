"""The published locales, arranged so that what can't answer is never looked at.

By language, script, and cluster of regions: CLDR's distance is the same for a whole cluster, so
that finding the nearest of 10,000 takes as many steps as there are clusters, about a dozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import InputError
from ..core.locale import Locale, canonicalise, read_tag
from ..core.tags import split_tag
from .distance import LSR, is_paradigm, lsr, region_cluster, region_row

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

# What a locale says beyond language, script and region: its variants and its private use.
Extras = tuple[tuple[str, ...], tuple[str, ...]]

NO_EXTRAS: Extras = ((), ())
MAX_LOCALES = 100_000
"""The most locales to choose from; there are about 8,000 languages, and so many take seconds."""

DEFAULT = Locale("und")
"""An adapter published under this locale answers where no other does."""


class Entry(NamedTuple):
    """One published locale."""

    # (not a paradigm locale, explicit subtags, tag): how equals are ordered, the request apart.
    order: tuple[bool, int, str]
    tag: str  # as it was published
    locale: Locale  # canonical
    lsr: LSR

    @property
    def extras(self) -> Extras:
        """Its variants and its private use."""
        return (self.locale.variants, self.locale.private)


class Near(NamedTuple):
    """An entry as a candidate; the least one answers."""

    distance: int
    # (not a paradigm locale, not the likely region, explicit subtags, tag)
    order: tuple[bool, bool, int, str]
    entry: Entry


class Spelling(NamedTuple):
    """A tag as it was written, and what it means."""

    tag: str
    """Case, separators and extensions apart as it was written: a legacy tag is not replaced."""

    locale: Locale
    """Its canonical form."""


def spelling(tag: str) -> Spelling:
    """Read a tag.

    Raises:
        InvalidLocaleError: it is not well formed.
    """
    read = read_tag(tag)
    written = str(read)
    if tag.lower().replace("_", "-") != written.lower():
        parts = split_tag(tag)
        identifier = "-".join(parts.identifier)
        # What was left out may be extensions alone.
        if identifier not in {"", str(replace(read, private=())).lower()}:
            written = "-".join([identifier, *(["x", *parts.private] if parts.private else [])])
    return Spelling(written, canonicalise(read))


class Choice:
    """Which entries may answer."""

    __slots__ = ("_known", "_refused")

    def __init__(self, refused: Callable[[Entry], bool] | None = None) -> None:
        """Let all answer, or all but those that are refused."""
        self._refused = refused
        # By identity, and kept so that it stays theirs: the wishes of one header share a choice,
        # and each may come to the same entries, which it may refuse one by one.
        self._known: dict[int, tuple[Sequence[Entry], Entry | None]] = {}

    def first(self, entries: Sequence[Entry]) -> Entry | None:
        """The best of entries that are in order."""
        refused = self._refused
        if refused is None:
            return entries[0] if entries else None
        known = self._known.get(id(entries))
        if known is None:
            best = next((entry for entry in entries if not refused(entry)), None)
            known = self._known[id(entries)] = (entries, best)
        return known[1]

    def without(self, tags: Collection[str]) -> Choice:
        """The same, but for the entries of these tags."""
        refused = self._refused
        return Choice(lambda entry: entry.tag in tags or (refused is not None and refused(entry)))


@dataclass(frozen=True, slots=True)
class Group:
    """The entries of one language in one script that have the same extras."""

    language: str
    script: str
    # Each list in order.
    regions: dict[str, list[Entry]] = field(default_factory=dict)
    # By the region that the tag names, "" where it names none.
    named: dict[str, list[Entry]] = field(default_factory=dict)
    clusters: dict[int, list[Entry]] = field(default_factory=dict)

    def nearest(self, wanted: LSR, likely_region: str, choice: Choice) -> Near | None:
        """The entry whose region is nearest.

        Args:
            wanted: the request, maximised.
            likely_region: of the request's language and script; wins among equals.
            choice: the entries that may answer.
        """
        row = region_row(wanted, self.language, self.script)
        best: Near | None = None
        for cluster, entries in self.clusters.items():
            best = _nearer(best, row[cluster], choice.first(entries), likely_region)
        usual = choice.first(self.regions.get(likely_region, ()))
        best = _nearer(best, row[region_cluster(likely_region)], usual, likely_region)
        same = choice.first(self.regions.get(wanted.region, ()))
        return _nearer(best, 0, same, likely_region)


class Groups:
    """The entries of one language in one script, by their extras."""

    def __init__(self, language: str, script: str) -> None:
        """Begin without any."""
        self.likely_region = lsr(Locale(language, script)).region
        """The region that this language is likely of in this script."""

        self._language = language
        self._script = script
        self._entries: dict[Extras, list[Entry]] = {}
        # Made when they are asked for, as private use may make them many; twice at worst.
        self._groups: dict[Extras, Group] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry, in order."""
        self._entries.setdefault(entry.extras, []).append(entry)

    def __contains__(self, extras: Extras) -> bool:
        """Whether any entry has these extras."""
        return extras in self._entries

    def __iter__(self) -> Iterator[Extras]:
        """The extras that there are."""
        return iter(self._entries)

    def sample(self, extras: Extras) -> str:
        """One of the tags with these extras, for people."""
        return self._entries[extras][0].tag

    def get(self, extras: Extras) -> Group | None:
        """The entries with these extras."""
        group = self._groups.get(extras)
        if group is None and extras in self._entries:
            group = Group(self._language, self._script)
            for entry in self._entries[extras]:
                region = entry.lsr.region
                group.regions.setdefault(region, []).append(entry)
                group.named.setdefault(entry.locale.region or "", []).append(entry)
                group.clusters.setdefault(region_cluster(region), []).append(entry)
            self._groups[extras] = group
        return group


class LocaleIndex:
    """Published locales by what is looked for."""

    def __init__(self, tags: Iterable[str]) -> None:
        """Read and arrange them; takes time in proportion to their number.

        Raises:
            InvalidLocaleError: one that is no BCP 47 tag.
            InputError: more than `MAX_LOCALES`.
        """
        self.written: dict[str, list[Entry]] = {}
        self.canonical: dict[Locale, list[Entry]] = {}
        self.equivalent: dict[tuple[LSR, Extras], list[Entry]] = {}
        # By language, then script.
        self.languages: dict[str, dict[str, Groups]] = {}
        for entry, written in sorted(map(_entry, distinct(tags))):
            self._add(entry, written)

    def _add(self, entry: Entry, written: str) -> None:
        self.written.setdefault(written, []).append(entry)
        self.canonical.setdefault(entry.locale, []).append(entry)
        if entry.locale == DEFAULT:
            return
        self.equivalent.setdefault((entry.lsr, entry.extras), []).append(entry)
        language, script, _ = entry.lsr
        scripts = self.languages.setdefault(language, {})
        if script not in scripts:
            scripts[script] = Groups(language, script)
        scripts[script].add(entry)

    def groups(self, language: str, script: str) -> Groups | None:
        """What is published in a language and a script."""
        scripts = self.languages.get(language)
        return None if scripts is None else scripts.get(script)


def distinct(tags: Iterable[str]) -> Iterable[str]:
    """The tags, each once, in the order given.

    Raises:
        InvalidLocaleError: one that is not a string.
        InputError: more than `MAX_LOCALES`.
    """
    several: dict[str, None] = {}
    for tag in tags:
        if not isinstance(tag, str):
            read_tag(tag)
        several[tag] = None
        if len(several) > MAX_LOCALES:
            raise InputError(
                f"got more than {MAX_LOCALES:,} locales to choose from; leave some out"
            )
    return several


def _entry(tag: str) -> tuple[Entry, str]:
    written, locale = spelling(tag)
    full = lsr(locale)
    named = [locale.language, locale.script, locale.region, *locale.variants, *locale.private]
    count = sum(subtag is not None for subtag in named)
    return Entry((not is_paradigm(full), count, tag), tag, locale, full), written


def _nearer(best: Near | None, far: int, entry: Entry | None, likely_region: str) -> Near | None:
    if entry is None or (best is not None and best.distance < far):
        return best
    common, count, tag = entry.order
    near = Near(far, (common, entry.lsr.region != likely_region, count, tag), entry)
    return near if best is None or near < best else best
