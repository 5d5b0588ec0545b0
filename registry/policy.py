"""What a deployment may decide about resolution: how far an answer may be, and what to mix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.errors import InputError
from ..core.locale import Locale, parse_locale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NEAR_SCRIPT = 5
"""CLDR's script rules up to here are of scripts that a text can be carried over to: sr, ja, ko."""

NEAR_LANGUAGE = 10
"""CLDR's language rules up to here are of languages that are close; those of 20 and 30 say mostly
that readers of one have learnt the other."""

TWO_WAY = (("cs", "sk"), ("nb", "nn"), ("nn", "no"))
"""Pairs at 20 that CLDR holds close in both directions."""

MAX_BLEND = 16
"""The most adapters in one blend."""

_FURTHEST = 100


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How the adapters along the fallback path share an answer."""

    adapters: int = 3
    """How many at most, 1..16: the one that answers, and those that would if it weren't there."""

    decay: float = 0.5
    """The weight of each, as a share of the one before: more than 0, at most 1."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: one that is out of range.
        """
        if not _is_whole(self.adapters, 1, MAX_BLEND):
            raise InputError(
                f"a blend of {self.adapters!r} adapters can't be made; "
                f"give a whole number from 1 to {MAX_BLEND}"
            )
        decay = self.decay
        number = isinstance(decay, int | float) and not isinstance(decay, bool)
        if not number or not 0 < decay <= 1:
            raise InputError(f"a blend can't decay by {decay!r}; give more than 0 and at most 1")

    def weights(self, count: int) -> tuple[float, ...]:
        """Weights for so many adapters, falling, with a sum of 1."""
        shares = [self.decay**place for place in range(count)]
        return tuple(share / sum(shares) for share in shares)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How far from a request an adapter may be. CLDR's distances are those of UTS #35."""

    script_limit: int = NEAR_SCRIPT
    """The furthest script rule that is followed within a language, 0..100; 0: none is."""

    language_limit: int = NEAR_LANGUAGE
    """The furthest rule that is followed to another language of the same script, 0..100; 0: none.
    At 30 every rule is, so that Tamil is answered in English."""

    pairs: tuple[tuple[str, str], ...] = TWO_WAY
    """Languages that may stand for one another, both ways, whatever the limit. A pair that CLDR
    has no rule for counts 80."""

    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Locales to be answered as another, `{"bar": "de", "ar-EG": "arz"}`: where the request begins
    with the one, the other takes its place (`bar-AT` is answered as `de-AT`)."""

    blend: Blend | None = None
    """Name the adapters to mix, and their weights; None: one adapter answers."""

    def __post_init__(self) -> None:
        """Check the values, and keep copies.

        Raises:
            InputError: a limit or a pair that makes no sense.
            InvalidLocaleError: an alias, or what it stands for, is no BCP 47 tag.
        """
        for name in ("script_limit", "language_limit"):
            limit = getattr(self, name)
            if not _is_whole(limit, 0, _FURTHEST):
                raise InputError(
                    f"{name} can't be {limit!r}; give a whole number from 0 to {_FURTHEST}"
                )
        pairs = tuple(_pair(pair) for pair in self.pairs)
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "aliases", dict(self.aliases))
        read_aliases(self.aliases)

    def partners(self) -> dict[str, tuple[str, ...]]:
        """The languages that `pairs` allows for each."""
        found: dict[str, tuple[str, ...]] = {}
        for one, other in self.pairs:
            found[one] = (*found.get(one, ()), other)
            found[other] = (*found.get(other, ()), one)
        return found


def read_aliases(aliases: Mapping[str, str]) -> dict[Locale, Locale]:
    """Both sides of each alias in canonical form.

    Raises:
        InvalidLocaleError: one that is no BCP 47 tag.
    """
    return {parse_locale(tag): parse_locale(instead) for tag, instead in aliases.items()}


def _pair(pair: Iterable[str]) -> tuple[str, str]:
    languages = [] if isinstance(pair, str) else [parse_locale(tag) for tag in pair]
    bare = all(language == Locale(language.language) for language in languages)
    if len(set(languages)) != 2 or len(languages) != 2 or not bare:
        raise InputError(
            f"{pair!r} is no pair of languages; write two language codes, such as ('cs', 'sk')"
        )
    return languages[0].language, languages[1].language


def _is_whole(value: object, lowest: int, highest: int) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return lowest <= value <= highest
