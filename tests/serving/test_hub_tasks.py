"""Every task type through the hub, against transformers and PEFT running one text alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from isogloss import Hub
from isogloss.core.encoder import quiet_transformers
from isogloss.core.errors import InputError, NoAdapterError, UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isogloss import Registry, Version

    from ..conftest import TinyBase

WORDS = ["wo", "isch", "mys", "päckli"]
QUESTION, CONTEXT = "dónde está?", "the quick brown fox"
# task type → transformers' class, PEFT's name of it, and how many labels
KINDS: dict[str, tuple[str, str, int]] = {
    "sequence-classification": ("AutoModelForSequenceClassification", "SEQ_CLS", 4),
    "token-classification": ("AutoModelForTokenClassification", "TOKEN_CLS", 5),
    "question-answering": ("AutoModelForQuestionAnswering", "QUESTION_ANS", 0),
    "reranking": ("AutoModelForSequenceClassification", "SEQ_CLS", 1),
    "embedding": ("AutoModel", "FEATURE_EXTRACTION", 0),
}


@dataclass(frozen=True)
class Adapted:
    """An adapter in the registry, and the same through PEFT."""

    version: Version
    model: Any
    tokenizer: Any

    @torch.no_grad()
    def __call__(self, *text: Any, **options: Any) -> Any:
        inputs = self.tokenizer(*text, return_tensors="pt", return_token_type_ids=True, **options)
        return self.model(**inputs)


class Lab:
    """One base, a hub on it, and an adapter for each task type."""

    def __init__(self, base: Path, registry: Registry, scratch: Path) -> None:
        import transformers
        from peft import LoraConfig, get_peft_model

        self.adapted: dict[str, Adapted] = {}
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        for number, (kind, (name, peft_name, labels)) in enumerate(KINDS.items()):
            options = {"num_labels": labels} if labels else {}
            with quiet_transformers():
                plain = getattr(transformers, name).from_pretrained(base, **options)
            config = LoraConfig(
                task_type=peft_name, r=3, lora_alpha=6, target_modules=["query", "value"]
            )
            model = get_peft_model(plain, config)
            generator = torch.Generator().manual_seed(number)
            for key, parameter in model.named_parameters():
                if "lora_" in key or "modules_to_save" in key:
                    values = torch.randn(parameter.shape, generator=generator)
                    parameter.data.copy_(values / parameter.shape[-1] ** 0.5)
            folder = scratch / kind
            model.save_pretrained(str(folder))
            version = registry.publish(
                folder,
                locale="gsw-CH",
                task=kind,
                labels=[f"L{place}" for place in range(labels)] if labels > 1 else None,
                base=base,
            )
            self.adapted[kind] = Adapted(version, model.eval(), tokenizer)
        self.hub = Hub(registry, base=base, slots=8)


@pytest.fixture
def lab(base: Path, registry: Registry, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(base, registry, tmp_path)
    with made.hub:
        yield made


def test_words_are_labelled_by_their_first_piece(lab: Lab) -> None:
    adapted = lab.adapted["token-classification"]
    logits = adapted(WORDS, is_split_into_words=True).logits[0]
    places = adapted.tokenizer(WORDS, is_split_into_words=True).word_ids()
    listed, written = lab.hub.predict(
        [WORDS, "wo isch\t mys päckli"], task="token-classification", locale="gsw-CH"
    )
    assert [token.text for token in listed.tokens] == WORDS
    for number, (one, other) in enumerate(zip(listed.tokens, written.tokens, strict=True)):
        expected = logits[places.index(number)].softmax(-1)
        assert one.label == other.label == f"L{int(expected.argmax())}"
        assert one.score == pytest.approx(float(expected.max()), abs=1e-5)
    joined = " ".join(WORDS)
    assert [joined[token.start : token.end] for token in listed.tokens] == WORDS
    assert ["wo isch\t mys päckli"[t.start : t.end] for t in written.tokens] == WORDS
    assert (listed.label, listed.adapter) == (None, adapted.version.name)


def test_words_that_are_cut_off_are_left_out(lab: Lab) -> None:
    (found,) = lab.hub.predict([WORDS * 20], task="token-classification", locale="gsw-CH")
    assert found.truncated
    assert 0 < len(found.tokens) < 80
    assert [token.text for token in found.tokens] == (WORDS * 20)[: len(found.tokens)]


def test_questions_are_answered_out_of_the_context(lab: Lab) -> None:
    adapted = lab.adapted["question-answering"]
    output = adapted(QUESTION, CONTEXT)
    encoding = adapted.tokenizer(QUESTION, CONTEXT, return_offsets_mapping=True)
    inside = [place for place, part in enumerate(encoding.sequence_ids()) if part == 1]
    first = output.start_logits[0][inside].softmax(-1)
    last = output.end_logits[0][inside].softmax(-1)
    offsets = encoding["offset_mapping"]
    words = [place for place in inside if not CONTEXT[slice(*offsets[place])].isspace()]
    spans = [
        (float(first[i - inside[0]] * last[j - inside[0]]), i, j)
        for i in words
        for j in words
        if i <= j
    ]
    score, begin, end = max(spans)
    expected = CONTEXT[offsets[begin][0] : offsets[end][1]].strip()
    (found,) = lab.hub.predict([(QUESTION, CONTEXT)], task="question-answering", locale="gsw-CH")
    assert found.answer == expected
    assert found.score == pytest.approx(score, abs=1e-5)
    (token,) = found.tokens
    assert CONTEXT[token.start : token.end] == token.text == expected


@pytest.mark.parametrize("text", ["just a question", ["a", "list"]], ids=["str", "words"])
def test_a_question_needs_a_context(lab: Lab, text: Any) -> None:
    with pytest.raises(InputError, match=r"text 0 .* takes a pair"):
        lab.hub.predict([text], task="question-answering", locale="gsw-CH")


def test_an_empty_context_has_no_answer(lab: Lab) -> None:
    (found,) = lab.hub.predict([(QUESTION, "")], task="question-answering", locale="gsw-CH")
    assert (found.answer, found.score, found.tokens) == ("", 0.0, ())


def test_texts_are_ranked_by_their_logits(lab: Lab) -> None:
    texts = ["wo isch mys päckli", CONTEXT, "привет, где", CONTEXT, "bitte"]
    adapted = lab.adapted["reranking"]
    logits = [float(adapted(QUESTION, text).logits[0, 0]) for text in texts]
    ranked = lab.hub.rerank(QUESTION, texts, locale="gsw-CH", task="reranking")
    assert sorted(one.index for one in ranked) == [0, 1, 2, 3, 4]
    scores = {one.index: one.score for one in ranked}
    for place, logit in enumerate(logits):
        assert scores[place] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert [one.score for one in ranked] == sorted(scores.values(), reverse=True)
    order = [one.index for one in ranked]
    assert order.index(3) == order.index(1) + 1  # equal texts in the order given
    (single,) = lab.hub.predict([(QUESTION, CONTEXT)], task="reranking", locale="gsw-CH")
    assert single.score == pytest.approx(scores[1], abs=1e-6)
    assert lab.hub.rerank(QUESTION, [], locale="gsw-CH", task="reranking") == []


def test_embeddings_are_means_of_length_one(lab: Lab) -> None:
    texts: list[Any] = ["wo isch mys päckli", CONTEXT, ("bitte", "привет")]
    adapted = lab.adapted["embedding"]
    vectors = lab.hub.embed(texts, locale="gsw-CH")
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 16)
    for text, vector in zip(texts, vectors, strict=True):
        pair = text if isinstance(text, tuple) else (text,)
        mean = adapted(*pair).last_hidden_state[0].mean(0)
        expected = (mean / mean.norm()).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    (single,) = lab.hub.predict(texts[:1], task="embedding", locale="gsw-CH")
    np.testing.assert_allclose(single.logits, vectors[0], atol=1e-6)
    assert (single.label, single.adapter) == (None, adapted.version.name)


def test_the_bare_base_embeds_where_no_adapter_does(lab: Lab, base: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    with quiet_transformers():
        model = AutoModel.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        mean = model(**tokenizer(CONTEXT, return_tensors="pt")).last_hidden_state[0].mean(0)
    (vector,) = lab.hub.embed(CONTEXT, locale="fi")
    np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)
    (found,) = lab.hub.predict([CONTEXT], task="embedding", locale="fi")
    assert (found.adapter, found.resolution.stage) == (None, "base")
    both = lab.hub.embed([CONTEXT, CONTEXT], locale=["fi", "gsw-CH"])
    np.testing.assert_allclose(both[0], vector, atol=1e-6)
    assert np.abs(both[1] - vector).max() > 1e-3
    assert lab.hub.embed([], locale="fi").shape == (0, 16)


def test_all_tasks_in_one_batch(lab: Lab) -> None:
    tasks = [*KINDS, *KINDS]
    texts: list[Any] = [
        (QUESTION, CONTEXT) if task in {"question-answering", "reranking"} else "wo isch mys päckli"
        for task in tasks
    ]
    together = lab.hub.predict(texts, task=tasks, locale="gsw-CH")
    for text, task, found in zip(texts, tasks, together, strict=True):
        (alone,) = lab.hub.predict([text], task=task, locale="gsw-CH")
        assert found.logits == pytest.approx(alone.logits, abs=1e-5)
        assert (found.label, found.answer) == (alone.label, alone.answer)
        assert found.adapter == alone.adapter == lab.adapted[task].version.name
        assert [t.label for t in found.tokens] == [t.label for t in alone.tokens]
    logits = lab.adapted["sequence-classification"]("wo isch mys päckli").logits[0].tolist()
    assert together[0].logits == pytest.approx(logits, abs=1e-5)


def test_tasks_of_another_type_are_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="'reranking'; name a task that embeds"):
        lab.hub.embed(["text"], locale="gsw-CH", task="reranking")
    with pytest.raises(InputError, match="'embedding'; name a task that reranks"):
        lab.hub.rerank("query", ["text"], locale="gsw-CH", task="embedding")
    with pytest.raises(NoAdapterError):
        lab.hub.rerank("query", ["text"], locale="fi", task="reranking")
    with pytest.raises(InputError, match="text 0 is a pair"):
        lab.hub.predict([("a", "b")], task="token-classification", locale="gsw-CH")
    with pytest.raises(InputError, match="text 3 is empty"):
        lab.hub.predict(
            ["fox", ["fox"], "fox", [" "]],
            task=["embedding", "token-classification", "embedding", "token-classification"],
            locale="gsw-CH",
        )
    with pytest.raises(NoAdapterError, match="only the bare base"):
        lab.hub.load("fi", "embedding")


# -- masked LM


@pytest.fixture
def mini(registry: Registry) -> Iterator[Hub]:
    with Hub(registry, base="mini") as hub:
        yield hub


def test_masks_are_filled_as_transformers_does(mini: Hub) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from isogloss.core.base import EMBEDDED_FOLDER

    text = "Wo ist <mask> Paket? Ich <mask> es."
    with quiet_transformers():
        model = AutoModelForMaskedLM.from_pretrained(EMBEDDED_FOLDER, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    at = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    expected = logits[at].softmax(-1)
    plain, found = mini.predict(["<mask>", text], task="lm", locale="de")
    assert (found.adapter, found.resolution.stage) == (None, "base")
    assert len(plain.tokens) == 1
    assert [text[token.start : token.end] for token in found.tokens] == ["<mask>", "<mask>"]
    for token, probabilities in zip(found.tokens, expected, strict=True):
        assert token.label == str(tokenizer.decode([int(probabilities.argmax())])).strip()
        assert token.score == pytest.approx(float(probabilities.max()), abs=1e-4)
    assert (found.label, found.score) == (found.tokens[0].label, found.tokens[0].score)
    best, _ = expected[0].topk(len(found.scores))
    assert max(found.scores.values()) == pytest.approx(float(best[0]), abs=1e-4)
    assert len(found.logits) == len(found.scores) <= 5


def test_what_a_masked_lm_does_not_take(mini: Hub) -> None:
    with pytest.raises(InputError, match=r"text 1 has no mask .* write <mask> for it"):
        mini.predict(["a <mask>", "none"], task="masked-lm", locale="de")
    with pytest.raises(InputError, match="33 masks; give 32 at most"):
        mini.predict(["<mask> " * 33], task="masked-lm", locale="de")
    with pytest.raises(InputError, match="is a pair"):
        mini.predict([("a <mask>", "b")], task="masked-lm", locale="de")


def test_a_base_without_a_mask(tiny_base: TinyBase, registry: Registry) -> None:
    with (
        Hub(registry, base=tiny_base("xlm-roberta")) as hub,
        pytest.raises(InputError, match=r"no mask .* its base has none"),
    ):
        hub.predict(["fox <mask>"], task="masked-lm", locale="de")


def test_a_base_without_a_masked_lm_head(tiny_base: TinyBase, registry: Registry) -> None:
    with Hub(registry, base=tiny_base("xlm-roberta")) as hub:
        tokenizer = hub.engine.encoder.tokenizer
        tokenizer.mask_token = tokenizer.unk_token
        with pytest.raises(UnsupportedBaseError, match="without a masked-LM head"):
            hub.predict(["fox <unk>"], task="masked-lm", locale="de")
