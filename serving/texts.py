"""The texts of a request: checked, tokenized for what is asked of them, cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ..core.errors import InputError
from ..core.tokenization import check_text, join_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..core.tokenization import RowTokenizer, Tokenized
    from .planning import Plan

Text = str | tuple[str, str] | list[str]
One = TypeVar("One")

MOST_TEXTS = 100_000
MOST_ROWS = 64
MOST_TOKENS = 8192
MOST_MASKS = 32
# How the texts of a task are tokenized, unless as plain rows.
KINDS = {"masked-lm": "masks", "question-answering": "pairs", "token-classification": "words"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One text on its way."""

    place: int
    """Its place in the request."""
    text: str
    """The text itself; of a pair the second."""
    plan: Plan
    """Who answers."""
    tokenized: Tokenized
    """Its row."""
    masks: tuple[int, ...] = ()
    """Places of the masks in the row, of a masked LM."""


def check_texts(texts: Sequence[Text] | str) -> list[Text]:
    """The texts of a request as a list.

    Raises:
        InputError: more than any call may have.
    """
    found: list[Text] = [texts] if isinstance(texts, str) else list(texts)
    if len(found) > MOST_TEXTS:
        raise InputError(
            f"{len(found):,} texts in one call; give {MOST_TEXTS:,} at most, and the rest in others"
        )
    return found


def each(name: str, value: One | list[One] | tuple[One, ...], count: int) -> Sequence[One]:
    """One value for all texts, or one per text.

    Raises:
        InputError: another number of values than of texts.
    """
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{len(value)} values of {name} for {count} texts; give one, or one each")
    return value


def tokenize(
    texts: Sequence[Text],
    plans: Sequence[Plan],
    limits: Sequence[int],
    tokenizer: RowTokenizer,
) -> list[Job]:
    """Tokenize each text as its task wants it; those that nothing answers are checked only.

    Args:
        texts: the texts of a request.
        plans: one for each.
        limits: the most tokens of each.
        tokenizer: the base's.

    Raises:
        InputError: a text that is empty, or not what its task takes.
    """
    by_kind: dict[str, list[int]] = {}
    whole: dict[int, str | tuple[str, str]] = {}
    for number, (text, plan) in enumerate(zip(texts, plans, strict=True)):
        kind = KINDS.get(plan.task_type or "", "rows")
        if kind in {"words", "masks"} and isinstance(text, tuple):
            raise InputError(
                f"text {number} is a pair; {plan.task_type} takes one text, or a list of words"
            )
        if kind != "words":
            whole[number] = join_words(number, text) if isinstance(text, list) else text
        if plan.task_type is None:
            check_text(number, whole[number])
            continue
        if kind == "pairs" and len(check_text(number, whole[number])) != 2:
            raise InputError(
                f"text {number} is {text!r:.80}; question answering takes a pair of a question "
                "and the text that answers it"
            )
        by_kind.setdefault(kind, []).append(number)
    jobs = []
    for kind, places in by_kind.items():
        own = [limits[place] for place in places]
        if kind == "words":
            split: list[str | list[str]] = [texts[place] for place in places]  # type: ignore[misc]
            found = tokenizer.words(split, limits=own, numbers=places)
        else:
            found = tokenizer.rows(
                [whole[place] for place in places],
                limits=own,
                numbers=places,
                spans=kind != "rows",
            )
        for place, tokenized in zip(places, found, strict=True):
            text = whole.get(place, "")
            jobs.append(
                Job(
                    place=place,
                    text=text if isinstance(text, str) else text[-1],
                    plan=plans[place],
                    tokenized=(
                        tokenized if plans[place].reads_token_types else _without_types(tokenized)
                    ),
                    masks=_masks(place, tokenized, tokenizer) if kind == "masks" else (),
                )
            )
    return jobs


def batches(jobs: Sequence[Job], slots: int, pinned: Callable[[], set[str]]) -> Iterator[list[Job]]:
    """Cut into batches of at most MOST_ROWS rows and MOST_TOKENS tokens.

    A batch uses no more adapters than find a slot. Rows of one adapter stay together, so that
    each is brought in once.

    Args:
        jobs: the texts.
        slots: how many adapters fit at once.
        pinned: says which digests stay in theirs; asked anew for each batch.
    """
    ordered = sorted(jobs, key=lambda job: (job.plan.digests, len(job.tokenized.row.token_ids)))
    batch: list[Job] = []
    adapters = pinned()
    tokens = 0
    for job in ordered:
        length = len(job.tokenized.row.token_ids)
        wanted = adapters.union(job.plan.digests)
        full = len(batch) == MOST_ROWS or tokens + length > MOST_TOKENS or len(wanted) > slots
        if batch and full:
            yield batch
            batch, tokens = [], 0
            wanted = pinned().union(job.plan.digests)
        batch.append(job)
        adapters = wanted
        tokens += length
    if batch:
        yield batch


def _without_types(tokenized: Tokenized) -> Tokenized:
    return replace(tokenized, row=replace(tokenized.row, type_ids=None))


def _masks(number: int, tokenized: Tokenized, tokenizer: RowTokenizer) -> tuple[int, ...]:
    mask = tokenizer.mask_id
    places = tuple(place for place, token in enumerate(tokenized.row.token_ids) if token == mask)
    if not places:
        wanted = "its base has none" if mask is None else f"write {tokenizer.mask_token} for it"
        raise InputError(f"text {number} has no mask for a masked LM to fill; {wanted}")
    if len(places) > MOST_MASKS:
        raise InputError(f"text {number} has {len(places)} masks; give {MOST_MASKS} at most")
    return places
