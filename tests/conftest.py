from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedTokenizerFast

    from isogloss.core.packing import Row

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
    """Writes an adapter through PEFT, all of its weights random; another one on each call.

    `task_type` is PEFT's, None for masked-LM; `kind` is `lora`, `adalora` or `prefix`, of which
    `rank` is the length. Further options go to PEFT's config.
    """

    def __call__(
        self,
        base: Path,
        *,
        task_type: str | None = "SEQ_CLS",
        kind: str = "lora",
        rank: int = 4,
        alpha: float = 8,
        rslora: bool = False,
        targets: Sequence[str] | str = ("query", "value"),
        labels: int = 3,
        **options: Any,
    ) -> Path: ...


class PeftAlone(Protocol):
    """What an adapter folder answers in plain PEFT, one row at a time, as our heads would."""

    def __call__(
        self, folder: Path, base: Path, rows: Sequence[Row], *, pooling: str = "mean"
    ) -> list[torch.Tensor]: ...


# PEFT's task type → the transformers class around which it is wrapped
MODEL_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
    None: "AutoModelForMaskedLM",
}


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
        task_type: str | None = "SEQ_CLS",
        kind: str = "lora",
        rank: int = 4,
        alpha: float = 8,
        rslora: bool = False,
        targets: Sequence[str] | str = ("query", "value"),
        labels: int = 3,
        **options: Any,
    ) -> Path:
        import peft
        import torch

        number = next(numbers)
        common: dict[str, Any] = {"task_type": task_type, **options}
        if kind != "prefix":
            common |= {
                "lora_alpha": alpha,
                "target_modules": targets if isinstance(targets, str) else list(targets),
            }
        config: Any
        if kind == "lora":
            config = peft.LoraConfig(r=rank, use_rslora=rslora, **common)
        elif kind == "adalora":
            config = peft.AdaLoraConfig(init_r=rank, target_r=1, total_step=10, **common)
        else:
            config = peft.PrefixTuningConfig(num_virtual_tokens=rank, **common)
        adapted = peft.get_peft_model(_host_model(base, task_type, labels), config)
        generator = torch.Generator().manual_seed(1000 + number)
        for name, parameter in adapted.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name:
                parameter.data *= 1 + 0.3 * values
            elif "ranknum" not in name and any(
                part in name for part in ("lora_", "modules_to_save", "prompt_encoder")
            ):
                parameter.data.copy_(values / parameter.shape[-1] ** 0.5)
        folder = parent / f"adapter-{number}"
        adapted.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def peft_alone() -> PeftAlone:
    def compute(
        folder: Path, base: Path, rows: Sequence[Row], *, pooling: str = "mean"
    ) -> list[torch.Tensor]:
        import torch
        from peft import PeftModel
        from safetensors.torch import load_file

        task_type = json.loads((folder / "adapter_config.json").read_text())["task_type"]
        biases = [
            tensor
            for name, tensor in load_file(folder / "adapter_model.safetensors").items()
            if name.endswith(("classifier.bias", "classifier.out_proj.bias"))
        ]
        host = _host_model(base, task_type, len(biases[0]) if biases else 0)
        model = PeftModel.from_pretrained(host, str(folder)).eval()
        answers = []
        for row in rows:
            types = {"token_type_ids": torch.tensor([row.type_ids])} if row.type_ids else {}
            with torch.inference_mode():
                output = model(
                    input_ids=torch.tensor([row.token_ids]),
                    attention_mask=torch.ones(1, len(row.token_ids), dtype=torch.long),
                    **types,
                )
            if task_type == "QUESTION_ANS":
                answer = torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)
            elif task_type == "FEATURE_EXTRACTION":
                hidden = output.last_hidden_state[0]
                pooled = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
                answer = pooled / pooled.norm()
            else:
                answer = output.logits[0]
            answers.append(answer)
        return answers

    return compute


def _host_model(base: Path, task_type: str | None, labels: int) -> Any:
    import transformers

    from isogloss.core.encoder import quiet_transformers

    with_labels = {"num_labels": labels} if task_type in ("SEQ_CLS", "TOKEN_CLS") else {}
    with quiet_transformers():
        return getattr(transformers, MODEL_CLASSES[task_type]).from_pretrained(base, **with_labels)


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
