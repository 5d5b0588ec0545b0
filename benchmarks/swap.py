"""From disk into the serving model, from one resident to another, and to a new version under load.

`python -m benchmarks.swap --json`. XLM-R-base's real shape with random weights; LoRA of rank 8 on
query and value. A cold load goes from a registry's files to a slot: read, checked, laid out, copied
(their digests were checked when this process first read them). PEFT's `load_adapter` brings the
same folder into a model with as many residents, as far as that takes seconds and not minutes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isogloss import Hub, Registry
from isogloss.core.engine import Engine
from isogloss.serving.host_cache import HostCache
from isogloss.serving.residency import Residency

from .adapters import write_lora
from .harness import conditions, one_thread, random_base, table
from .mixed_batch import RANK, TARGETS, adapters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isogloss.core.delta import SlotImage
    from isogloss.registry import Version

RESIDENTS = (1, 100, 1000)
# PEFT takes seconds a load with a hundred residents, and minutes to bring in a thousand.
PEER_RESIDENTS = (1, 15, 100)
PROMOTIONS = 200
TASK = "bench"
PLAIN, HEADED = "es-MX", "es-AR"


def milliseconds(function: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    function()
    return 1000 * (time.process_time() - started)


def cold_load(
    engine: Engine, registry: Registry, images: Sequence[SlotImage], residents: int, *, runs: int
) -> dict[str, float]:
    """Median time from the registry's files to a slot beside `residents` others, milliseconds."""
    residency = Residency(engine.bank, HostCache(registry, engine.encoder, capacity=0))
    # Straight into slots, from the last one on: the residency hands out the first ones.
    for number in range(residents):
        engine.bank.put(engine.bank.slots - 1 - number, images[number % len(images)])
    result = {}
    for locale, what in ((PLAIN, "without_head"), (HEADED, "with_head")):
        version = answering(registry, locale)

        def load(version: Version = version) -> None:
            with residency.lease([version]):
                pass

        times = []
        for _ in range(runs):
            residency.unload(version.digest)
            times.append(milliseconds(load))
        result[what] = statistics.median(times)
    return result


def answering(registry: Registry, locale: str) -> Version:
    """The version for a locale."""
    version = registry.resolve(locale, TASK).version
    assert version is not None, locale
    return version


def peer_loads(base: Path, folder: Path, count: int, *, runs: int) -> float:
    """Median time of PEFT's `load_adapter` with `count` residents, milliseconds."""
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import AutoModel

    model = AutoModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS))
    peer = PeftModel(model, config, adapter_name="0")
    for number in range(1, count):
        peer.add_adapter(str(number), config)
    times = []
    for _ in range(runs):
        times.append(milliseconds(lambda: peer.load_adapter(folder, adapter_name="new")))
        peer.delete_adapter("new")
    return statistics.median(times)


def switch_microseconds(engine: Engine, registry: Registry, *, runs: int) -> float:
    """Median time to hand a batch another resident, microseconds."""
    residency = Residency(engine.bank, HostCache(registry, engine.encoder, capacity=0))
    versions = [answering(registry, locale) for locale in (PLAIN, HEADED)]
    with residency.lease(versions):
        pass
    times = []
    for number in range(runs):
        started = time.perf_counter()
        with residency.lease([versions[number % 2]]):
            pass
        times.append(1e6 * (time.perf_counter() - started))
    return statistics.median(times)


def promote_under_load(hub: Hub, names: Sequence[str]) -> dict[str, int]:
    """Promote back and forth while another thread asks; what failed, and what was answered."""
    stop = threading.Event()
    answers: list[str | None] = []
    failures: list[BaseException] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                found = hub.predict(["a b c", "d"], task=TASK, locale=HEADED)
                answers.extend(prediction.adapter for prediction in found)
            except BaseException as error:
                failures.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(PROMOTIONS):
        hub.registry.promote(names[number % len(names)])
        time.sleep(0.01)
    stop.set()
    asking.join()
    if failures:
        raise SystemExit(f"a request failed while versions were promoted: {failures[0]!r}")
    strangers = set(answers) - set(names)
    if strangers:
        raise SystemExit(f"answers of versions that were never promoted: {strangers}")
    return {
        "promotions": PROMOTIONS,
        "answers": len(answers),
        "failed": len(failures),
        "versions_seen": len(set(answers)),
    }


def measure(*, runs: int, seed: int) -> dict[str, Any]:
    """All figures."""
    from isogloss.core.base import locate_base
    from isogloss.core.delta import SlotImage
    from isogloss.core.encoder import load_encoder, quiet_transformers

    base = random_base("xlm-roberta-base")
    shape = locate_base(base).shape
    images = [SlotImage.of(delta) for delta in adapters("lora", 8, shape, seed=seed)]
    slot_bytes = max(image.nbytes for image in images)
    result: dict[str, Any] = {"cold_load_ms": {}, "head_adds_ms": {}, "peft_load_ms": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write(locale: str, labels: int, seed: int) -> Path:
            return write_lora(
                folder / str(seed),
                base,
                locale=locale,
                task=TASK,
                rank=RANK,
                targets=TARGETS,
                labels=labels,
                seed=seed,
            )

        registry = Registry.open(folder / "registry")
        plain = write(PLAIN, 0, seed)
        registry.publish(plain, base=base)
        names = [registry.publish(write(HEADED, 5, seed + at), base=base).name for at in (1, 2)]
        for count in RESIDENTS:
            encoder = load_encoder(base, device="cpu", precision="fp32")
            engine = Engine(encoder, slots=count + 2, slot_bytes=slot_bytes)
            times = cold_load(engine, registry, images, count, runs=runs)
            result["cold_load_ms"][str(count)] = round(times["without_head"], 3)
            added = times["with_head"] - times["without_head"]
            result["head_adds_ms"][str(count)] = round(added, 3)
        result["switch_us"] = round(switch_microseconds(engine, registry, runs=1000), 2)
        del engine, encoder  # a model's bytes
        with Hub(registry, base=base, device="cpu", slots=4, slot_bytes=slot_bytes) as hub:
            result["promotion"] = promote_under_load(hub, names)
        with quiet_transformers():
            for count in PEER_RESIDENTS:
                taken = peer_loads(base, plain, count, runs=max(3, runs // 10))
                result["peft_load_ms"][str(count)] = round(taken, 1)
    result["vs_peft"] = round(result["peft_load_ms"]["1"] / result["cold_load_ms"]["1"], 1)
    result["vs_peft_at_100"] = round(
        result["peft_load_ms"]["100"] / result["cold_load_ms"]["100"], 1
    )
    return result


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--runs", default=31, show_default=True, help="Cold loads of each configuration.")
@click.option("--seed", default=0, show_default=True, help="Of the adapters' weights.")
def main(as_json: bool, runs: int, seed: int) -> None:
    """Print what it takes to bring an adapter in, to switch, and to promote under load."""
    one_thread()
    result = measure(runs=runs, seed=seed)
    if as_json:
        about = {"base": "xlm-roberta-base's shape, random weights", **conditions(seed=seed)}
        click.echo(json.dumps(result | {"conditions": about}, indent=2))
        return
    lines: list[Sequence[object]] = [("residents", "cold load, ms", "a head adds, ms", "PEFT, ms")]
    counts = sorted({*RESIDENTS, *PEER_RESIDENTS})
    lines += [
        (
            count,
            *(result[what].get(str(count), "–") for what in ("cold_load_ms", "head_adds_ms")),
            result["peft_load_ms"].get(str(count), "–"),
        )
        for count in counts
    ]
    click.echo(table(lines))
    click.echo(f"\nanother resident for a batch: {result['switch_us']} µs")
    click.echo(
        "promotion under load: {promotions} moves, {failed} failed".format(**result["promotion"])
    )


if __name__ == "__main__":
    main()
