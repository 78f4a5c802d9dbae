"""No command sends anything, runs anything that it reads, or leaves anything behind but what was asked for.

Each is watched from three sides: by Python's audit events, by the kernel (strace) where that is allowed, and by being
run on a machine without a network (a namespace) where that is. Drawing, measuring and trying a bundle start both
engines.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nano_runtime.bundle.folder import DEMO

CALLS = "connect,sendto,sendmsg,sendmmsg,bind"
# Runs nano-generate, or some lines of Python, and writes down what they did.
WATCHED = """
import json, sys
seen = []
def watch(event, args):
    if event.startswith(("socket.", "pickle.", "os.exec", "os.posix_spawn", "os.system", "subprocess.")):
        seen.append([event, *map(str, args[:2])])
sys.addaudithook(watch)
report, what, *arguments = sys.argv[1:]
if what == "python":
    exec(arguments[0])
else:
    import importlib
    assert importlib.import_module(what).main(arguments) == 0
with open(report, "w") as file:
    json.dump(seen, file)
"""
GENERATE, BENCH, BUNDLE = (f"nano_runtime.cli.{name}" for name in ("generate", "bench", "bundle"))
REACHING = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"}
DATAGRAM = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"


@dataclass(frozen=True)
class Seen:
    """What a process did.

    Attributes:
        events: Python's audit events.
        calls: lines of a trace; None for not traced.
        files: in its current, home, temporary and cache folders afterwards.
        alone: whether it had no network.
    """

    events: list[list[str]]
    calls: list[str] | None
    files: set[str]
    alone: bool


def sent(seen: Seen) -> list[str]:
    """Return the calls that reach for a network.

    Importing urllib3, which signing and the Hub's client do, binds a socket to ::1 and closes it again, to see whether
    there is IPv6; and the C library asks a daemon on this machine, if there is one, who the user is.
    """
    return [call for call in seen.calls or () if "AF_UNIX" not in call and "htons(0), sin6_flowinfo" not in call]


def works(*command: str) -> bool:
    """Whether a tool is installed and allowed here."""
    found = shutil.which(command[0])
    return found is not None and subprocess.run([found, *command[1:]], capture_output=True, check=False).returncode == 0


def watched(folder: Path, *what: str, network: bool) -> Seen:
    """Run something with a home, a temporary and a current folder of its own."""
    report, trace, places = folder / "report", folder / "trace", folder / "places"
    for name in ("cwd", "home", "temp", "cache"):
        (places / name).mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment |= {"HOME": f"{places}/home", "TMPDIR": f"{places}/temp", "XDG_CACHE_HOME": f"{places}/cache"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCHED, str(report), *what]
    # Stops at these calls only: of a process that is killed at another, the tracer knows no name to leave out.
    tracer = ["strace", "-f", "-qq", "--seccomp-bpf"]
    if traced := works(*tracer, "true"):
        command = [*tracer, "-e", f"trace={CALLS}", "-o", str(trace), *command]
    if alone := not network and works("unshare", "-rn", "true"):
        command = ["unshare", "-rn", *command]
    done = subprocess.run(command, cwd=places / "cwd", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Seen(
        events=json.loads(report.read_text()),
        calls=[line for line in trace.read_text().splitlines() if "(" in line] if traced else None,
        files={path.relative_to(places).as_posix() for path in places.rglob("*") if path.is_file()},
        alone=alone,
    )


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def drawing(request, tmp_path_factory, fp32) -> tuple[str, Seen]:
    """What drawing a picture does, with everything that a person gets unasked."""
    arguments = ["a fox", f"--bundle={fp32}", f"--backend={request.param}", "--steps=2", "--seed=1"]
    return request.param, watched(tmp_path_factory.mktemp("quiet"), GENERATE, *arguments, network=False)


def test_no_system_call_sends_anything(drawing):
    if drawing[1].calls is None:
        pytest.skip("needs strace, and leave to trace")
    assert drawing[1].calls == []


def test_it_draws_where_there_is_no_network(drawing):
    if not drawing[1].alone:
        pytest.skip("needs unshare, and leave to make a namespace")
    assert "cwd/nano-1.png" in drawing[1].files


def test_no_socket_is_opened_nothing_is_unpickled_and_no_process_is_started(drawing):
    assert drawing[1].events == []


def test_no_file_is_left_but_the_picture_and_the_cache(drawing):
    backend, seen = drawing
    kept = {name for name in seen.files if name.startswith("cache/nano-runtime/") and name.endswith(".blob")}
    assert seen.files - kept == {"cwd/nano-1.png"}
    graphs = {name for name in kept if not name.startswith("cache/nano-runtime/conditioning/")}
    assert (len(graphs) > 0) == (backend == "openvino")
    assert len(kept - graphs) == 5  # of the prompt and the empty one, encoded and projected, and of the timesteps


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ((BUNDLE, "verify", "{bundle}", "--deep"), set()),
        ((BUNDLE, "info", "{bundle}"), set()),
        pytest.param(
            (BENCH, "{bundle}", "--steps=1", "--runs=1", "--starts=1", "--threads=1", "--json=times.json"),
            {"cwd/times.json"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["verify --deep", "info", "bench"],
)
def test_the_other_commands(fp32, tmp_path, arguments, left):
    """They start processes of their own, on every engine, which the trace follows."""
    seen = watched(tmp_path, *(argument.format(bundle=fp32) for argument in arguments), network=False)
    assert not [event for event in seen.events if event[0].startswith(("socket.", "os.system"))]
    assert not seen.calls
    assert {name for name in seen.files if not name.startswith("cache/nano-runtime/")} == left


def test_signing(fp32, tmp_path):
    pytest.importorskip("model_signing", reason='needs pip install "nano-runtime[signing]"')
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "private").write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )
    (tmp_path / "public").write_bytes(
        key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    signature = tmp_path / "signature"
    for name, arguments in {
        "sign": ["sign", fp32, "--key", tmp_path / "private", "-o", signature],
        "verify": ["verify", fp32, "--signature", signature, "--public-key", tmp_path / "public"],
    }.items():
        (tmp_path / name).mkdir()
        seen = watched(tmp_path / name, BUNDLE, *map(str, arguments), network=False)
        assert not [event for event in seen.events if event[0] in REACHING]
        assert sent(seen) == []
        assert seen.files == set()


@pytest.mark.slow
def test_exporting_a_model_that_is_here(tmp_path):
    """torch, diffusers, transformers, both engines and their converters; nothing asks the Hub for a built-in model."""
    seen = watched(tmp_path, "nano_export.cli", "tiny", "-o", "bundle", "--int8", network=False)
    assert not [event for event in seen.events if event[0] in REACHING]
    assert sent(seen) == []
    assert {name.split("/")[0] for name in seen.files if not name.startswith("cwd/bundle/")} == set()


ORDERS = {
    "_attn_implementation": "kernels-community/nobody-has-this",
    "auto_map": {"AutoModel": "nobody--code.Model", "AutoTokenizer": ["nobody--code.Tokenizer", None]},
    "_name_or_path": "nobody/nothing",
    "name_or_path": "nobody/nothing",
    "gguf_file": "other.gguf",
    "use_kernels": True,
    "trust_remote_code": True,
    "local_files_only": False,
}


# A package as transformers wants it, which connects when it is asked for a kernel; all else of it does nothing.
KERNELS = """
import socket
class Anything:
    def __init__(self, *_, **__): pass
    def __call__(self, *given, **_): return given[0] if len(given) == 1 and callable(given[0]) else Anything()
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()
    def __or__(self, _): return Anything()
    __ror__ = __or__
def ask(*_, **__):
    socket.create_connection(("127.0.0.1", 9), 1)
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return ask if name in {"get_kernel", "load_kernel", "install_kernel", "has_kernel"} else Anything()
"""
OBEYS = """
from transformers import CLIPTextConfig, CLIPTextModel
try:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    CLIPTextModel(CLIPTextConfig(**size, attn_implementation="kernels-community/nobody-has-this"))
except Exception:
    pass
"""


@pytest.fixture
def tempted(tmp_path, monkeypatch) -> None:
    """The package ``kernels`` can be imported, and variables name a proxy and a Hub."""
    from transformers.utils.import_utils import KERNELS_MIN_VERSION  # noqa: PLC0415

    place = tmp_path / "packages"
    for name, text in (("kernels", KERNELS), ("kernels/layer", ""), ("kernels/layer/mode", "from kernels import Mode")):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(text)
    information = place / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])]))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "flash_hub")


@pytest.mark.slow
@pytest.mark.usefixtures("tempted")
@pytest.mark.parametrize(
    "arguments",
    [
        ("nano_export.cli", "demo", "-o", "bundle"),
        (BENCH, str(DEMO), "--steps=1", "--runs=1", "--starts=1", "--threads=1"),
        (BUNDLE, "verify", str(DEMO), "--deep"),
        (GENERATE, "an otter", "--steps=1"),
    ],
    ids=["export", "bench", "verify --deep", "generate"],
)
def test_whole_commands_where_a_library_could_ask(tmp_path, arguments):
    seen = watched(tmp_path, *arguments, network=True)
    assert not [event for event in seen.events if event[0] in REACHING]
    assert sent(seen) == []


@pytest.mark.slow
@pytest.mark.usefixtures("tempted")
def test_exporting_a_folder_whose_configs_give_orders(tmp_path):
    """With the package ``kernels`` installed, transformers asks the Hub for an attention kernel that a config names."""
    from nano_export.source import builtin  # noqa: PLC0415 - the other tests here need no torch

    folder = tmp_path / "checkpoint"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    for path in folder.rglob("*config*.json"):
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **ORDERS}))
    arguments = [str(folder), "-o", "bundle", "--backend", "onnxruntime"]
    seen = watched(tmp_path, "nano_export.cli", *arguments, network=True)
    assert not [event for event in seen.events if event[0] in REACHING]
    assert sent(seen) == []


@pytest.mark.slow
@pytest.mark.usefixtures("tempted")
def test_a_library_that_obeys_does_ask(tmp_path):
    """The control."""
    seen = watched(tmp_path, "python", OBEYS, network=True)
    assert "socket.connect" in {event[0] for event in seen.events}


def test_the_watch_sees_all_of_that(tmp_path):
    unpickle = f"import pickle; pickle.loads({pickle.dumps(Path('x'))!r})"
    lines = [DATAGRAM, unpickle, "import os; os.system('true')", "open('stray', 'w').close()"]
    seen = watched(tmp_path, "python", "\n".join(lines), network=True)
    assert {"socket.sendto", "pickle.find_class", "os.system"} <= {event for event, *_ in seen.events}
    assert seen.calls is None or len(seen.calls) == len(sent(seen)) == 1
    assert {event for event, *_ in seen.events} & REACHING
    assert seen.files == {"cwd/stray"}


def test_a_namespace_has_no_network(tmp_path):
    """The control: where there is one, a datagram is on its way, as above."""
    line = "try:\n    " + DATAGRAM + "\nexcept OSError:\n    open('unreachable', 'w').close()"
    seen = watched(tmp_path, "python", line, network=False)
    assert seen.files == ({"cwd/unreachable"} if seen.alone else set())
