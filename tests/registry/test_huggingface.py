from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from isogloss.core.errors import (
    AdapterFolderError,
    AdapterTooLargeError,
    HuggingFaceError,
    InputError,
    NonFiniteWeightsError,
    ProtectedAliasError,
    UnsafeWeightsError,
)
from isogloss.registry.huggingface import pull, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isogloss.registry import Registry

    from ..conftest import PeftAdapter, TinyBase
    from .conftest import MakeAdapter

# huggingface_hub 2.4 uploads as its HTTP client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO, URL = "anna/gsw-intent", "hf://anna/gsw-intent"
PUBLISH: dict[str, Any] = {"locale": "gsw-CH", "task": "intent", "smoke": False}


class Hub:
    """A server that speaks the parts of the Hugging Face Hub's API that are in use."""

    def __init__(self) -> None:
        # Repository → commits, oldest first, each path → content.
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, int]] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.said_sizes: dict[str, int] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def answer(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path))
                status, headers, content = hub.answer(self.command, path, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        commits = self.repositories.setdefault(repo, [])
        commits.append(files)
        self.branches.setdefault(repo, {})[branch] = len(commits) - 1
        return self.sha(repo, len(commits) - 1)

    def sha(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def files(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        for number, files in enumerate(self.repositories.get(repo, ())):
            sha = self.sha(repo, number)
            if revision == sha or self.branches[repo].get(revision) == number:
                return sha, files
        return None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = path.strip("/").split("/")
        if method == "PUT":
            self.uploads[parts[-1]] = body
            return 200, {}, b""
        if parts[0] == "api":
            return self.answer_api(parts[1:], json.loads(body) if _is_json(parts, body) else body)
        if parts[-1] == "batch":
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return _json({"transfer": "basic", "objects": objects})
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        found = self.files(repo, revision)
        if found is None or name not in found[1]:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(found[1][name]).hexdigest()
        return 200, {"X-Repo-Commit": found[0], "ETag": f'"{etag}"'}, found[1][name]

    def answer_api(self, parts: list[str], body: Any) -> tuple[int, dict[str, str], bytes]:
        if parts[:2] == ["repos", "create"]:
            repo = f"{body['organization']}/{body['name']}"
            if repo in self.repositories:
                return 409, {}, json.dumps({"url": f"{self.url}/{repo}"}).encode()
            self.commit(repo, {".gitattributes": b""})
            return _json({"url": f"{self.url}/{repo}", "private": bool(body.get("private"))})
        if parts[0] == "validate-yaml":
            return _json({"errors": [], "warnings": []})
        repo, action, revision = "/".join(parts[1:3]), parts[3:4], "/".join(parts[4:]) or "main"
        if repo not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        found = self.files(repo, revision)
        if action == ["branch"]:
            self.branches[repo].setdefault(revision, len(self.repositories[repo]) - 1)
            return _json({})
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if action == ["preupload"]:
            return _json({"files": [_upload_mode(file["path"]) for file in body["files"]]})
        if action == ["commit"]:
            return self.answer_commit(repo, revision, dict(found[1]), body)
        siblings = [
            {"rfilename": name, "size": self.said_sizes.get(name, len(content))}
            for name, content in found[1].items()
        ]
        return _json({"id": repo, "sha": found[0], "siblings": siblings})

    def answer_commit(
        self, repo: str, branch: str, files: dict[str, bytes], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.commit(repo, files, branch)
        return _json({"commitUrl": f"{self.url}/{repo}/commit/{sha}", "commitOid": sha})


def _json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _is_json(parts: list[str], body: bytes) -> bool:
    return bool(body) and "commit" not in parts


def _upload_mode(path: str) -> dict[str, object]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_TOKEN", "hf_test")
    # What HF_HUB_DISABLE_XET=1 sets: large files go by Git LFS, which this server speaks.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    hub = Hub()
    yield hub
    hub.close()


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_adapter_is_pulled_like_a_folder(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    commit = hub.commit(REPO, {**read(folder), "optimizer.pt": b"x", "logs/run.txt": b"y"})
    pulled = pull(registry, URL, endpoint=hub.url, reason="a better one", **PUBLISH)
    assert pulled.source == f"hf://{REPO}@{commit}"
    assert pulled.left_out == ("logs/run.txt", "optimizer.pt")
    assert pulled.version.author == pulled.source
    assert registry.resolve("gsw-CH", "intent").version == pulled.version
    (change,) = registry.history("gsw-CH", "intent")
    assert change.reason is not None
    assert change.reason.startswith(f"a better one; from {pulled.source}")
    # The same content from elsewhere is the same version.
    again = registry.publish(folder, **PUBLISH)
    assert again == pulled.version
    asked = {path for method, path in hub.requests if method == "GET" and "resolve" in path}
    assert asked == {
        f"/{REPO}/resolve/{commit}/{name}"
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }


def test_a_revision_and_a_folder(hub: Hub, registry: Registry, make_adapter: MakeAdapter) -> None:
    first, second = read(make_adapter(1)), read(make_adapter(2))
    commit = hub.commit(REPO, {f"gsw/v1/{name}": content for name, content in first.items()})
    hub.commit(REPO, second)
    hub.branches[REPO]["refs/pr/3"] = 0
    with pytest.raises(AdapterFolderError, match="folder"):
        pull(registry, f"{URL}@{commit}", endpoint=hub.url, **PUBLISH)
    for url in (f"{URL}@{commit}/gsw/v1", f"{URL}@refs/pr/3/gsw/v1"):
        pulled = pull(registry, url, endpoint=hub.url, **PUBLISH)
        assert (
            registry.read(pulled.version)["adapter_model.safetensors"]
            == (first["adapter_model.safetensors"])
        )
        assert pulled.source == f"hf://{REPO}@{commit}/gsw/v1"
    assert len(registry.versions()) == 1


def test_sizes_are_looked_at_before_anything_is_downloaded(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter
) -> None:
    hub.commit(REPO, read(make_adapter()))
    hub.said_sizes["adapter_config.json"] = 3 << 30
    with pytest.raises(AdapterTooLargeError, match="3,221,225,472 bytes"):
        pull(registry, URL, endpoint=hub.url, **PUBLISH)
    assert not [path for _, path in hub.requests if "resolve" in path]


def test_what_is_not_safe_is_refused(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter
) -> None:
    import numpy as np

    files = read(make_adapter())
    weights = files.pop("adapter_model.safetensors")
    hub.commit(REPO, {**files, "adapter_model.bin": b"\x80\x04"})
    with pytest.raises(UnsafeWeightsError, match=r"adapter_model\.bin"):
        pull(registry, URL, endpoint=hub.url, **PUBLISH)
    nan = weights[:-4] + np.float32("nan").tobytes()
    hub.commit(REPO, {**files, "adapter_model.safetensors": nan})
    with pytest.raises(NonFiniteWeightsError):
        pull(registry, URL, endpoint=hub.url, **PUBLISH)
    hub.commit(REPO, {"config.json": b"{}"})
    with pytest.raises(AdapterFolderError, match="no adapter"):
        pull(registry, URL, endpoint=hub.url, **PUBLISH)
    assert registry.versions() == []
    assert registry.verify().blobs == 0


def test_a_protected_alias_needs_a_reason_of_ones_own(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter
) -> None:
    hub.commit(REPO, read(make_adapter()))
    registry.protect("production")
    with pytest.raises(ProtectedAliasError):
        pull(registry, URL, endpoint=hub.url, force=True, **PUBLISH)
    pulled = pull(registry, URL, endpoint=hub.url, force=True, reason="agreed", **PUBLISH)
    assert registry.resolve("gsw-CH", "intent").version == pulled.version


@pytest.mark.parametrize(
    "url",
    [
        "anna/gsw-intent",
        "hf://gsw-intent",
        "hf://datasets/anna/gsw-intent",
        "hf://anna/gsw-intent@",
        "hf://anna/gsw-intent/../x",
        "hf://anna/../../etc",
        "file:///etc/passwd",
        "",
    ],
)
def test_other_urls_are_refused(url: str, hub: Hub, registry: Registry) -> None:
    with pytest.raises(InputError):
        pull(registry, url, endpoint=hub.url, **PUBLISH)
    assert hub.requests == []


def test_a_hub_that_has_nothing_or_is_away(hub: Hub, registry: Registry) -> None:
    for url in (URL, f"{URL}@v2"):
        with pytest.raises(HuggingFaceError, match="can't be used") as caught:
            pull(registry, url, endpoint=hub.url, **PUBLISH)
        assert "\n" not in str(caught.value)
        hub.commit(REPO, {})
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(HuggingFaceError, match="connection"):
            pull(registry, URL, endpoint=away, **PUBLISH)


def test_a_version_is_pushed_and_comes_back(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter, base: Path
) -> None:
    from huggingface_hub import ModelCard

    version = registry.publish(make_adapter(), labels=["a", "b", "c"], **PUBLISH)
    url = push(registry, version.name, URL, endpoint=hub.url)
    sha, files = hub.files(REPO) or ("", {})
    assert url == f"{hub.url}/{REPO}/commit/{sha}"
    stored = registry.read(version)
    assert {name: files[name] for name in stored} == stored
    card = ModelCard(files["README.md"].decode())
    data = card.data.to_dict()  # type: ignore[no-untyped-call]
    assert (data["language"], data["library_name"]) == ("gsw", "peft")
    assert data["base_model"] == version.base
    assert "lora" in data["tags"]
    # With the card it is another version, and says of itself what it was.
    back = pull(registry, URL, endpoint=hub.url, base=base, smoke=False).version
    assert (back.locale, back.task, back.labels) == ("gsw-CH", "intent", ("a", "b", "c"))
    again = push(registry, back.name, f"{URL}@v2/gsw", endpoint=hub.url, message="Another place")
    _, files = hub.files(REPO, "v2") or ("", {})
    assert {name for name in files if name.startswith("gsw/")} == {
        f"gsw/{file.path}" for file in back.files
    }
    assert "adapter_config.json" in files
    assert again != url
    third = pull(registry, f"{URL}@v2/gsw", endpoint=hub.url, base=base, smoke=False)
    assert third.version == back


def test_what_was_there_before_is_not_mixed_in(
    hub: Hub, registry: Registry, make_adapter: MakeAdapter
) -> None:
    hub.commit(REPO, {"isogloss.json": b"old", "notes.txt": b"mine", "README.md": b"old"})
    version = registry.publish(make_adapter(), **PUBLISH)
    push(registry, version.name, URL, endpoint=hub.url)
    _, files = hub.files(REPO) or ("", {})
    assert files["notes.txt"] == b"mine"
    assert b"old" not in files.values()


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_peft_loads_what_was_pushed(
    model_type: str,
    hub: Hub,
    registry: Registry,
    tiny_base: TinyBase,
    peft_adapter: PeftAdapter,
    tmp_path: Path,
) -> None:
    import peft
    import torch
    import transformers
    from huggingface_hub import HfApi

    base = tiny_base(model_type)
    folder = peft_adapter(base)
    # What PEFT itself puts there.
    api = HfApi(endpoint=hub.url)
    api.create_repo("anna/by-peft")
    api.upload_folder(repo_id="anna/by-peft", folder_path=folder)
    version = registry.publish(folder, **PUBLISH)
    push(registry, version.name, URL, endpoint=hub.url)
    (_, theirs), (_, ours) = hub.files("anna/by-peft") or ("", {}), hub.files(REPO) or ("", {})
    assert ours.keys() == theirs.keys() | {"isogloss.json"}
    assert ours["adapter_model.safetensors"] == theirs["adapter_model.safetensors"]
    configs = [json.loads(files["adapter_config.json"]) for files in (ours, theirs)]
    named = [config.pop("base_model_name_or_path") for config in configs]
    assert configs[0] == configs[1]
    assert named == [base.name, str(base)]

    pulled = tmp_path / "pulled"
    for name in ours:
        api.hf_hub_download(REPO, name, local_dir=pulled)
    outputs = []
    for at in (folder, pulled):
        host = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        model = peft.PeftModel.from_pretrained(host, str(at)).eval()
        with torch.inference_mode():
            outputs.append(model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits)
    assert torch.equal(*outputs)
