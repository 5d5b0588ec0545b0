"""The transformers model around which an adapter is trained: a base with a head for its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.encoder import (
    check_complete,
    check_tokenizer,
    load_tokenizer,
    loading_errors,
    quiet_transformers,
)
from ..core.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..core.base import BaseFiles
    from .tasks import Task


def load_host(
    base: BaseFiles, task: Task[Any, Any], *, outputs: int | None, dropout: float
) -> tuple[PreTrainedTokenizerBase, Any]:
    """The base's tokenizer, and its model for a task, in fp32, all of it frozen but the head.

    Args:
        base: the base.
        task: the type of task.
        outputs: how many outputs its head has; None: as the model has it.
        dropout: in the head.

    Raises:
        UnsupportedBaseError: a base that is damaged, or lacks what the task needs.
    """
    import torch
    import transformers

    options: dict[str, Any] = {} if outputs is None else {"num_labels": outputs}
    with quiet_transformers(), loading_errors(base):
        tokenizer = load_tokenizer(base)
        host, report = getattr(transformers, task.host).from_pretrained(
            base.folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            classifier_dropout=dropout,
            output_loading_info=True,
            **options,
        )
    check_tokenizer(base, tokenizer)
    missing = [
        key.removeprefix(f"{base.shape.prefix}.")
        for key in report["missing_keys"]
        # The head is new, and an embedding has no use for a pooler.
        if not key.startswith(tuple(f"{part}." for part in (*task.head, *_unread(task))))
    ]
    if task.task_type == "masked-lm" and any(key.startswith(("lm_head", "cls")) for key in missing):
        raise UnsupportedBaseError(
            f"{base.folder} was saved without a masked-LM head, which masked-lm needs; save it "
            "with AutoModelForMaskedLM"
        )
    check_complete(base, missing)
    host.requires_grad_(requires_grad=False)
    for part in task.head:
        host.get_submodule(part).requires_grad_(requires_grad=True)
    return tokenizer, host


def _unread(task: Task[Any, Any]) -> tuple[str, ...]:
    return ("pooler",) if task.task_type == "embedding" else ()
