"""Types of tasks, each one object: rows, encoding, head, loss, decisions and figures."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import (
    embedding,
    masked_lm,
    question_answering,
    reranking,
    sequence_classification,
    token_classification,
)
from .task import Encoding, Example, Figures, Objective, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..spec import TaskType

__all__ = ["TASKS", "Encoding", "Example", "Figures", "Objective", "Task"]

TASKS: Mapping[TaskType, Task[Any, Any]] = MappingProxyType(
    {
        module.TASK.task_type: module.TASK
        for module in (
            sequence_classification,
            token_classification,
            embedding,
            reranking,
            masked_lm,
            question_answering,
        )
    }
)
