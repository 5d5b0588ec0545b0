"""LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685) as PEFT writes it to a folder."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import (
    AdapterConfigError,
    RankLimitError,
    TargetModulesError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ..core.bank import LowRank
    from ..core.base import EncoderShape

MAX_RANK = 512
KEY_PREFIX = "base_model.model."
ALL_LINEAR = "all-linear"
# Options of PEFT's LoraConfig that change what the adapter computes; each must be off.
UNSUPPORTED_OPTIONS = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "exclude_modules",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "lora_bias",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
# PEFT writes them among the targets of `all-linear`, but trains and saves the head as a whole.
HEAD_MODULES = ("classifier", "classifier.dense", "classifier.out_proj")
# Ways to draw the first weights; the others (PiSSA, OLoRA, CorDA…) change the base's own weights.
PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class LoraLayout:
    """What a LoRA config says of the tensors beside it."""

    rank: int
    """Rank of every module's update."""
    scale: float
    """Factor of the update: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    targets: tuple[str, ...]
    """Names as the config gives them, sorted."""
    modules: dict[str, tuple[int, int]]
    """The encoder's linear modules that are changed, each with its (out, in) features."""

    @classmethod
    def parse(cls, config: Mapping[str, Any], shape: EncoderShape) -> LoraLayout:
        """Read PEFT's `adapter_config.json`.

        Raises:
            UnsupportedAdapterError: another kind of adapter, or an option that isn't served.
            AdapterConfigError: a field that is missing or ill-typed.
            RankLimitError: a rank outside 1..MAX_RANK.
            TargetModulesError: targets that the base lacks.
        """
        check_kind(config)
        if config.get("bias", "none") != "none":
            raise UnsupportedAdapterError(
                f"adapter_config.json: bias is {config['bias']!r}; train with bias='none'"
            )
        for option in UNSUPPORTED_OPTIONS:
            if config.get(option):
                raise UnsupportedAdapterError(
                    f"adapter_config.json: {option} is {config[option]!r}, which this release "
                    "doesn't serve; train without it"
                )
        init = config.get("init_lora_weights")
        if init not in PLAIN_INITS:
            raise UnsupportedAdapterError(
                f"adapter_config.json: init_lora_weights is {init!r}, which changes the base's own "
                "weights; save it with save_pretrained(path_initial_model_for_weight_conversion=)"
            )
        rank = _integer(config, "r")
        if not 1 <= rank <= MAX_RANK:
            raise RankLimitError(f"adapter_config.json: r is {rank}; it must lie in 1..{MAX_RANK}")
        alpha = config.get("lora_alpha")
        if (
            isinstance(alpha, bool)
            or not isinstance(alpha, int | float)
            or not abs(alpha) <= sys.float_info.max
        ):
            raise AdapterConfigError(
                f"adapter_config.json: lora_alpha is {alpha!r}; expected a finite number"
            )
        targets, modules = _targets(config, shape)
        return cls(
            rank=rank,
            scale=alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank,
            targets=targets,
            modules=modules,
        )

    def tensors(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the tensors that must be there."""
        expected: dict[str, tuple[int, ...]] = {}
        for module, (rows, columns) in self.modules.items():
            at = f"{KEY_PREFIX}{shape.prefix}.{module}"
            expected[f"{at}.lora_A.weight"] = (self.rank, columns)
            expected[f"{at}.lora_B.weight"] = (rows, self.rank)
        return expected

    def build(self, tensors: Mapping[str, torch.Tensor], shape: EncoderShape) -> dict[str, LowRank]:
        """The low-rank updates by module, the scale folded in."""
        from ..core.bank import LowRank

        updates: dict[str, LowRank] = {}
        for module in self.modules:
            at = f"{KEY_PREFIX}{shape.prefix}.{module}"
            updates[module] = LowRank(
                down=tensors[f"{at}.lora_A.weight"].float(),
                up=tensors[f"{at}.lora_B.weight"].float() * self.scale,
            )
        return updates


def check_kind(config: Mapping[str, Any]) -> None:
    """Check that PEFT's config is one of LoRA.

    Raises:
        UnsupportedAdapterError: another kind of adapter.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedAdapterError(
            f"adapter_config.json: peft_type is {kind!r}; this release serves LORA"
        )


def _integer(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise AdapterConfigError(f"adapter_config.json: {key} is {value!r}; expected an integer")
    return value


def _targets(
    config: Mapping[str, Any], shape: EncoderShape
) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
    """The target names, and the modules that PEFT's rule (equal, or a suffix) finds."""
    given = config.get("target_modules")
    linears = shape.linears()
    if given == ALL_LINEAR:
        targets: tuple[str, ...] = (ALL_LINEAR,)
        modules = linears
    elif isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        targets = tuple(sorted(given))
        full = {f"{shape.prefix}.{name}": name for name in linears}
        modules = {}
        for target in targets:
            found = [own for name, own in full.items() if _matches(name, target)]
            if not found and not any(_matches(name, target) for name in HEAD_MODULES):
                raise TargetModulesError(
                    f"adapter_config.json: target module {target!r} matches no linear module of "
                    f"the base; it has {', '.join(sorted({n.rsplit('.', 1)[1] for n in linears}))}"
                )
            modules.update({name: linears[name] for name in found})
    else:
        raise TargetModulesError(
            f"adapter_config.json: target_modules is {str(given)[:80]!r}; expected a list of names"
        )
    layers = config.get("layers_to_transform")
    if layers not in (None, []):
        chosen = layers if isinstance(layers, list) else [layers]
        if any(isinstance(layer, bool) or not isinstance(layer, int) for layer in chosen):
            raise AdapterConfigError(
                f"adapter_config.json: layers_to_transform is {str(layers)[:80]}; expected integers"
            )
        modules = {name: size for name, size in modules.items() if _layer(name) in chosen}
    if not modules:
        raise TargetModulesError(
            f"adapter_config.json: target_modules {', '.join(targets)[:80]} in layers_to_transform "
            f"{str(layers)[:80]} leave nothing to change; the base has layers 0..{shape.layers - 1}"
        )
    return targets, modules


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _layer(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None
