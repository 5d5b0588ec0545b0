"""Training in several processes, as `accelerate launch` begins them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from isogloss.adapters.training import TrainingConfig, train

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import SpecOf

SCRIPT = """
import json, sys
import torch
from isogloss.adapters.training import TrainingConfig, train

torch.set_num_threads(1)
settings = json.loads(sys.argv[1])
settings["targets"] = tuple(settings["targets"])
train(TrainingConfig(**settings), show_progress=False)
"""


def test_two_processes_give_what_one_gives(
    training_settings: dict[str, Any], tmp_path: Path, spec_of: SpecOf
) -> None:
    settings = training_settings | {"dropout": 0.0, "epochs": 2, "learning_rate": 1e-3}
    alone = train(TrainingConfig(out=str(tmp_path / "alone"), **settings), show_progress=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"),
            *("--num_machines", "1", "--mixed_precision", "no", "--main_process_port", "0"),
            *(str(tmp_path / "script.py"), json.dumps(settings | {"out": str(out)})),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out", "script.py"]
    expected, found = (load_file(each / "adapter_model.safetensors") for each in (alone, out))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-4, rtol=1e-3)
    assert spec_of(out).metrics == spec_of(alone).metrics
