"""Figures of merit for every type of task, by the libraries of the field where they have them.

All lie in 0..1 and higher is better, but for perplexity.
"""

from __future__ import annotations

import math
import string
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import EmptyDataError, InputError
from .row_layouts import is_bio

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

CUTOFFS = (1, 5, 10)
NDCG_AT = 10
# Written without spaces between words: each of their letters counts as a word.
_UNSPACED = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_ENGLISH_ARTICLES = frozenset({"a", "an", "the"})


def classification_metrics(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels that occur in either (scikit-learn's).

    Args:
        gold: the right labels.
        predicted: the predicted ones, as many.

    Returns:
        `accuracy` and `macro_f1`.
    """
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0.0)),
    }


def tagging_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Figures of tagged texts; spans count as a whole where the right tags mark spans (BIO).

    Args:
        gold: the right tags of each text.
        predicted: the predicted ones, as many for each.

    Returns:
        `accuracy` over tokens; for BIO tags micro-averaged `precision`, `recall` and `f1` over
        spans (seqeval's, as in CoNLL-2003: an I- that continues nothing begins a span); for other
        tags `macro_f1` over tokens.
    """
    if [len(tags) for tags in gold] != [len(tags) for tags in predicted]:
        raise InputError("gold and predicted tags differ in number; predict one for each token")
    flat_gold = [tag for tags in gold for tag in tags]
    flat_predicted = [tag for tags in predicted for tag in tags]
    if not is_bio(flat_gold):
        return classification_metrics(flat_gold, flat_predicted)
    from seqeval.metrics import f1_score, precision_score, recall_score

    right, said = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    pairs = zip(flat_gold, flat_predicted, strict=True)
    return {
        "accuracy": sum(one == other for one, other in pairs) / len(flat_gold),
        "precision": float(precision_score(right, said, zero_division=0)),
        "recall": float(recall_score(right, said, zero_division=0)),
        "f1": float(f1_score(right, said, zero_division=0)),
    }


def retrieval_metrics(
    scores: ArrayLike,
    relevant: Sequence[Collection[int]],
    *,
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, float]:
    """How well each query finds its own among all documents.

    Equal scores count against the model: one that scores everything alike finds nothing.

    Args:
        scores: `[queries, documents]`, higher is better.
        relevant: the documents that belong to each query, at least one.
        cutoffs: the k of recall@k.

    Returns:
        `recall_at_k` for each k: the share of a query's documents among its first k, averaged
        over the queries; `mrr`: the mean of 1 / rank of the first of them.

    Raises:
        InputError: shapes that don't fit, a score that is no number, a query without documents.
    """
    table = _finite(scores)
    if table.ndim != 2 or len(table) != len(relevant) or not len(table):
        raise InputError(
            f"scores have the shape {list(table.shape)}; expected a row for each of the "
            f"{len(relevant)} queries, at least one"
        )
    recalls: dict[int, list[float]] = {cutoff: [] for cutoff in cutoffs}
    reciprocal: list[float] = []
    for row, own in zip(table, relevant, strict=True):
        belongs = np.zeros(len(row), dtype=bool)
        belongs[list(own)] = True
        if not belongs.any():
            raise InputError("a query has no relevant document; leave it out")
        ranks = _ranks(row, belongs)
        reciprocal.append(1 / ranks[0])
        for cutoff, values in recalls.items():
            values.append(float((ranks <= cutoff).mean()))
    means = {f"recall_at_{cutoff}": float(np.mean(values)) for cutoff, values in recalls.items()}
    return {**means, "mrr": float(np.mean(reciprocal))}


def ranking_metrics(
    scores: ArrayLike, grades: Sequence[int], groups: Sequence[str]
) -> dict[str, float]:
    """How well graded texts are ordered within their group.

    Groups without a text above grade 0 are left out, because every order of them is as good.

    Args:
        scores: `[rows]`, higher is better.
        grades: of each row, from 0.
        groups: of each row; those of one query are equal.

    Returns:
        `ndcg_at_10` (scikit-learn's: gains are the grades, equal scores are averaged); `mrr` of
        the first text above grade 0, where equal scores count against the model.

    Raises:
        InputError: lengths that differ, or a score that is no number.
        EmptyDataError: no group has a text above grade 0.
    """
    from sklearn.metrics import ndcg_score

    flat = _finite(scores)
    if flat.shape != (len(grades),) or len(grades) != len(groups):
        raise InputError(
            f"scores have the shape {list(flat.shape)} for {len(grades)} grades and {len(groups)} "
            "groups; each row needs one of each"
        )
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    gains, reciprocal = [], []
    for rows in members.values():
        own = np.array([grades[row] for row in rows])
        if own.max() <= 0:
            continue
        reciprocal.append(1 / _ranks(flat[rows], own > 0)[0])
        # scikit-learn refuses to judge the order of one.
        gains.append(ndcg_score([own], [flat[rows]], k=NDCG_AT) if len(rows) > 1 else 1.0)
    if not gains:
        raise EmptyDataError("no query has a text with a grade above 0; add rows that answer one")
    return {f"ndcg_at_{NDCG_AT}": float(np.mean(gains)), "mrr": float(np.mean(reciprocal))}


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(scores, dtype=np.float64)
    if np.isnan(table).any():
        raise InputError("a score is no number (NaN); has the training diverged?")
    return table


def _ranks(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Ranks from 1 of the wanted ones, ascending; an equal score puts the others before them."""
    order = np.lexsort((wanted, -scores))
    return np.flatnonzero(wanted[order]) + 1


def answer_metrics(
    predicted: Sequence[str], gold: Sequence[Sequence[str]], *, language: str | None = None
) -> dict[str, float]:
    """Exact match and F1 of answers, as in SQuAD (https://arxiv.org/abs/1606.05250).

    Args:
        predicted: an answer for each question; empty: none.
        gold: the right answers of each question, of which the best fitting counts; none: it has
            no answer, and only an empty one is right.
        language: language subtag; `en` leaves out articles, as SQuAD does.

    Returns:
        `exact_match` and `f1` over the words that both share, averaged over the questions.

    Raises:
        InputError: numbers that differ, or no questions.
    """
    if len(predicted) != len(gold) or not gold:
        raise InputError(
            f"{len(predicted)} answers for {len(gold)} questions; each needs one, and at least one"
        )
    exact, overlap = [], []
    for answer, rights in zip(predicted, gold, strict=True):
        said = answer_words(answer, language=language)
        known = [answer_words(right, language=language) for right in rights] or [[]]
        exact.append(max(float(said == right) for right in known))
        overlap.append(max(_overlap(said, right) for right in known))
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(overlap))}


def answer_words(text: str, *, language: str | None = None) -> list[str]:
    """The words of an answer as SQuAD compares them: case folded, without punctuation.

    Each letter of a script that has no spaces between words is a word. Only English loses its
    articles: elsewhere such words are others.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    spaced = "".join(
        f" {letter} " if _is_unspaced(letter) else letter
        for letter in folded
        if not _is_punctuation(letter)
    )
    articles = _ENGLISH_ARTICLES if language == "en" else frozenset()
    return [word for word in spaced.split() if word not in articles]


def _is_punctuation(letter: str) -> bool:
    # SQuAD takes ASCII's symbols, such as $, for punctuation; Unicode doesn't.
    return unicodedata.category(letter).startswith("P") or letter in string.punctuation


def _is_unspaced(letter: str) -> bool:
    return letter > "\u0e00" and unicodedata.name(letter, "").startswith(_UNSPACED)


def _overlap(said: Sequence[str], right: Sequence[str]) -> float:
    if not said or not right:
        return float(said == right)
    shared = (Counter(said) & Counter(right)).total()
    return 2 * shared / (len(said) + len(right))


def perplexity(losses: Iterable[float], tokens: Iterable[int]) -> dict[str, float]:
    """Perplexity of masked tokens: e to the mean loss a token.

    Args:
        losses: the mean loss a masked token of each batch, in nats.
        tokens: how many tokens each batch masks.

    Returns:
        `loss`, the mean over all tokens in nats, and `perplexity`, from 1; lower is better.

    Raises:
        EmptyDataError: no token was masked.
    """
    pairs = list(zip(losses, tokens, strict=True))
    total = sum(count for _, count in pairs)
    if total <= 0:
        raise EmptyDataError("no token was masked; give longer or more texts")
    loss = math.fsum(loss * count for loss, count in pairs) / total
    try:
        return {"loss": loss, "perplexity": math.exp(loss)}
    except OverflowError:
        return {"loss": loss, "perplexity": math.inf}
