"""The embedded base: small, whole, and loaded by transformers alone."""

from __future__ import annotations

import math

import pytest

from isogloss.core.base import EMBEDDED_FOLDER, fingerprint, locate_base

LARGEST = 25_000_000
SENTENCES = (
    "The city was founded in the year 1850 and has a large park.",
    "Die Stadt liegt im Süden des Landes und hat einen großen Park.",
    "La ciudad está situada en el sur del país y tiene un gran parque.",
    "A cidade fica no sul do país e tem um grande parque.",
    "Kota itu terletak di bagian selatan negara dan memiliki taman besar.",
)
MANY_SCRIPTS = "Päckli 我張單 посылка طرد พัสดุ 택배 පාර්සලය 📦 ⵣ 𓂀 ꯃꯤ"


def test_size_and_card() -> None:
    files = {path.name: path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()}
    assert sum(files.values()) <= LARGEST
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8")
    assert fingerprint(locate_base("mini")).digest in card


def test_loads_by_transformers_and_has_learnt_something() -> None:
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    from isogloss.core.encoder import quiet_transformers

    with quiet_transformers():
        encoder = AutoModel.from_pretrained(EMBEDDED_FOLDER, add_pooling_layer=False)
        model, report = AutoModelForMaskedLM.from_pretrained(
            EMBEDDED_FOLDER, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    assert encoder.config.model_type == "xlm-roberta"
    assert not report["missing_keys"]
    assert len(tokenizer) == model.config.vocab_size
    losses = []
    with torch.no_grad():
        for sentence in SENTENCES:
            ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
            for position in range(2, ids.shape[1] - 1, 3):
                masked = ids.clone()
                masked[0, position] = tokenizer.mask_token_id
                logits = model(masked).logits[0, position]
                losses.append(-float(logits.log_softmax(-1)[ids[0, position]]))
    uniform = math.log(model.config.vocab_size)
    assert sum(losses) / len(losses) < 0.65 * uniform


@pytest.mark.parametrize("text", MANY_SCRIPTS.split())
def test_no_text_is_unknown(text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text
