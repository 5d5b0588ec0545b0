from __future__ import annotations

import math

import numpy as np
import pytest
import seqeval.metrics
import sklearn.metrics

from isogloss.adapters.metrics import (
    answer_metrics,
    answer_words,
    classification_metrics,
    perplexity,
    ranking_metrics,
    retrieval_metrics,
    tagging_metrics,
)
from isogloss.core.errors import EmptyDataError, InputError


def test_classification_by_hand() -> None:
    # F1 of a: 2·1/(2·1 + 0 + 1) = 2/3; of b: 2·1/(2·1 + 1 + 0) = 2/3; of c: 1.
    metrics = classification_metrics(["a", "a", "b", "c"], ["a", "b", "b", "c"])
    assert metrics == pytest.approx({"accuracy": 0.75, "macro_f1": (2 / 3 + 2 / 3 + 1) / 3})


def test_a_label_that_the_model_does_not_know_counts_as_a_mistake() -> None:
    metrics = classification_metrics(["a", "new"], ["a", "a"])
    assert metrics == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 0) / 2})


def test_spans_by_hand_and_as_seqeval_has_them() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "B-LOC"]]
    said = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC", "I-LOC"]]
    metrics = tagging_metrics(gold, said)
    # Four spans are right; three were said, of which one has the right ends and type.
    assert metrics == pytest.approx(
        {"accuracy": 5 / 7, "precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7}
    )
    assert metrics["f1"] == pytest.approx(seqeval.metrics.f1_score(gold, said))
    assert metrics["accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(gold, said))


def test_a_model_that_says_nothing_finds_no_span() -> None:
    gold = [("B-PER", "I-PER"), ("O", "B-LOC")]
    metrics = tagging_metrics(gold, [("O", "O"), ("O", "O")])
    assert metrics == {"accuracy": 0.25, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert tagging_metrics(gold, gold) == dict.fromkeys(metrics, 1.0)


def test_tags_of_words_have_a_macro_f1() -> None:
    gold, said = [["NOUN", "VERB"], ["NOUN"]], [["NOUN", "NOUN"], ["NOUN"]]
    assert tagging_metrics(gold, said) == pytest.approx({"accuracy": 2 / 3, "macro_f1": 0.4})


def test_tags_of_other_lengths() -> None:
    with pytest.raises(InputError, match="differ in number"):
        tagging_metrics([["O", "O"]], [["O"]])


def test_retrieval_by_hand() -> None:
    scores = [[0.9, 0.1, 0.5, 0.2], [0.9, 0.8, 0.7, 0.6], [0.1, 0.4, 0.3, 0.2]]
    relevant = [[0], [2], [1, 3]]  # at ranks 1; 3; 1 and 3
    metrics = retrieval_metrics(scores, relevant, cutoffs=(1, 2, 3))
    assert metrics == pytest.approx(
        {
            "recall_at_1": (1 + 0 + 0.5) / 3,
            "recall_at_2": (1 + 0 + 0.5) / 3,
            "recall_at_3": 1.0,
            "mrr": (1 + 1 / 3 + 1) / 3,
        }
    )
    assert set(retrieval_metrics(scores, relevant)) == {
        "recall_at_1",
        "recall_at_5",
        "recall_at_10",
        "mrr",
    }


def test_one_relevant_document_is_top_k_accuracy() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(40, 12))
    own = generator.integers(0, 12, size=40)
    metrics = retrieval_metrics(scores, [[int(document)] for document in own], cutoffs=(1, 5))
    for cutoff in (1, 5):
        expected = sklearn.metrics.top_k_accuracy_score(own, scores, k=cutoff, labels=range(12))
        assert metrics[f"recall_at_{cutoff}"] == pytest.approx(expected)
    # With one document, the reciprocal rank is what label ranking calls average precision.
    precision = sklearn.metrics.label_ranking_average_precision_score(np.eye(12)[own], scores)
    assert metrics["mrr"] == pytest.approx(precision)


def test_equal_scores_find_nothing() -> None:
    metrics = retrieval_metrics(np.zeros((2, 20)), [[0], [19]])
    assert metrics == pytest.approx(
        {"recall_at_1": 0.0, "recall_at_5": 0.0, "recall_at_10": 0.0, "mrr": 1 / 20}
    )


def test_retrieval_that_makes_no_sense() -> None:
    for scores, relevant, problem in (
        ([[1.0, math.nan]], [[0]], "no number"),
        ([[1.0, 2.0]], [[0], [1]], r"shape \[1, 2\]"),
        ([1.0], [[0]], r"shape \[1\]"),
        ([[1.0, 2.0]], [[]], "a query has no relevant document"),
    ):
        with pytest.raises(InputError, match=problem):
            retrieval_metrics(scores, relevant)


def test_ranking_by_hand() -> None:
    scores = [0.9, 0.5, 0.1, 0.3, 0.7, 0.2]
    grades = [0, 2, 1, 0, 1, 0]
    groups = ["q", "q", "q", "none", "r", "none"]
    metrics = ranking_metrics(scores, grades, groups)
    gained = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 + 1 / math.log2(3)
    assert metrics == pytest.approx(
        {"ndcg_at_10": (gained / ideal + 1) / 2, "mrr": (1 / 2 + 1) / 2}
    )


def test_ranking_as_scikit_learn_has_it() -> None:
    generator = np.random.default_rng(1)
    scores, grades = generator.normal(size=(30, 25)), generator.integers(0, 3, size=(30, 25))
    metrics = ranking_metrics(
        scores.ravel(), grades.ravel().tolist(), [str(row // 25) for row in range(750)]
    )
    assert metrics["ndcg_at_10"] == pytest.approx(sklearn.metrics.ndcg_score(grades, scores, k=10))


def test_equal_scores_rank_the_right_text_last() -> None:
    assert ranking_metrics([0.5, 0.5, 0.5], [1, 0, 0], ["q"] * 3)["mrr"] == pytest.approx(1 / 3)


def test_ranking_that_makes_no_sense() -> None:
    with pytest.raises(EmptyDataError, match="no query has a text with a grade above 0"):
        ranking_metrics([1.0, 2.0], [0, 0], ["q", "q"])
    with pytest.raises(InputError, match="NaN"):
        ranking_metrics([math.nan], [1], ["q"])
    with pytest.raises(InputError, match="3 grades and 2 groups"):
        ranking_metrics([1.0, 2.0, 3.0], [1, 0, 0], ["q", "q"])


def test_answers_by_hand() -> None:
    predicted = ["The 30 days!", "free of charge", "in the shop", ""]
    gold = [["30 days"], ["free"], ["online", "in shops"], []]
    # F1: 1; 2·1/(3 + 1); 2·1/(2 + 2) without the article; no answer, rightly.
    metrics = answer_metrics(predicted, gold, language="en")
    assert metrics == pytest.approx({"exact_match": 2 / 4, "f1": (1 + 0.5 + 0.5 + 1) / 4})


def test_only_english_loses_its_articles() -> None:
    assert answer_words("The a-team", language="en") == ["ateam"]
    assert answer_words("à la carte, a 5", language="fr") == ["à", "la", "carte", "a", "5"]
    assert answer_metrics(["az idő"], [["idő"]], language="hu")["exact_match"] == 0.0


def test_words_of_other_scripts() -> None:
    assert answer_words("三十天内。ＯＫ") == ["三", "十", "天", "内", "ok"]
    assert answer_words("«Тридцать дней»?") == ["тридцать", "дней"]
    assert answer_words("STRASSE ¿qué?") == answer_words("straße qué")
    assert answer_words("3日") == ["3", "日"]
    assert answer_metrics(["三十天"], [["三十日"]])["f1"] == pytest.approx(2 / 3)


def test_an_answer_where_there_is_none_and_none_where_there_is_one() -> None:
    assert answer_metrics(["yes", ""], [[], ["yes"]]) == {"exact_match": 0.0, "f1": 0.0}


def test_answers_that_make_no_sense() -> None:
    for predicted, gold in (([], []), (["a"], [["a"], ["b"]])):
        with pytest.raises(InputError, match="each needs one"):
            answer_metrics(predicted, gold)


def test_perplexity_by_hand() -> None:
    # Two batches of 1 and 3 tokens: the mean over tokens, not over batches.
    metrics = perplexity([math.log(16), math.log(2)], [1, 3])
    assert metrics == pytest.approx({"loss": math.log(128) / 4, "perplexity": 128 ** (1 / 4)})
    assert perplexity([0.0], [5]) == {"loss": 0.0, "perplexity": 1.0}
    assert perplexity([1e4], [5])["perplexity"] == math.inf


def test_perplexity_of_nothing() -> None:
    for losses, tokens in (([], []), ([1.0], [0])):
        with pytest.raises(EmptyDataError, match="no token was masked"):
            perplexity(losses, tokens)
