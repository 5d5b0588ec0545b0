"""What is trained around a frozen base: PEFT's modules, or our bottlenecks."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ..core.encoder import quiet_transformers
from .describe import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE
from .layout import complete_spec, parse_layout
from .spec import BottleneckSpec
from .targets import POOLER
from .trained_bottleneck import attach_bottlenecks, bottleneck_tensors
from .weights import read_header
from .writing import write_bottleneck_folder

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from ..core.base import BaseFiles, EncoderShape
    from .spec import AdapterSpec, Kind
    from .tasks import Task
    from .training_config import TrainingConfig

# AdaLoRA begins with more ranks than it keeps, and lets its allocator work in between.
ADALORA_START = 1.5
ADALORA_BEFORE, ADALORA_AFTER = 0.1, 0.3  # shares of the steps
# PEFT draws a prefix from a normal distribution of deviation 1, beside which keys are small.
PREFIX_DEVIATION = 0.02


class Trainable(Protocol):
    """A host model with an adapter in it."""

    model: nn.Module
    """What has parameters that are trained."""
    host: Any
    """The transformers model inside."""
    kind: Kind
    """How the served adapter is called."""

    def penalty(self) -> torch.Tensor | None:
        """What is added to a step's loss."""
        ...

    def after_step(self, step: int) -> None:
        """Called after the optimizer's step, before gradients are let go.

        Args:
            step: from 1.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside parameters."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take that back."""
        ...

    def write(self, folder: Path, spec: AdapterSpec, base: BaseFiles) -> AdapterSpec:
        """Write weights and config.

        Returns:
            The spec, with what they say.
        """
        ...


class PeftTrainable:
    """A model of PEFT's."""

    def __init__(self, host: Any, config: Any, kind: Kind) -> None:
        with quiet_transformers():
            from peft import get_peft_model
        with warnings.catch_warnings():
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            self.model: Any = get_peft_model(host, config)
        self.host = self.model.get_base_model()
        self.kind = kind
        if kind == "prefix":
            embedding = self.model.prompt_encoder[self.model.active_adapter].embedding
            embedding.weight.data *= PREFIX_DEVIATION

    def penalty(self) -> torch.Tensor | None:
        """Nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def write(self, folder: Path, spec: AdapterSpec, base: BaseFiles) -> AdapterSpec:
        """PEFT's own files."""
        self.model.peft_config["default"].base_model_name_or_path = base.name
        # Embeddings are frozen; to find that out by itself, peft would ask the Hub for the base.
        self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / CONFIG_FILE).read_text())
        header = read_header((folder / WEIGHTS_FILE).read_bytes())
        layout = parse_layout(spec, config, base.shape, header)
        return complete_spec(spec, layout, base.shape)


class AdaLoraTrainable(PeftTrainable):
    """AdaLoRA: its orthogonality and its allocator, which PEFT's own forward would look after."""

    def penalty(self) -> torch.Tensor | None:
        """How far from orthogonal the updates' factors are, as PEFT weighs it."""
        import torch

        distances = []
        for name, factor in self.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = factor @ factor.T if "lora_A" in name else factor.T @ factor
                identity = torch.eye(len(product), device=product.device)
                distances.append((product - identity).norm())
        weight: float = self.model.peft_config["default"].orth_reg_weight
        return weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Let the allocator take ranks away."""
        self.model.base_model.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        """The allocator's averages."""
        allocator = self.model.base_model.rankallocator
        return {
            "pattern": self.model.peft_config["default"].rank_pattern,
            "importance": dict(allocator.exp_avg_ipt),
            "uncertainty": dict(allocator.exp_avg_unc),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        allocator = self.model.base_model.rankallocator
        self.model.peft_config["default"].rank_pattern = state["pattern"]
        allocator.exp_avg_ipt = dict(state["importance"])
        allocator.exp_avg_unc = dict(state["uncertainty"])
        # The allocator fills in each name of `ipt` that it hasn't seen, and its averages with it.
        allocator.ipt = dict(state["importance"])

    def write(self, folder: Path, spec: AdapterSpec, base: BaseFiles) -> AdapterSpec:
        """PEFT's own files, the ranks that these weights have kept."""
        # The best weights may be of an epoch before the last allocation.
        pattern = {
            name: (values != 0).flatten().tolist()
            for name, values in self.model.base_model.model.named_parameters()
            if "lora_E" in name
        }
        for kept in pattern.values():
            kept[0] = kept[0] or not any(kept)  # PEFT warns of empty tensors
        self.model.peft_config["default"].rank_pattern = pattern
        return super().write(folder, spec, base)


class BottleneckTrainable:
    """A transformers model with bottlenecks in it."""

    kind: Kind = "bottleneck"

    def __init__(self, host: Any, form: BottleneckSpec, shape: EncoderShape) -> None:
        self.model: nn.Module = host
        self.host = host
        self.form = form
        self.layout = attach_bottlenecks(host.base_model, form, shape)

    def penalty(self) -> torch.Tensor | None:
        """Nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def write(self, folder: Path, spec: AdapterSpec, base: BaseFiles) -> AdapterSpec:
        """Our own files."""
        spec = replace(spec, bottleneck=self.form)
        tensors = bottleneck_tensors(self.host, self.layout)
        encoder = {id(parameter) for parameter in self.host.base_model.parameters()}
        tensors |= {
            name: parameter.detach().cpu().numpy()
            for name, parameter in self.host.named_parameters()
            if parameter.requires_grad and id(parameter) not in encoder
        }
        write_bottleneck_folder(folder, spec, tensors, base.shape)
        return type(spec).from_json((folder / SPEC_FILE).read_bytes())


def make_trainable(
    host: Any, task: Task[Any, Any], config: TrainingConfig, shape: EncoderShape, *, steps: int
) -> Trainable:
    """Put an adapter into a host model.

    Args:
        host: the model, its linears prepared.
        task: the type of task.
        config: the settings.
        shape: the encoder's.
        steps: how many the run may have, of which AdaLoRA makes a plan.
    """
    if config.kind in ("bottleneck", "houlsby", "pfeiffer"):
        placement = "houlsby" if config.kind == "houlsby" else "pfeiffer"
        form = BottleneckSpec(placement=placement, size=config.size)  # type: ignore[arg-type]
        return BottleneckTrainable(host, form, shape)
    with quiet_transformers():  # peft imports bitsandbytes, which warns
        import peft
    common: dict[str, Any] = {"task_type": task.peft_task}
    if config.kind == "prefix":
        prefix = peft.PrefixTuningConfig(num_virtual_tokens=config.size, **common)
        return PeftTrainable(host, prefix, "prefix")
    common |= {
        "lora_alpha": config.scale,
        # On a CPU, dropout before each update took a fifth of a run's time.
        "lora_dropout": 0.0,
        "target_modules": list(config.modules),
        "modules_to_save": list(task.head) or None,
        "exclude_modules": _unserved(task, config, shape) or None,
    }
    if config.adapters_from_layer:
        common["layers_to_transform"] = list(range(config.adapters_from_layer, shape.layers))
    if config.kind != "adalora":
        lora = peft.LoraConfig(
            r=config.size,
            use_rslora=config.kind == "rslora",
            use_dora=config.kind == "dora",
            **common,
        )
        return PeftTrainable(host, lora, "lora")
    adalora = peft.AdaLoraConfig(
        init_r=max(config.size + 1, math.ceil(ADALORA_START * config.size)),
        target_r=config.size,
        tinit=int(ADALORA_BEFORE * steps),
        tfinal=int(ADALORA_AFTER * steps),
        total_step=steps,
        **common,
    )
    return AdaLoraTrainable(host, adalora, "lora")


def _unserved(task: Task[Any, Any], config: TrainingConfig, shape: EncoderShape) -> list[str]:
    """Modules that the targets reach, but that aren't an adapter's to change."""
    if "dense" not in config.modules:
        return []
    if task.task_type == "embedding":
        return [POOLER]
    if task.task_type == "masked-lm":
        is_bert = shape.model_type == "bert"
        return ["cls.predictions.transform.dense" if is_bert else "lm_head.dense"]
    return []
