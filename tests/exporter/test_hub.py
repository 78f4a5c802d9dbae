"""Checkpoints from the Hub: the real client against a small Hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from urllib.parse import unquote, urlsplit

import pytest

from nano_export.source import builtin

NANO = "bguisard/stable-diffusion-nano-2-1"
COMMIT = "d29ec90" + "0" * 33
NEEDED = {
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
NOT_NEEDED = {
    ".gitattributes",
    "images_0.png",
    "images_1.png",
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.bin",
}
# The client reads its settings when it is imported, so it runs in a process of its own: one line in, one line out.
CLIENT = """
import json, sys
from pathlib import Path
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.errors import NanoError
for line in sys.stdin:
    try:
        found = open_checkpoint(*json.loads(line))
        answer = {
            "name": found.name,
            "model": found.source.model,
            "revision": found.source.revision,
            "licence": found.licence.id,
            "card": found.card,
            "first_weight": found.unet.conv_in.weight[0, 0, 0, 0].item(),
        }
    except NanoError as error:
        answer = {"error": type(error).__name__, "exit_code": error.exit_code, "what": error.what, "hint": error.hint}
    print("ANSWER", json.dumps(answer), flush=True)
"""


_LARGE = (".safetensors", ".bin")  # kept in large-file storage, as every weight on the Hub is


@dataclass(frozen=True)
class Repository:
    """One model: the files of its only commit.

    Attributes:
        commit: 40 hex digits.
        files: path to content.
        branches: names that lead to the commit.
    """

    commit: str
    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)


@dataclass
class Hub:
    """The server.

    It answers the four requests with which ``huggingface_hub`` fetches a model, as the client's release 2.4 reads them:
    the model's record, its tree at a commit, then for every file a HEAD (commit, size and ETag in headers; large files
    redirect to another host) and a GET.

    Attributes:
        repositories: Hub id to repository.
        requests: method and path of every request, in order of arrival.
        failing: answer everything with an error of the server's own.
    """

    repositories: dict[str, Repository]
    requests: list[tuple[str, str]] = field(default_factory=list)
    failing: bool = False

    def start(self) -> None:
        """Serve, on a free port of loopback."""
        hub = self

        class Handler(_Handler):
            """A handler that knows its hub."""

            def answer(self) -> None:
                self.reply(hub)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Go away: later connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self) -> set[str]:
        """The files whose content was asked for, under either address."""
        address = re.compile(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)|/large/[^/]+/(.+)")
        found = (address.fullmatch(path) for method, path in self.requests if method == "GET")
        return {match[1] or match[2] for match in found if match is not None}


class _Handler(BaseHTTPRequestHandler):
    """One request; HTTP 1.0, so that no connection outlives the server."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def reply(self, hub: Hub) -> None:
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        if hub.failing:
            self.send(500, b"")
        elif path.startswith("/api/models/"):
            self.api(hub, path.removeprefix("/api/models/").split("/"))
        elif path.startswith("/large/"):
            commit, _, name = path.removeprefix("/large/").partition("/")
            (repository,) = (one for one in hub.repositories.values() if one.commit == commit)
            self.send(200, repository.files[name])
        else:
            model, _, rest = path.removeprefix("/").partition("/resolve/")
            commit, _, name = rest.partition("/")
            asked = hub.repositories.get(model)
            if asked is None or commit != asked.commit or name not in asked.files:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                self.file(asked, name)

    def api(self, hub: Hub, parts: list[str]) -> None:
        name = "/".join(parts[:2])
        repository = hub.repositories.get(name)
        if repository is None:
            # The Hub does not tell strangers whether a model is private or not there.
            self.send(401, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return
        verb, revision = (parts[2], parts[3]) if len(parts) > 2 else ("revision", "main")
        if revision not in (*repository.branches, repository.commit):
            self.send(404, b'{"error":"Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        elif verb == "tree":
            self.send(200, json.dumps([_entry(path, content) for path, content in repository.files.items()]).encode())
        else:
            siblings = [{"rfilename": path, "size": len(content)} for path, content in repository.files.items()]
            self.send(200, json.dumps({"id": name, "sha": repository.commit, "siblings": siblings}).encode())

    def file(self, repository: Repository, name: str) -> None:
        content = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit}
        if name.endswith(_LARGE):
            headers["X-Linked-Size"] = str(len(content))
            headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            assert isinstance(self.server, ThreadingHTTPServer)
            headers["Location"] = f"http://localhost:{self.server.server_port}/large/{repository.commit}/{name}"
            self.send(302, b"", headers)
        else:
            self.send(200, content, {**headers, "ETag": f'"{_blob(content)}"'})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {} if headers is None else headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(path: str, content: bytes) -> dict[str, object]:
    """Describe a file as the tree does."""
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
    if path.endswith(_LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _blob(content: bytes) -> str:
    """Name a content as git does."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Client:
    """The process that opens checkpoints."""

    process: Popen[str]
    cache: Path

    def open(self, model: str, revision: str | None = None, variant: str | None = None) -> dict[str, object]:
        to, back, errors = self.process.stdin, self.process.stdout, self.process.stderr
        assert to is not None
        assert back is not None
        to.write(json.dumps([model, revision, variant]) + "\n")
        to.flush()
        for line in back:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError(f"the client died: {'' if errors is None else errors.read()}")


@pytest.fixture(scope="module")
def parts():
    return builtin.build("tiny")


@pytest.fixture(scope="module")
def files(parts, tmp_path_factory):
    """The content of Nano's repository, with the tiny network's weights."""
    folder = tmp_path_factory.mktemp("repository")
    builtin.write_checkpoint(parts, folder)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files["README.md"] = b"---\nlicense: creativeml-openrail-m\n---\n# Stable Diffusion Nano 2.1\n"
    assert files.keys() == NEEDED
    return {**files, **dict.fromkeys(NOT_NEEDED, b"not needed")}


@pytest.fixture(scope="module")
def hub(files):
    sharded = {name: content for name, content in files.items() if name != "unet/diffusion_pytorch_model.safetensors"}
    sharded["unet/diffusion_pytorch_model-00001-of-00002.bin"] = b"a pickle"
    half = {name.replace(".safetensors", ".fp16.safetensors"): content for name, content in files.items()}
    half["unet/diffusion_pytorch_model.non_ema.safetensors"] = b"not needed"
    repositories = {
        NANO: Repository(COMMIT, files, branches=("main", "v1")),
        "someone/pickles": Repository("1" * 40, sharded),
        "someone/half": Repository("2" * 40, half),
        "someone/blocked": Repository("3" * 40, files),
    }
    hub = Hub(repositories)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    log = (home / "log").open("w+")
    with Popen(
        [sys.executable, "-c", CLIENT], stdin=PIPE, stdout=PIPE, stderr=log, text=True, env=environment
    ) as process:
        yield Client(process, home / "hub")
        assert process.stdin is not None
        process.stdin.close()


def test_exactly_the_needed_files_are_fetched_at_one_commit(hub, client, parts):
    found = client.open(NANO)
    assert found == {
        "name": "stable-diffusion-nano-2-1",
        "model": NANO,
        "revision": COMMIT,
        "licence": "creativeml-openrail-m",
        "card": hub.repositories[NANO].files["README.md"].decode(),
        "first_weight": parts.unet.conv_in.weight[0, 0, 0, 0].item(),
    }
    assert hub.fetched() == NEEDED
    assert all(f"/resolve/{COMMIT}/" in path for _, path in hub.requests if "/resolve/" in path)


def test_nothing_is_fetched_twice_and_a_tag_is_resolved(hub, client):
    client.open(NANO)
    hub.requests.clear()
    assert client.open(NANO, "v1")["revision"] == COMMIT
    assert hub.fetched() == set()


def test_a_repository_of_fp16_files_alone_is_fetched_and_nothing_else(hub, client, parts):
    hub.requests.clear()
    found = client.open("someone/half")
    assert found["first_weight"] == parts.unet.conv_in.weight[0, 0, 0, 0].item()
    weights = {name for name in hub.fetched() if name.endswith(".safetensors")}
    assert weights == {name.replace(".saf", ".fp16.saf") for name in NEEDED if name.endswith(".safetensors")}


@pytest.mark.parametrize(
    ("asked", "error", "why"),
    [
        (("someone/nowhere", None), "CheckpointError", "no such public model"),
        ((NANO, "v9"), "CheckpointError", "no revision 'v9'"),
        (("someone/pickles", None), "PickleOnlyError", "someone/pickles/unet"),
        (("someone/half", None, "bf16"), "CheckpointError", "only of fp16"),
    ],
)
def test_what_the_hub_does_not_have_is_a_usage_error(asked, error, why, hub, client):
    hub.requests.clear()
    found = client.open(*asked)
    assert (found["error"], found["exit_code"]) == (error, 2)
    assert found["what"].startswith(asked[0])
    assert why in found["what"]
    assert hub.fetched() == set()


def test_a_models_folder_in_the_cache_is_a_model(client):
    root = client.cache / f"models--{NANO.replace('/', '--')}"
    for folder, revision in ((root, None), (root, "v1"), (root, COMMIT), (root / "snapshots" / COMMIT, None)):
        found = client.open(str(folder), revision)
        assert (found["model"], found["revision"]) == (NANO, COMMIT)
    assert "refs/v9" in str(client.open(str(root), "v9")["what"])


def test_a_cache_that_cannot_be_written_is_not_the_networks_fault(client):
    client.cache.mkdir(exist_ok=True)
    obstacle = client.cache / "models--someone--blocked"
    obstacle.write_text("a file where a folder has to be")
    found = client.open("someone/blocked")
    assert (found["error"], found["exit_code"]) == ("OutputError", 4)
    assert str(obstacle) in found["what"]


def test_a_hub_in_trouble_and_a_hub_that_is_gone_are_network_errors(hub, client):
    hub.failing = True
    found = client.open("someone/else")
    assert (found["error"], found["exit_code"]) == ("NetworkError", 5)
    assert found["what"].startswith("someone/else could not be fetched from the Hub: ")
    hub.stop()
    for revision in (None, "v1"):  # both are in the cache
        assert client.open(NANO, revision).get("revision") == COMMIT, client.open(NANO, revision)
    lacking = client.cache / "models--someone--half" / "snapshots" / ("2" * 40) / "vae" / "config.json"
    lacking.unlink()
    incomplete = client.open("someone/half")
    assert (incomplete["error"], incomplete["exit_code"]) == ("NetworkError", 5)
    assert "of the copy in the Hub's cache" in incomplete["what"]
    assert f"{lacking} is not a usable checkpoint: it is missing" in incomplete["what"]
    gone = client.open("someone/else")
    assert (gone["error"], gone["exit_code"]) == ("NetworkError", 5)
    assert gone["what"] != found["what"]
    assert "Did you mean" not in str(gone["hint"])
    assert str(client.open("tinyy")["hint"]).startswith("Did you mean the built-in model tiny? Check the connection")
