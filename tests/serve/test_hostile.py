"""Requests of strangers: bombs, depths, floods and paths end as 4xx; nothing is opened or fetched (D8, D10, D13)."""

from __future__ import annotations

import asyncio
import base64
import struct
import sys
import zlib
from pathlib import Path

import pytest
from tests.serve.conftest import Served, servers

import nano_runtime
from nano_serve.errors import BadRequestError
from nano_serve.http import bodies

DRAWING = ["/api/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"]
JSON = {"content-type": "application/json"}
OPENED: list[str] = []
CONNECTED: list[str] = []


def _png(width: int, height: int, chunks: bytes = b"") -> bytes:
    """Return a PNG that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    data = b"parameters\0\0" + zlib.compress(b"a" * 80_000_000)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


PICTURES = {
    "65,500 pixels a side": _png(65500, 65500),
    "a text of 80 MB in 80 kB": _png(2, 2, _text_bomb()),
    "no pixels": _png(0, 0),
    "half a header": _png(2, 2)[:20],
    "a gif": b"GIF89a" + bytes(100),
    "nothing": b"",
}
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b'"owl"',
    "no UTF-8": b'{"prompt": "\xff"}',
    "half a surrogate": b'{"prompt": "\\ud800"}',
    "10,000 deep": b'{"prompt": "owl", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 deep objects": b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
    "a number beyond all": b'{"prompt": "owl", "steps": 1e999, "num_inference_steps": 1e999}',
    "a number of 5,000 digits": b'{"prompt": "owl", "seed": ' + b"9" * 5000 + b"}",
    "NaN": b'{"prompt": "owl", "guidance_scale": NaN, "cfg_scale": NaN}',
    "200,000 values": b'{"prompt": "owl", "x": [' + b"[]," * 200_000 + b"[]]}",
    "a key twice": b'{"prompt": "owl", "steps": 3, "prompt": "fox"}',
    "a key twice below": b'{"prompt": "owl", "x": {"a": 1, "\\u0061": 2}, "override_settings": {"a": 1, "a": 2}}',
    "null everywhere": b'{"prompt": null, "num_images_per_prompt": null, "init_images": [null]}',
}


@pytest.fixture(scope="module")
def served(bundles, tmp_path_factory):
    """One server for all: some of A1111's requests draw."""
    with servers(bundles, tmp_path_factory.mktemp("pictures")) as begin:
        yield begin()


@pytest.fixture(scope="module", autouse=True)
def audited():
    """Note every file that is opened, and every connection."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            OPENED.append(str(arguments[0]))
        if event in {"socket.connect", "socket.getaddrinfo"}:
            CONNECTED.append(str(arguments))

    sys.addaudithook(hook)


@pytest.mark.parametrize("path", DRAWING)
@pytest.mark.parametrize("body", BODIES, ids=list(BODIES))
def test_a_hostile_body_is_told_so(served: Served, path: str, body: str):
    """Only A1111's clients may leave a body empty; the compatible routes pass over keys that they do not know."""
    answer = served.ask("POST", path, content=BODIES[body], headers=JSON)
    assert answer.status_code in {200, 400, 404, 415}, answer.text
    assert answer.status_code != 200 or path.startswith("/sdapi")
    assert "Traceback" not in answer.text
    assert ("stands in the body twice" in answer.text) == (body.startswith("a key twice") and "jobs" not in path)


@pytest.mark.parametrize("picture", PICTURES, ids=list(PICTURES))
def test_a_hostile_picture_is_told_so(served: Served, picture: str):
    image = base64.b64encode(PICTURES[picture]).decode()
    answers = [
        served.ask("POST", "/api/v1/jobs", json={"prompt": "owl", "image": image}),
        served.ask("POST", "/sdapi/v1/img2img", json={"init_images": [image]}),
        served.ask("POST", "/sdapi/v1/png-info", json={"image": image}),
        served.ask("POST", "/sdapi/v1/extra-single-image", json={"image": image}),
        served.ask("POST", "/v1/images/edits", data={"prompt": "owl"}, files={"image": PICTURES[picture]}),
        served.ask("POST", "/api/v1/parameters", json={"image": image}),
    ]
    assert {answer.status_code for answer in answers} <= {400, 404}, [answer.text for answer in answers]


def test_a_body_that_is_too_large_is_refused_with_its_length_and_without(served: Served):
    async def chunks():
        for _ in range(40):
            yield b" " * 1_000_000

    for path in DRAWING:
        assert served.ask("POST", path, content=b" " * 33_000_000, headers=JSON).status_code == 413
    for path in ("/api/v1/jobs", "/v1/images/edits"):
        assert served.ask("POST", path, content=chunks(), headers=JSON).status_code == 413
    small = served.ask("POST", "/api/v1/tokens", content=b" " * 1_100_000, headers=JSON)
    assert small.status_code == 413
    for length in ("-1", "1e9", "x", "9" * 30):
        assert served.ask("POST", "/api/v1/jobs", content=b"", headers={**JSON, "content-length": length}).is_error


def test_a_body_that_does_not_come_is_not_waited_for(served: Served, monkeypatch):
    monkeypatch.setattr(bodies, "SECONDS", 0.05)

    async def slow():
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    assert served.ask("POST", "/api/v1/jobs", content=slow(), headers=JSON).status_code == 408


@pytest.mark.parametrize("part", [b'"', b'"\\', b'\\"', b"[", b'{"":', b'"\\"'])
def test_no_body_is_read_again_and_again(served: Served, part: bytes):
    """In time that grows with its square, one of them took many minutes."""
    content = b'{"prompt": "owl", "x": ' + part * (2_000_000 // len(part))
    assert served.ask("POST", "/api/v1/jobs", content=content, headers=JSON).status_code == 400


@pytest.mark.parametrize(
    ("content", "deep"),
    [
        (b'{"a": "[[[[[["}', 1),
        (b'{"a\\\\": [1], "b\\"[[[": [[2]]}', 3),
        (b"[" * 32 + b"]" * 32, 32),
        (b'["\\\\\\"", [[]]]', 3),
    ],
)
def test_brackets_in_texts_do_not_count(content: bytes, deep: int, monkeypatch):
    monkeypatch.setattr(bodies, "_MOST_DEPTH", deep)
    bodies._check_size(content)  # noqa: SLF001 - the part under test
    monkeypatch.setattr(bodies, "_MOST_DEPTH", deep - 1)
    with pytest.raises(BadRequestError):
        bodies._check_size(content)  # noqa: SLF001


def test_a_million_keys_are_refused(served: Served):
    many = b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}"
    assert served.ask("POST", "/api/v1/jobs", content=many, headers=JSON).status_code == 400


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "../../etc/passwd", "%00", "C:%5Cwindows", "a" * 5000, "%ff", "\u202e"]
)
def test_no_path_of_a_request_is_opened(served: Served, name: str, bundles):
    OPENED.clear()
    for path in (f"/api/v1/pictures/{name}", f"/api/v1/jobs/{name}", f"/page/{name}", f"/v1/models/{name}"):
        for method in ("GET", "DELETE"):
            answer = served.ask(method, path)
            assert answer.status_code in {404, 405}, answer.text
    own = (str(served.studio.gallery.folder), str(bundles[0].parent), str(Path(nano_runtime.__file__).parents[1]))
    strange = [name for name in OPENED if not name.startswith(own) and not name.isdigit() and "/" in name]
    assert [name for name in strange if "site-packages" not in name and "/lib/python" not in name] == []


@pytest.mark.parametrize("link", ["http://127.0.0.1/x.png", "https://example.com/x", "file:///etc/passwd", "//x/y.png"])
def test_no_link_of_a_request_is_followed(served: Served, link: str):
    CONNECTED.clear()
    OPENED.clear()
    answers = [
        served.ask("POST", "/api/v1/jobs", json={"prompt": "owl", "image": link}),
        served.ask("POST", "/api/v1/parameters", json={"image": link}),
        served.ask("POST", "/sdapi/v1/img2img", json={"init_images": [link]}),
        served.ask("POST", "/sdapi/v1/png-info", json={"image": link}),
        served.ask("POST", "/sdapi/v1/extra-single-image", json={"image": link}),
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert CONNECTED == []
    assert not [name for name in OPENED if "passwd" in name]


def test_messages_name_no_path_of_this_machine(serving, bundles):
    """A file that is gone is named by its place in the bundle."""
    served = serving()
    (bundles[0] / "tokenizer").rename(bundles[0] / "gone")
    try:
        answer = served.ask("POST", "/api/v1/tokens", json={"prompt": "owl"})
    finally:
        (bundles[0] / "gone").rename(bundles[0] / "tokenizer")
    assert answer.status_code == 500
    assert "one/tokenizer" in answer.text
    assert str(bundles[0].parent) not in answer.text
