"""LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685) as PEFT writes it to a folder.

With rsLoRA's scale (https://arxiv.org/abs/2312.03732) and DoRA's magnitudes
(https://arxiv.org/abs/2402.09353).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import (
    AdapterConfigError,
    NonFiniteWeightsError,
    RankLimitError,
    UnsupportedAdapterError,
)
from .targets import HostModel, Patterns, find_targets
from .weights import as_tensor, check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from ..core.delta import LowRank
    from .spec import TaskType

MAX_RANK = 512
KEY_PREFIX = "base_model.model."
# Options of PEFT's LoraConfig that change what the adapter computes, or which tensors it has, in
# ways that aren't served; each must be off.
UNSUPPORTED_OPTIONS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
# Ways to draw the first weights; the others (PiSSA, OLoRA, CorDA…) change the base's own weights.
PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class LoraModule:
    """The update of one module."""

    rows: int
    """Its output features."""
    columns: int
    """Its input features."""
    rank: int
    """Rank of the update."""
    scale: float
    """Factor of the update: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""


@dataclass(frozen=True, kw_only=True)
class LoraLayout:
    """What a LoRA config says of the tensors beside it."""

    rank: int
    """The largest rank of any module's update."""
    targets: tuple[str, ...]
    """Names as the config gives them, sorted; or one pattern."""
    modules: dict[str, LoraModule]
    """The encoder's linear modules that are changed."""
    key_prefix: str
    """What stands before a module's name in the names of tensors."""
    has_magnitudes: bool
    """Whether it is DoRA."""

    @classmethod
    def parse(
        cls,
        config: Mapping[str, Any],
        shape: EncoderShape,
        *,
        task_type: TaskType = "sequence-classification",
        names: Collection[str] = (),
    ) -> LoraLayout:
        """Read PEFT's `adapter_config.json`.

        Args:
            config: its content.
            shape: the base's.
            task_type: what the adapter does.
            names: names of its tensors, as far as they are known.

        Raises:
            UnsupportedAdapterError: another kind of adapter, or an option that isn't served.
            AdapterConfigError: a field that is missing or ill-typed.
            RankLimitError: a rank outside 1..MAX_RANK.
            TargetModulesError: targets that the base lacks.
        """
        check_kind(config, "LORA")
        check_options(config)
        rank = checked_rank("r", config.get("r"))
        alpha = checked_number("lora_alpha", config.get("lora_alpha"))
        patterns = Patterns()
        host = HostModel.of(shape, task_type, names)
        targets, sizes = find_targets(config, shape, host, patterns)
        ranks = {
            pattern: checked_rank(f"rank_pattern of {pattern[:80]!r}", value)
            for pattern, value in _pattern_table(config, "rank_pattern").items()
        }
        alphas = {
            pattern: checked_number(f"alpha_pattern of {pattern[:80]!r}", value)
            for pattern, value in _pattern_table(config, "alpha_pattern").items()
        }
        modules = {}
        for module, (rows, columns) in sizes.items():
            name = host.prefix + module
            rank_key = patterns.key("rank_pattern", ranks, name)
            alpha_key = patterns.key("alpha_pattern", alphas, name)
            own_rank = rank if rank_key is None else ranks[rank_key]
            own_alpha = alpha if alpha_key is None else alphas[alpha_key]
            divisor = math.sqrt(own_rank) if config.get("use_rslora") else own_rank
            modules[module] = LoraModule(
                rows=rows, columns=columns, rank=own_rank, scale=own_alpha / divisor
            )
        return cls(
            rank=max(module.rank for module in modules.values()),
            targets=targets,
            modules=modules,
            key_prefix=KEY_PREFIX + host.prefix,
            has_magnitudes=bool(config.get("use_dora")),
        )

    def tensors(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """The names and shapes of the tensors that must be there."""
        expected: dict[str, tuple[int, ...]] = {}
        for name, module in self.modules.items():
            at = self.key_prefix + name
            expected[f"{at}.lora_A.weight"] = (module.rank, module.columns)
            expected[f"{at}.lora_B.weight"] = (module.rows, module.rank)
            if self.has_magnitudes:
                expected[f"{at}.lora_magnitude_vector"] = (module.rows,)
        return expected

    def without(self, module: str) -> LoraLayout:
        """The same without a module."""
        kept = {name: each for name, each in self.modules.items() if name != module}
        return replace(self, modules=kept)

    def updates(
        self, arrays: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Of each module `down` [rank, in], and `up` [out, rank] with the scale folded in.

        Raises:
            AdapterConfigError: the scale carries values out of fp32's range.
        """
        import numpy as np

        found = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for name, module in self.modules.items():
                at = self.key_prefix + name
                up = arrays[f"{at}.lora_B.weight"] * module.scale
                found[name] = (arrays[f"{at}.lora_A.weight"], up.astype(np.float32, copy=False))
                if abs(module.scale) > 1:
                    check_range(name, "lora_alpha", up)
        return found

    def build(
        self,
        arrays: Mapping[str, NDArray[np.float32]],
        dense_weight: Callable[[str], torch.Tensor],
    ) -> dict[str, LowRank]:
        """The low-rank updates by module, the scale folded in.

        Args:
            arrays: all tensors of the folder.
            dense_weight: the base's weight `[out, in]` of a module, in fp32; DoRA needs it.

        Raises:
            AdapterConfigError: the scale carries values out of fp32's range.
            NonFiniteWeightsError: DoRA's norms make no finite gain.
        """
        from ..core.delta import LowRank

        result = {}
        for name, (down, up) in self.updates(arrays).items():
            update = LowRank(down=as_tensor(down), up=as_tensor(up))
            if self.has_magnitudes:
                magnitudes = arrays[f"{self.key_prefix}{name}.lora_magnitude_vector"]
                update = _with_gain(name, update, as_tensor(magnitudes), dense_weight(name))
            result[name] = update
        return result


def _with_gain(
    module: str, update: LowRank, magnitudes: torch.Tensor, weight: torch.Tensor
) -> LowRank:
    """DoRA: magnitudes [out] over the norms of the updated weight's rows."""
    from ..core.delta import LowRank

    # [out, in]
    updated = weight.cpu().float().addmm(update.up, update.down)
    gain = magnitudes / updated.norm(dim=1)
    up = update.up * gain[:, None]
    if not (gain.isfinite().all() and up.isfinite().all()):
        raise NonFiniteWeightsError(
            f"adapter_model.safetensors: the magnitudes of {module} make no finite gain (DoRA); "
            "train the adapter again"
        )
    return LowRank(down=update.down, up=up, gain=gain)


def check_kind(config: Mapping[str, Any], kind: str) -> None:
    """Check that PEFT's config is one of a kind.

    Raises:
        UnsupportedAdapterError: another kind of adapter.
    """
    found = config.get("peft_type")
    if found != kind:
        raise UnsupportedAdapterError(
            f"adapter_config.json: peft_type is {found!r}, expected {kind}"
        )


def check_options(config: Mapping[str, Any]) -> None:
    """Check that a LoRA or AdaLoRA config has no option that isn't served.

    Raises:
        UnsupportedAdapterError: it has one; the message names it.
    """
    if config.get("bias", "none") != "none":
        raise UnsupportedAdapterError(
            f"adapter_config.json: bias is {config['bias']!r}; train with bias='none'"
        )
    for option in UNSUPPORTED_OPTIONS:
        if config.get(option):
            raise UnsupportedAdapterError(
                f"adapter_config.json: {option} is {config[option]!r:.80}, which this release "
                "doesn't serve; train without it"
            )
    init = config.get("init_lora_weights")
    if init not in PLAIN_INITS:
        raise UnsupportedAdapterError(
            f"adapter_config.json: init_lora_weights is {init!r}, which changes the base's own "
            "weights; save it with save_pretrained(path_initial_model_for_weight_conversion=)"
        )


def checked_rank(field: str, rank: Any) -> int:
    """A rank as a config has it.

    Raises:
        AdapterConfigError: no integer.
        RankLimitError: outside 1..MAX_RANK.
    """
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise AdapterConfigError(
            f"adapter_config.json: {field} is {rank!r:.80}; expected an integer"
        )
    if not 1 <= rank <= MAX_RANK:
        raise RankLimitError(
            f"adapter_config.json: {field} is {rank}; it must lie in 1..{MAX_RANK}"
        )
    return rank


def checked_number(field: str, value: Any) -> float:
    """A finite number as a config has it.

    Raises:
        AdapterConfigError: something else.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= sys.float_info.max
    ):
        raise AdapterConfigError(
            f"adapter_config.json: {field} is {value!r:.80}; expected a finite number"
        )
    return value


def _pattern_table(config: Mapping[str, Any], field: str) -> dict[str, Any]:
    table = config.get(field) or {}
    if not isinstance(table, dict):
        raise AdapterConfigError(
            f"adapter_config.json: {field} is {str(table)[:80]}; expected a value for each pattern"
        )
    return table
