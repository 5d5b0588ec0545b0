from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from safetensors.numpy import save_file

from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH, LAYERS, RANK = 8, 2, 2


class MakeAdapter(Protocol):
    """Writes a plain PEFT folder; other seeds give other weights."""

    def __call__(self, seed: int = 0, *, labels: int = 3) -> Path: ...


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R encoder, as transformers saves it."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    folder.mkdir()
    config = {
        "model_type": "xlm-roberta",
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 4 * WIDTH,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = np.random.default_rng(7)
    tensors = {"embeddings.word_embeddings.weight": normal(generator, 32, WIDTH)}
    for layer in range(LAYERS):
        for part in ("query", "key", "value"):
            name = f"encoder.layer.{layer}.attention.self.{part}.weight"
            tensors[name] = normal(generator, WIDTH, WIDTH)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def make_adapter(base: Path, tmp_path: Path) -> MakeAdapter:
    def make(seed: int = 0, *, labels: int = 3) -> Path:
        folder = tmp_path / "adapters" / f"{seed}-{labels}"
        folder.mkdir(parents=True)
        config = {
            "base_model_name_or_path": str(base),
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": 2 * RANK,
            "lora_dropout": 0.0,
            "modules_to_save": ["classifier", "score"],
            "peft_type": "LORA",
            "r": RANK,
            "target_modules": ["query", "value"],
            "task_type": "SEQ_CLS",
            "use_rslora": False,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
        generator = np.random.default_rng(seed)
        tensors = {}
        for layer in range(LAYERS):
            for part in ("query", "value"):
                at = f"base_model.model.roberta.encoder.layer.{layer}.attention.self.{part}"
                tensors[f"{at}.lora_A.weight"] = normal(generator, RANK, WIDTH)
                tensors[f"{at}.lora_B.weight"] = normal(generator, WIDTH, RANK)
        head = "base_model.model.classifier"
        tensors[f"{head}.dense.weight"] = normal(generator, WIDTH, WIDTH)
        tensors[f"{head}.dense.bias"] = normal(generator, WIDTH)
        tensors[f"{head}.out_proj.weight"] = normal(generator, labels, WIDTH)
        tensors[f"{head}.out_proj.bias"] = normal(generator, labels)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return make


class PostgresServer:
    """A PostgreSQL server of the test's own, on a port of its own, that can be stopped."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Not below pytest's folder: the server can't run as root, and that one is closed to others.
        self._folder = Path(tempfile.mkdtemp(prefix="isogloss-postgres-"))
        self._as_user: dict[str, Any] = {"cwd": self._folder}
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as_user |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._call("initdb", "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As in a crash: no connection is told."""
        self._call("pg_ctl", "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _call(self, program: str, *arguments: str) -> None:
        # The server inherits what it is started with: a pipe would never end.
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        with (self._folder / "output").open("ab") as output:
            subprocess.run(
                command, check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                **self._as_user,
            )  # fmt: skip


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """The folder of PostgreSQL's programs, also where they are on no path, as in Debian."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("initdb")
    if on_path is None and not installed:
        problem = "no PostgreSQL here: install Debian's `postgresql`, or the like"
        if os.environ.get("ISOGLOSS_REQUIRE_SHARED") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    return Path(on_path).parent if on_path else installed[-1]


@pytest.fixture
def postgres_server(postgres_binaries: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(postgres_binaries)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database that tests may make schemas in: one that answers, else one of our own."""
    url = os.environ.get("ISOGLOSS_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        server = PostgresServer(request.getfixturevalue("postgres_binaries"))
        yield server.url
        server.remove()
    else:
        yield url


@pytest.fixture
def new_schema(postgres: str) -> Iterator[Callable[[], str]]:
    """Gives the URL of an empty schema, another on each call; they are dropped afterwards."""
    names: list[str] = []
    with psycopg.connect(postgres, autocommit=True) as connection:

        def make() -> str:
            names.append(f"isogloss_{secrets.token_hex(8)}")
            connection.execute(f"CREATE SCHEMA {names[-1]}")
            url = sa.make_url(postgres).update_query_dict({"options": f"-csearch_path={names[-1]}"})
            return url.render_as_string(hide_password=False)

        yield make
        connection.execute("SET lock_timeout = '20s'")
        for name in names:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Gives a place for a registry: a folder, or settings that name an empty database.

    The blobs are in `<name>/blobs` either way.
    """
    if request.param == "sqlite":
        return lambda name: tmp_path / name
    new_schema = request.getfixturevalue("new_schema")

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        settings = tmp_path / f"{name}.toml"
        settings.write_text(f'database = "{new_schema()}"\nblobs = "{name}/blobs"\n')
        return settings

    return make


@pytest.fixture
def place(new_place: Callable[[str], Path]) -> Path:
    """A place for a registry, with blobs in `registry/blobs`."""
    return new_place("registry")


@pytest.fixture
def registry(place: Path) -> Iterator[Registry]:
    with Registry.open(place) as opened:
        yield opened


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server that listens on a port and keeps everything in memory."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


def normal(generator: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return generator.standard_normal(shape).astype(np.float32)
