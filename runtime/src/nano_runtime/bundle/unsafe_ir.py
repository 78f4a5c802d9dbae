"""Checks an OpenVINO IR before the engine parses it: the XML that OpenVINO writes, known layers, weights in the file.

OpenVINO's own writer uses a small part of XML: one element to a line, tabs that say how deep it is, attributes in
double quotes. Only this part is accepted, and in it only known elements, layers and attributes: no graphs in layers.
Edges lead from earlier to later layers, so there are no cycles. Every constant has as many bytes as its shape says, and
lies inside the ``.bin``.

Layers differ in their first lines, but most have the inputs and outputs of many others. Of these, each different text
is looked at once, and in it each different line; what may follow what is a pattern of one letter for each line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from nano_runtime.bundle.ir_layers import allowed_layers

__all__ = ["fault_of_ir"]

_MAX_BYTES: Final = 256 << 20
_MAX_LAYERS: Final = 1 << 16  # the full-size UNet has 9,000
_MAX_INFORMATION: Final = 1000  # lines
_HEADER: Final = b'<?xml version="1.0"?>\n'

_LAYER_ENDS: Final = b"\t\t</layer>\n"
# What is always written together becomes one line with a mark in it, which halves the number of lines.
_JOINED: Final = (
    (b"</dim>\n\t\t\t\t\t<dim>", b"\1"),
    (b"</dim>\n\t\t\t\t</port>\n", b"\2\n"),
    (b'">\n\t\t\t\t\t<dim>', b"\3"),
    (b"\t\t\t</input>\n\t\t\t<output>\n", b"\4\n"),
)
_MARKS: Final = b"\1\2\3\4"
_PLAIN: Final = rb"[ !#-%'-;=-~\x80-\xff]*"
_TEXT: Final = b'"' + _PLAIN + rb"(?:&(?:amp|lt|gt|quot);" + _PLAIN + b')*"'
_DIMS: Final = rb"-?[0-9]{1,10}(?:\x01-?[0-9]{1,10}){0,15}"
_FIRST_LINE: Final = re.compile(
    rb'^\t\t<layer id="([0-9]{1,6})" name=' + _TEXT + rb' type="(\w{1,40})" version="(\w{1,20})"'
    rb"(?: output_names=" + _TEXT + rb")?>$",
    re.MULTILINE,
)
_DATA_BEGINS: Final = b"\t\t\t<data "
_DATA: Final = re.compile(rb'\t\t\t<data(?: [\w-]{1,40}="[^\x00-\x1f\x7f-\xff<>&"]*")+ />')
# Letter -> how its lines begin, and what they are. All lines of a letter are matched in one go.
_LINES: Final = {
    "P": (
        b"\t\t\t\t<port ",
        rb'\t\t\t\t<port id="[0-9]{1,5}" precision="[A-Z0-9]{1,8}(?:" names='
        + _TEXT[:-1]
        + rb')?(?:" />|\x03'
        + _DIMS
        + rb"\x02)",
    ),
    "A": (
        b"\t\t\t\t<attribute ",
        rb'\t\t\t\t<attribute name="(?:DisablePrecisionConversion|decompression|dequantization|fused_names|precise|'
        rb'primitives_priority|old_api_map_(?:order|element_type))(?:_0)?" version="[0-9]"(?: \w{1,40}='
        + _TEXT
        + rb")* />",
    ),
}
_PATTERNS: Final = {
    letter: (begin, re.compile(b"^" + pattern + b"$", re.MULTILINE)) for letter, (begin, pattern) in _LINES.items()
}
_FIXED: Final = {
    b"\t\t\t<input>": "I",
    b"\t\t\t</input>": "i",
    b"\t\t\t<output>": "O",
    b"\4": "B",
    b"\t\t\t</output>": "o",
    b"\t\t</layer>": "l",
    b"\t\t\t<rt_info>": "R",
    b"\t\t\t</rt_info>": "r",
}
_BODIES: Final = re.compile("(?:(?:RA+r)?(?:IP+(?:i|BP+o)|OP+o)?l)*")
_NET: Final = re.compile(rb"<net name=" + _TEXT + rb' version="1[01]">\n\t<layers>\n')
_BETWEEN, _BEHIND = b"\t</layers>\n\t<edges>\n", b"\t</edges>\n"
_EDGE: Final = b'\t\t<edge from-layer="0" from-port="0" to-layer="0" to-port="0" />\n'
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_SPACES: Final = bytes(code if chr(code).isdigit() and code < 0x80 else 0x20 for code in range(256))  # noqa: PLR2004
_INFORMATION: Final = re.compile(
    rb"\t(\t{1,6})(?:<([A-Za-z_][\w.-]{0,99})(?: (?:name|version|value)=" + _TEXT + rb"){0,3}( /)?>|</([\w.-]{1,100})>)"
)
_INFORMATION_BEGINS, _NET_ENDS = b"\t<rt_info>\n", b"</net>\n"
_PAIR: Final = re.compile(r' ([\w-]+)="([^"]*)"')

# Bits of one value of a constant.
_BITS: Final = {
    **dict.fromkeys(("u4", "i4", "nf4"), 4),
    **dict.fromkeys(("u8", "i8", "boolean"), 8),
    **dict.fromkeys(("f16", "bf16", "i16", "u16"), 16),
    **dict.fromkeys(("f32", "i32", "u32"), 32),
    **dict.fromkeys(("f64", "i64", "u64"), 64),
}
_TYPE_WORDS: Final = "|".join(_BITS)
_SWITCH, _NUMBER, _LIST = "true|false|0|1", r"-?[0-9]{1,5}", r"(?:-?[0-9]{1,4}(?:, ?-?[0-9]{1,4}){0,7})?"
_POSITIVE: Final = r"[1-9][0-9]{0,3}(?:, ?[1-9][0-9]{0,3}){0,7}"
_FLOAT: Final = r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[-+]?[0-9]{1,3})?"
_SIZE: Final = r"(?:\?|[0-9]{1,10}|[0-9]{0,10}\.\.[0-9]{0,10})"
_WORD: Final = r"[A-Za-z][A-Za-z_]{0,39}"
_VALUES: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for pattern, names in {
        _SWITCH: "normalize_variance transpose_a transpose_b special_zero antialias m_pythondiv exclusive reverse "
        "keep_dims causal stable allow_axis_skip exclude-pad",
        _NUMBER: "axis batch_dims",
        r"[1-9][0-9]{0,4}": "levels num_splits num_groups block_size",
        _POSITIVE: "strides dilations kernel",
        _LIST: "pads_begin pads_end begin_mask end_mask new_axis_mask shrink_axis_mask ellipsis_mask",
        _FLOAT: "eps epsilon alpha min max cube_coeff",
        _WORD: "auto_broadcast auto_pad mode eps_mode pad_mode approximation_mode reduction sort nearest_mode "
        "coordinate_transformation_mode shape_calculation_mode rounding_type",
        _TYPE_WORDS: "element_type destination_type output_type index_element_type",
        f"(?:{_SIZE}(?:, ?{_SIZE}){{0,15}})?": "shape",
    }.items()
    for name in names.split()
}
_ALLOWED: Final = allowed_layers()
_CONSTANT: Final = (b"Const", b"opset1")
_CONSTANT_LINE: Final = re.compile(
    rb'^\t\t\t<data element_type="(%s)" shape="((?:[0-9]{1,10}(?:, [0-9]{1,10}){0,15})?)" '
    rb'offset="(0|[1-9][0-9]{0,17})" size="(0|[1-9][0-9]{0,17})" />$' % _TYPE_WORDS.encode(),
    re.MULTILINE,
)


def fault_of_ir(raw: bytes, weights_bytes: int) -> str | None:
    """Return the reason to refuse a file, as the end of a sentence, or None.

    Args:
        raw: the ``.xml``.
        weights_bytes: size of the ``.bin`` beside it.
    """
    try:
        _check(raw, weights_bytes)
    except ValueError as error:
        return str(error)
    return None


def _check(raw: bytes, weights_bytes: int) -> None:
    """Raise a ValueError with the reason to refuse an IR."""
    begin = _NET.match(raw, len(_HEADER))
    if not raw.startswith(_HEADER) or begin is None or len(raw) > _MAX_BYTES:
        raise ValueError("it does not begin as OpenVINO writes its files, or is very large")
    if any(mark in raw for mark in (*(bytes([mark]) for mark in _MARKS), b"\0", b"\r")):
        raise ValueError("it has control characters")
    between, behind = raw.find(_BETWEEN), raw.rfind(_BEHIND)
    if not begin.end() <= between < behind:
        raise ValueError("it has not the parts that OpenVINO writes: layers, edges, information")
    layers = _check_layers(raw[begin.end() : between], weights_bytes)
    _check_edges(raw[between + len(_BETWEEN) : behind], layers)
    _check_information(raw[behind + len(_BEHIND) :])


def _check_layers(raw: bytes, weights_bytes: int) -> int:
    """Check all layers and return how many there are."""
    blocks = raw.split(_LAYER_ENDS)
    if blocks.pop():
        raise ValueError("it has layers that are not written as OpenVINO does")
    parts = [block.partition(b"\n") for block in blocks]
    layers = _FIRST_LINE.findall(b"\n".join([first for first, _, _ in parts]))
    if len(layers) != len(parts):
        strange = next(first for first, _, _ in parts if _FIRST_LINE.fullmatch(first) is None)
        raise ValueError(f"it has the line {_shown(strange)}")
    if len(layers) > _MAX_LAYERS or [identity for identity, _, _ in layers] != [b"%d" % i for i in range(len(layers))]:
        raise ValueError("its layers are not numbered in order, or very many")
    empty = b"", b"", b""
    data = [rest.partition(b"\n") if rest.startswith(_DATA_BEGINS) else empty for _, _, rest in parts]
    if not all(end for _, end, _ in parts) or not all(end for line, end, _ in data if line):
        raise ValueError("it has layers that are not written as OpenVINO does")
    _check_bodies({own[2] if own[0] else part[2] for own, part in zip(data, parts, strict=True)})
    seen = {(kind, operators, own[0]) for (_, kind, operators), own in zip(layers, data, strict=True)}
    constants = [line for kind, operators, line in seen if (kind, operators) == _CONSTANT]
    _check_constants(constants, weights_bytes)
    for kind, operators, line in seen:
        if (kind, operators) != _CONSTANT:
            _check_layer(f"{kind.decode()} {operators.decode()}", line)
    return len(layers)


def _check_bodies(bodies: set[bytes]) -> None:
    """Check what layers have behind their data: information, inputs and outputs."""
    raw = _LAYER_ENDS.join([*bodies, b""])
    for written, mark in _JOINED:
        raw = raw.replace(written, mark)
    lines = raw.split(b"\n")
    lines.pop()
    different = set(lines)
    letter_of = dict(_FIXED)
    for letter, (begin, pattern) in _PATTERNS.items():
        found = [line for line in different if line.startswith(begin)]
        if len(pattern.findall(b"\n".join(found))) != len(found):
            strange = next(line for line in found if pattern.fullmatch(line) is None)
            raise ValueError(f"it has the line {_shown(strange)}")
        letter_of |= dict.fromkeys(found, letter)
    if not different <= letter_of.keys():
        raise ValueError(f"it has the line {_shown(min(different - letter_of.keys()))}")
    if _BODIES.fullmatch("".join(map(letter_of.__getitem__, lines))) is None:
        raise ValueError("it has lines in another order than OpenVINO writes them")


def _check_layer(layer: str, line: bytes) -> None:
    """Require a known layer with all its attributes, each once, and with values that can be."""
    if layer not in _ALLOWED:
        raise ValueError(f"it has the layer {layer}, which is on no list")
    if line and _DATA.fullmatch(line) is None:
        raise ValueError(f"it has the line {_shown(line)}")
    pairs = _PAIR.findall(line.decode())
    said = dict(pairs)
    if len(said) != len(pairs) or not said.keys() <= _ALLOWED[layer]:
        raise ValueError(f"a layer {layer} has attributes that OpenVINO does not write: {_shown(line)}")
    for name, value in pairs:
        if _VALUES[name].fullmatch(value) is None:
            raise ValueError(f"a layer {layer} has the {name} {value[:80]!r}")


def _check_constants(lines: list[bytes], weights_bytes: int) -> None:
    """Require that each constant has the bytes that its shape needs, inside the weights."""
    found = _CONSTANT_LINE.findall(b"\n".join(lines))
    if len(found) != len(lines):
        raise ValueError("a constant is not described as OpenVINO does")
    for kind, shape, offset, size in found:
        count = math.prod(map(int, shape.split(b", "))) if shape else 1
        if int(size) != (count * _BITS[kind.decode()] + 7) // 8:
            raise ValueError(f"a constant of {count} values has {int(size)} bytes")
        if (end := int(offset) + int(size)) > weights_bytes:
            raise ValueError(f"a constant ends at byte {end} of the weights, which have {weights_bytes}")


def _check_edges(raw: bytes, layers: int) -> None:
    """Require that each edge leads from a layer to a later one."""
    shape = raw.translate(_DIGITS)
    for _ in range(3):  # numbers of up to eight digits become one zero
        shape = shape.replace(b"00", b"0")
    count, rest = divmod(len(shape), len(_EDGE))
    if rest or shape != _EDGE * count:
        raise ValueError("it has edges that are not written as OpenVINO does")
    numbers = np.fromstring(raw.translate(_SPACES), np.int64, sep=" ").reshape(-1, 4)
    if not ((numbers[:, 0] < numbers[:, 2]) & (numbers[:, 2] < layers)).all():
        raise ValueError("it has an edge that leads back, or to a layer that there is not")


def _check_information(raw: bytes) -> None:
    """Require nested elements with a value each, no more than a few levels deep, and then the end."""
    if raw in (_NET_ENDS, b"\t<rt_info />\n" + _NET_ENDS):
        return
    end = b"\t</rt_info>\n" + _NET_ENDS
    if not raw.startswith(_INFORMATION_BEGINS) or not raw.endswith(end):
        raise ValueError("it does not end as OpenVINO writes its files")
    lines = raw[len(_INFORMATION_BEGINS) : -len(end)].split(b"\n")
    if lines.pop() or len(lines) > _MAX_INFORMATION:
        raise ValueError("it has information that is not written as OpenVINO does, or very much")
    inside: list[bytes] = []
    for line in lines:
        found = _INFORMATION.fullmatch(line)
        ends = found is not None and found[4] is not None
        if found is None or len(found[1]) != len(inside) + (0 if ends else 1):
            raise ValueError(f"it has the line {_shown(line)}")
        if ends and inside.pop() != found[4]:
            raise ValueError(f"it has the line {_shown(line)}")
        if not ends and found[3] is None:
            inside.append(found[2])
    if inside:
        raise ValueError("it has elements that are not closed")


def _shown(line: bytes) -> str:
    return repr(line[:80].decode(errors="backslashreplace"))
