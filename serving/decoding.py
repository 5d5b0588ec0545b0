"""What a head gives, as an answer that people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .results import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..core.tokenization import Tokenized, Word
    from .texts import Job

# The most tokens of an answer, and the most pieces that are named for a mask.
LONGEST_ANSWER = 64
PIECES = 5
ANSWER = "answer"
# The label of a reranker whose one output has none.
RELEVANCE = "relevance"


def decode(job: Job, output: torch.Tensor, piece: Callable[[int], str]) -> dict[str, Any]:
    """What a prediction says of one text: label, scores, logits, and what its task adds to them.

    Args:
        job: the text.
        output: what its head gave.
        piece: a token id as text.
    """
    labels = job.plan.labels
    kind = job.plan.task_type
    if kind == "token-classification":
        return decode_words(output, job.tokenized.words, labels)
    if kind == "question-answering":
        return decode_answer(output, job.tokenized, job.text)
    if kind == "masked-lm":
        spans = [job.tokenized.spans[place] for place in job.masks]
        masks = [span for span in spans if span is not None]
        return decode_masks(output, masks, job.text, piece)
    if kind == "embedding":
        return decode_embedding(output)
    return decode_classes(output, labels or (RELEVANCE,))


def decode_classes(logits: torch.Tensor, labels: Sequence[str]) -> dict[str, Any]:
    """A text's label: softmax over all; over one label, its sigmoid.

    Args:
        logits: `[labels]`.
        labels: in the order of the head's outputs.
    """
    one = len(labels) == 1
    probabilities = (logits.sigmoid() if one else logits.softmax(-1)).tolist()
    best = int(logits.argmax())
    return {
        "label": labels[best],
        "score": probabilities[best],
        "scores": dict(zip(labels, probabilities, strict=True)),
        "logits": tuple(logits.tolist()),
    }


def decode_words(
    logits: torch.Tensor, words: Sequence[Word], labels: Sequence[str]
) -> dict[str, Any]:
    """The labels of a text's words, each by its first piece.

    Args:
        logits: `[tokens, labels]`.
        words: the words; those without a token are left out.
        labels: in the order of the head's outputs.
    """
    probabilities = logits.softmax(-1)
    scores, best = (part.tolist() for part in probabilities.max(-1))
    tokens = tuple(
        Token(
            text=word.text,
            start=word.start,
            end=word.end,
            label=labels[best[word.token]],
            score=scores[word.token],
        )
        for word in words
        if word.token is not None
    )
    score = min((token.score for token in tokens), default=0.0)
    return {"label": None, "score": score, "scores": {}, "logits": (), "tokens": tokens}


def decode_answer(logits: torch.Tensor, tokenized: Tokenized, context: str) -> dict[str, Any]:
    """The likeliest span of the context: its first and its last token are independent.

    Args:
        logits: `[tokens, 2]`, for the first and for the last token of the answer.
        tokenized: with the span of each token of the context.
        context: the text in which the answer stands.
    """
    import torch

    spans = {place: span for place, span in enumerate(tokenized.spans) if span is not None}
    places = list(spans)
    # A piece may be no more than the space before a word; no answer begins or ends there.
    words = torch.tensor([not context[begin:end].isspace() for begin, end in spans.values()])
    if not words.any():
        return {"label": None, "score": 0.0, "scores": {}, "logits": (), "answer": ""}
    # [tokens of the context]
    first, last = (column.softmax(-1) * words for column in logits[places].T)
    products = torch.triu(first[:, None] * last[None, :]).tril(LONGEST_ANSWER - 1)
    begin, end = divmod(int(products.argmax()), len(places))
    start, stop = spans[places[begin]][0], spans[places[end]][1]
    found = context[start:stop]
    start += len(found) - len(found.lstrip())
    answer = found.strip()
    score = float(products[begin, end])
    token = Token(text=answer, start=start, end=start + len(answer), label=ANSWER, score=score)
    return {
        "label": None,
        "score": score,
        "scores": {},
        "logits": (),
        "tokens": (token,),
        "answer": answer,
    }


def decode_masks(
    logits: torch.Tensor,
    masks: Sequence[tuple[int, int]],
    text: str,
    piece: Callable[[int], str],
) -> dict[str, Any]:
    """The likeliest pieces for the masks of a text.

    Args:
        logits: `[masks, vocabulary]`.
        masks: first character of each and the one after the last.
        text: the text in which they stand.
        piece: a token id as text.
    """
    probabilities = logits.softmax(-1)
    scores, best = (part.tolist() for part in probabilities.topk(min(PIECES, logits.shape[-1])))
    tokens = tuple(
        Token(
            text=text[start:end],
            start=start,
            end=end,
            label=piece(best[at][0]),
            score=scores[at][0],
        )
        for at, (start, end) in enumerate(masks)
    )
    # Two pieces may read alike; the likelier one stands for both.
    first: dict[str, int] = {}
    for place, one in enumerate(best[0]):
        first.setdefault(piece(one), place)
    return {
        "label": tokens[0].label,
        "score": tokens[0].score,
        "scores": {text: scores[0][place] for text, place in first.items()},
        "logits": tuple(float(logits[0, best[0][place]]) for place in first.values()),
        "tokens": tokens,
    }


def decode_embedding(vector: torch.Tensor) -> dict[str, Any]:
    """A text's vector.

    Args:
        vector: `[width]`, normalised.
    """
    return {"label": None, "score": 0.0, "scores": {}, "logits": tuple(vector.tolist())}
