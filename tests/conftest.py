from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "el rápido zorro marrón salta sobre el perro perezoso",
    "wo isch mys päckli, es isch no nid aacho",
    "ich möchte meine bestellung zurückgeben, bitte",
    "dónde está mi pedido? todavía no ha llegado!",
    "привет, где мой заказ",
    "我的订单在哪里",
)
XLM_ROBERTA, BERT = "xlm-roberta", "bert"
HIDDEN, LAYERS, MAX_TOKENS = 16, 2, 40
# Keeps the size of activations from layer to layer: a mistake in any part shows in the result,
# and rounding does not grow.
INITIALIZER_RANGE = 0.25


class TinyBase(Protocol):
    """Gives a folder with a random tiny encoder and its tokenizer; the same one for the same seed.

    `saved_as` is the transformers class that wrote the weights.
    """

    def __call__(
        self, model_type: str, *, saved_as: str = "AutoModel", seed: int = 0, **save_options: Any
    ) -> Path: ...


class PeftAdapter(Protocol):
    """Writes an adapter through PEFT, all of its weights random; another one on each call."""

    def __call__(
        self,
        base: Path,
        *,
        rank: int = 4,
        alpha: float = 8,
        rslora: bool = False,
        targets: Sequence[str] | str = ("query", "value"),
        labels: int = 3,
        **options: Any,
    ) -> Path: ...


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data, which is no part of the repository."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("ISOGLOSS_SHARED") or root.parent / "shared")
    if not folder.is_dir():
        problem = f"no reference data at {folder}; set ISOGLOSS_SHARED"
        if os.environ.get("ISOGLOSS_REQUIRE_SHARED") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    parent = tmp_path_factory.mktemp("bases")
    made: dict[str, Path] = {}

    def make(
        model_type: str, *, saved_as: str = "AutoModel", seed: int = 0, **save_options: Any
    ) -> Path:
        key = json.dumps([model_type, saved_as, seed, save_options])
        if key not in made:
            folder = parent / f"tiny-{model_type}-{len(made)}"
            _save_base(folder, model_type, saved_as, seed, save_options)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def peft_adapter(tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    parent = tmp_path_factory.mktemp("peft")
    numbers = itertools.count()

    def make(
        base: Path,
        *,
        rank: int = 4,
        alpha: float = 8,
        rslora: bool = False,
        targets: Sequence[str] | str = ("query", "value"),
        labels: int = 3,
        **options: Any,
    ) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification

        from isogloss.core.encoder import quiet_transformers

        number = next(numbers)
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            use_rslora=rslora,
            target_modules=targets if isinstance(targets, str) else list(targets),
            **options,
        )
        adapted = get_peft_model(model, config)
        generator = torch.Generator().manual_seed(1000 + number)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                values = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(values / parameter.shape[-1] ** 0.5)
        folder = parent / f"adapter-{number}"
        adapted.save_pretrained(str(folder))
        return folder

    return make


def _save_base(
    folder: Path, model_type: str, saved_as: str, seed: int, save_options: dict[str, Any]
) -> None:
    import torch
    import transformers

    from isogloss.core.encoder import quiet_transformers

    tokenizer = _tokenizer(model_type)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 2 * HIDDEN,
        "initializer_range": INITIALIZER_RANGE,
    }
    classes: Any = transformers
    config: Any
    if model_type == XLM_ROBERTA:
        config = transformers.XLMRobertaConfig(
            **sizes, max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1, pad_token_id=1
        )
    else:
        config = transformers.BertConfig(
            **sizes, max_position_embeddings=MAX_TOKENS, type_vocab_size=2, pad_token_id=0
        )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        encoder = classes.AutoModel.from_config(config)
        for parameter in encoder.parameters():  # biases too, which would all be zero
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn(parameter.shape)
        model = encoder
        if saved_as != "AutoModel":
            model = getattr(classes, saved_as).from_config(config)
            own = model.base_model.state_dict().keys()
            model.base_model.load_state_dict(
                {name: value for name, value in encoder.state_dict().items() if name in own}
            )
        model.save_pretrained(folder, **save_options)
        tokenizer.save_pretrained(folder)


def _tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if model_type == XLM_ROBERTA:
        special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=120,
            special_tokens=list(special.values()),
            unk_token="<unk>",
            show_progress=False,
        )
        single, pair = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    else:
        special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=160, special_tokens=list(special.values()), show_progress=False
        )
        single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[
            (token, tokenizer.token_to_id(token)) for token in (special["cls"], special["sep"])
        ],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        **{f"{name}_token": token for name, token in special.items()},
    )
