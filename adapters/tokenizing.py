"""Train a subword tokenizer over many scripts.

A Unigram model (Kudo, 2018, https://arxiv.org/abs/1804.10959) as XLM-R has, with byte fallback
so that no text is unknown. The special tokens stand where XLM-R has them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK_TOKEN = "<mask>"
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Thai, Chinese or Khmer come without spaces; a pre-token of a whole sentence makes the trainer's
# suffix array and its Viterbi passes very slow. Pieces are at most 16 characters anyway.
LONGEST_TRAINING_TOKEN = 16
# SentencePiece's figure for alphabets of many characters; the rest is written in bytes.
CHARACTER_COVERAGE = 0.9995
# By so much differ the scores of two characters that the trainer adds at its end.
TRAINER_STEP = 1e-4


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_length: int, show_progress: bool = False
) -> PreTrainedTokenizerFast:
    """Train a Unigram tokenizer with byte fallback.

    Args:
        texts: the sample to train on.
        vocab_size: how many pieces in all, special and byte pieces included.
        max_length: the longest sequence, special tokens included, that the model takes.
        show_progress: show the trainer's own bars.

    Returns:
        A tokenizer of at most `vocab_size` pieces that adds `<s>` and `</s>`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trainee = Tokenizer(models.Unigram())
    _prepare(trainee)
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [
            trainee.pre_tokenizer,
            pre_tokenizers.Split(Regex(f".{{1,{LONGEST_TRAINING_TOKEN}}}"), behavior="isolated"),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(BYTE_TOKENS) - 1,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token="<unk>",
        max_piece_length=LONGEST_TRAINING_TOKEN,
        show_progress=show_progress,
    )
    trainee.train_from_iterator(_without_rare_characters(texts, vocab_size), trainer)

    pieces = _scores(trainee)
    lowest = min(score for _, score in pieces)
    # Bytes must cost more than any real piece, or text falls apart into them.
    vocabulary = [
        *pieces[: len(SPECIAL_TOKENS)],
        *((token, lowest - 5.0) for token in BYTE_TOKENS),
        *pieces[len(SPECIAL_TOKENS) :],
        (MASK_TOKEN, 0.0),
    ]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=SPECIAL_TOKENS.index("<unk>"), byte_fallback=True)
    )
    _prepare(tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=MASK_TOKEN,
        model_input_names=["input_ids", "attention_mask"],
    )


def _without_rare_characters(texts: Iterable[str], vocab_size: int) -> list[str]:
    """The texts, with the characters that byte fallback shall write replaced by spaces.

    The trainer gives every character that it sees a piece of its own.
    """
    normalized = [unicodedata.normalize("NFKC", text) for text in texts]
    counts = Counter(character for text in normalized for character in text)
    covered, wanted = 0, CHARACTER_COVERAGE * counts.total()
    kept = set()
    for character, count in counts.most_common(vocab_size // 3):
        if covered >= wanted:
            break
        kept.add(character)
        covered += count
    rare = str.maketrans(dict.fromkeys(counts.keys() - kept, " "))
    return [text.translate(rare) for text in normalized]


def _prepare(tokenizer: Tokenizer) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            # One piece per digit and per mark leaves the vocabulary to words.
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )


def _scores(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    """The special tokens, then the pieces with their log probabilities, likeliest first.

    The trainer goes through hash tables whose order is another one each time. Made good here, so
    that the same texts give the same tokenizer: sums that differ in their last digits, and the
    characters that it adds at the end with arbitrary scores just above the lowest.
    """
    import json

    entries: list[tuple[str, float]] = json.loads(tokenizer.to_str())["model"]["vocab"]
    special = [(piece, score) for piece, score in entries[: len(SPECIAL_TOKENS)]]
    rounded = {piece: round(score, 8) for piece, score in entries[len(SPECIAL_TOKENS) :]}
    lowest = min(rounded.values())
    characters = [piece for piece in rounded if len(piece) == 1]
    arbitrary = lowest + TRAINER_STEP * len(characters)
    for piece in characters:
        if rounded[piece] < arbitrary:
            rounded[piece] = lowest
    return special + sorted(rounded.items(), key=lambda entry: (-entry[1], entry[0]))
