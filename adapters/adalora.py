"""AdaLoRA (Zhang et al., 2023, https://arxiv.org/abs/2303.10512) as PEFT exports it.

Each update is `B diag(E) A`, of which the allocator has kept some ranks in each module. PEFT
divides by the rank at the start plus 1e-5, whatever is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import AdapterConfigError
from .lora import (
    KEY_PREFIX,
    LoraModule,
    check_kind,
    check_options,
    checked_number,
    checked_rank,
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

EPSILON = 1e-5
PATTERN_ENDING = ".lora_E"


@dataclass(frozen=True, kw_only=True)
class AdaLoraLayout:
    """What an AdaLoRA config says of the tensors beside it."""

    rank: int
    """The largest rank that any module has kept."""
    targets: tuple[str, ...]
    """Names as the config gives them, sorted; or one pattern."""
    modules: dict[str, LoraModule]
    """The encoder's linear modules that are changed; some may have kept no rank at all."""
    key_prefix: str
    """What stands before a module's name in the names of tensors."""

    @classmethod
    def parse(
        cls,
        config: Mapping[str, Any],
        shape: EncoderShape,
        *,
        task_type: TaskType = "sequence-classification",
        names: Collection[str] = (),
    ) -> AdaLoraLayout:
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
        check_kind(config, "ADALORA")
        check_options(config)
        rank = checked_rank("init_r", config.get("init_r"))
        alpha = checked_number("lora_alpha", config.get("lora_alpha"))
        host = HostModel.of(shape, task_type, names)
        targets, sizes = find_targets(config, shape, host, Patterns())
        kept = _kept_ranks(config, rank)
        differing = sorted(kept.keys() ^ {host.prefix + name for name in sizes})
        if kept and differing:
            raise AdapterConfigError(
                "adapter_config.json: rank_pattern and target_modules disagree on "
                f"{differing[0][:80]!r}; save the adapter again"
            )
        modules = {}
        for module, (rows, columns) in sizes.items():
            own = kept.get(host.prefix + module, rank)
            # PEFT: without a positive alpha the rank stands in its place.
            factor = alpha if alpha > 0 else own
            modules[module] = LoraModule(
                rows=rows, columns=columns, rank=own, scale=factor / (rank + EPSILON)
            )
        return cls(
            rank=max(1, *(module.rank for module in modules.values())),
            targets=targets,
            modules=modules,
            key_prefix=KEY_PREFIX + host.prefix,
        )

    def tensors(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """The names and shapes of the tensors that must be there."""
        expected: dict[str, tuple[int, ...]] = {}
        for name, module in self.modules.items():
            at = self.key_prefix + name
            expected[f"{at}.lora_A"] = (module.rank, module.columns)
            expected[f"{at}.lora_B"] = (module.rows, module.rank)
            expected[f"{at}.lora_E"] = (module.rank, 1)
        return expected

    def without(self, module: str) -> AdaLoraLayout:
        """The same without a module."""
        kept = {name: each for name, each in self.modules.items() if name != module}
        return replace(self, modules=kept)

    def updates(
        self, arrays: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Of each module that has kept a rank `down` [rank, in], and `up` [out, rank].

        Scale and singular values are folded into `up`.

        Raises:
            AdapterConfigError: they carry values out of fp32's range.
        """
        import numpy as np

        found = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for name, module in self.modules.items():
                if module.rank == 0:
                    continue
                at = self.key_prefix + name
                up = arrays[f"{at}.lora_B"] * arrays[f"{at}.lora_E"][:, 0] * module.scale
                check_range(name, "lora_alpha", up)
                found[name] = (arrays[f"{at}.lora_A"], up.astype(np.float32, copy=False))
        return found

    def build(
        self,
        arrays: Mapping[str, NDArray[np.float32]],
        dense_weight: Callable[[str], torch.Tensor],  # noqa: ARG002
    ) -> dict[str, LowRank]:
        """The low-rank updates by module; those that have kept no rank are left out.

        Raises:
            AdapterConfigError: the scale carries values out of fp32's range.
        """
        from ..core.delta import LowRank

        return {
            name: LowRank(down=as_tensor(down), up=as_tensor(up))
            for name, (down, up) in self.updates(arrays).items()
        }


def _kept_ranks(config: Mapping[str, Any], rank: int) -> dict[str, int]:
    """Of each module of the host model how many ranks the allocator has kept."""
    pattern = config.get("rank_pattern") or {}
    kept = {}
    for name, mask in pattern.items() if isinstance(pattern, dict) else [("", None)]:
        if (
            not name.endswith(PATTERN_ENDING)
            or not isinstance(mask, list)
            or len(mask) != rank
            or not all(isinstance(bit, bool) for bit in mask)
        ):
            raise AdapterConfigError(
                f"adapter_config.json: rank_pattern is {str(pattern)[:80]}; expected {rank} times "
                f"true or false for each module's {PATTERN_ENDING.lstrip('.')}"
            )
        kept[name.removesuffix(PATTERN_ENDING)] = sum(mask)
    return kept
