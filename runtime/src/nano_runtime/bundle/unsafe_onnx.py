"""Checks an ONNX file before an engine parses it: known fields, operators and attributes, weights in the listed file.

Whatever is not on a list is refused: subgraphs, local functions, sparse tensors, strings as values, fields that no
exporter writes. Nodes stand in an order in which they can run, so there are no cycles. A tensor has as many values as
its shape says, and may lie in no file but the weights that the manifest lists: in no other file, and not at an address
in memory, for which engines have a notation.

Field numbers are those of onnx.proto (github.com/onnx/onnx, IR version 13).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Final

import numpy as np

from nano_runtime.bundle.onnx_arity import fits
from nano_runtime.bundle.onnx_operators import DOMAINS, allowed_attributes
from nano_runtime.bundle.protobuf import Field, Fields, Ints, Source, fields_of

__all__ = ["ENTRY", "EXTERNAL_DATA", "GRAPH", "GRAPH_OF_MODEL", "INITIALIZER", "MODEL", "TENSOR", "fault_of_onnx"]

_INT, _FLOAT, _ONE, _MANY = Field("int"), Field("float"), Field("bytes"), Field("bytes", repeated=True)
_TEXT, _TEXTS = Field("text"), Field("text", repeated=True)
GRAPH_OF_MODEL, _OPSET = 7, 8
MODEL: Final = {1: _INT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _INT, 6: _TEXT, 7: _ONE, 8: _MANY, 14: _MANY}
_NODE_OF_GRAPH, INITIALIZER, _INPUT, _OUTPUT, _VALUE = 1, 5, 11, 12, 13
GRAPH: Final = {1: _MANY, 2: _TEXT, 5: _MANY, 10: _TEXT, 11: _MANY, 12: _MANY, 13: _MANY, 16: _MANY}
_TAKES, _GIVES, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_NODE: Final = {1: _TEXTS, 2: _TEXTS, 3: _TEXT, 4: _TEXT, 5: _MANY, 6: _TEXT, 7: _TEXT, 9: _MANY}
_NUMBER_FIELD, _INT_FIELD, _STRING, _TENSOR_FIELD, _FLOATS, _INTS = 2, 3, 4, 5, 7, 8
_ATTRIBUTE_FIELDS: Final = {
    1: _TEXT,
    2: _FLOAT,
    3: _INT,
    4: _TEXT,
    5: _ONE,
    7: Field("float", repeated=True),
    8: Field("int", repeated=True),
    13: _TEXT,
    20: _INT,
}
_DATA_TYPE, _NAME_OF_TENSOR, _RAW, EXTERNAL_DATA, _LOCATION = 2, 8, 9, 13, 14
_FLOAT_DATA, _INT32_DATA, _INT64_DATA = 4, 5, 7
TENSOR: Final = {
    1: Field("int", repeated=True),
    2: _INT,
    4: _ONE,
    5: _ONE,
    7: _ONE,
    8: _TEXT,
    9: _ONE,
    12: _TEXT,
    13: _MANY,
    14: _INT,
    16: _MANY,
}
ENTRY: Final = {1: _TEXT, 2: _TEXT}
_VALUE_INFO: Final = {1: _TEXT, 2: _ONE, 3: _TEXT, 4: _MANY}
_TYPE: Final = {1: _ONE}
_TENSOR_TYPE: Final = {1: _INT, 2: _ONE}
_SHAPE: Final = {1: _MANY}
_DIMENSION: Final = {1: _INT, 2: _TEXT}
_OPSET_FIELDS: Final = {1: _TEXT, 2: _INT}

_METADATA: Final = {"model": 14, "graph": 16, "node": 9, "tensor": 16, "value": 4}

# Type of a tensor's values -> bytes of one: float, uint8, int8, uint16, int16, int32, int64, bool, float16, double.
_BYTES: Final = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}
_INT64, _MORE = 7, 0x80
_IN_INT32: Final = {2, 3, 4, 5, 6, 9, 10}
_MAX_NODES: Final = 1 << 15  # the full-size UNet has 4,000
_MAX_SIZE: Final = 1 << 31
_MAX_OPSET: Final = 64
_ALLOWED: Final = allowed_attributes()

# Type of an attribute (AttributeProto.AttributeType) -> the field that has its value.
_HELD_IN: Final = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8}
_TENSOR_ATTRIBUTE: Final = 4
_WORDS: Final = frozenset(
    b"NOTSET VALID SAME_UPPER SAME_LOWER CRD DCR none tanh constant edge reflect nearest linear cubic asymmetric "
    b"half_pixel pytorch_half_pixel align_corners tf_half_pixel_for_nn floor ceil round_prefer_floor "
    b"round_prefer_ceil stretch not_larger not_smaller".split()
)
# Attribute -> least and largest value; engines divide by some of these, or take memory for them.
_LIMITS: Final[Mapping[bytes, tuple[int, int]]] = {
    **dict.fromkeys((b"strides", b"dilations", b"kernel_shape", b"num_heads", b"num_groups"), (1, 4096)),
    **dict.fromkeys((b"q_num_heads", b"kv_num_heads", b"num_outputs"), (1, 4096)),
    **dict.fromkeys((b"axis", b"axes", b"batch_dims"), (-8, 8)),
    **dict.fromkeys((b"allowzero", b"keepdims", b"transA", b"transB", b"antialias", b"exclude_outside"), (0, 1)),
    **dict.fromkeys((b"is_causal", b"noop_with_empty_axes", b"upper", b"exclusive", b"reverse", b"fmod"), (0, 1)),
    b"group": (1, 1 << 16),
    b"pads": (-4096, 4096),
    b"perm": (0, 7),
    b"blocksize": (1, 64),
    b"to": (1, 11),
    b"stash_type": (1, 1),
}
_MAX_INTS: Final = 1 << 12


def fault_of_onnx(raw: bytes, weights: str | None, weights_bytes: int) -> str | None:
    """Return the reason to refuse a file, as the end of a sentence, or None.

    Args:
        raw: the file.
        weights: name, without folder, of the only file that tensors may name; None if there is none.
        weights_bytes: size of that file.
    """
    try:
        _check(Source.of(raw), weights, weights_bytes)
    except ValueError as error:
        return str(error)
    return None


def _check(source: Source, weights: str | None, weights_bytes: int) -> None:
    """Raise a ValueError with the reason to refuse a model."""
    model = fields_of(source, *_whole(source), MODEL)
    if sorted(set(model.number.tolist()) & {1, GRAPH_OF_MODEL, _OPSET}) != [1, GRAPH_OF_MODEL, _OPSET]:
        raise ValueError("it is no model with a version and one graph")
    version = _opset(source, model.of(_OPSET))
    graph = fields_of(source, *_places(model.of(GRAPH_OF_MODEL)), GRAPH)
    nodes = graph.of(_NODE_OF_GRAPH)
    if len(nodes.number) > _MAX_NODES:
        raise ValueError(f"it has {len(nodes.number)} nodes")
    parts = fields_of(source, *_places(nodes), _NODE)
    operators = _operators(source, parts, len(nodes.number))
    in_attributes = _check_attributes(source, parts, operators)
    values = [graph.of(number) for number in (_INPUT, _OUTPUT, _VALUE)]
    infos = fields_of(source, *_joined(*values), _VALUE_INFO)
    _check_types(source, infos.of(2))
    tensors = graph.of(INITIALIZER)
    of_tensors = fields_of(source, *_joined(tensors, in_attributes), TENSOR)
    names = _check_tensors(source, of_tensors, len(tensors.number), len(in_attributes.number), (weights, weights_bytes))
    inputs = infos.where((infos.number == 1) & (infos.owner < len(values[0].number)))
    _check_order(source, parts, [*_texts(source, inputs), *names], [(name, version) for _, name in operators])
    metadata = [(model, "model"), (graph, "graph"), (parts, "node"), (infos, "value"), (of_tensors, "tensor")]
    fields_of(source, *_joined(*(found.of(_METADATA[kind]) for found, kind in metadata)), ENTRY)


def _whole(source: Source) -> tuple[Ints, Ints]:
    return np.zeros(1, np.int64), np.full(1, len(source.raw), np.int64)


def _places(fields: Fields) -> tuple[Ints, Ints]:
    return fields.left, fields.right


def _joined(*fields: Fields) -> tuple[Ints, Ints]:
    """Return where the contents of several groups of fields begin and end, one group after the other."""
    return np.concatenate([found.left for found in fields]), np.concatenate([found.right for found in fields])


def _columns(places: list[tuple[int, int]]) -> tuple[Ints, Ints]:
    """Return all begins, and all ends."""
    begins, ends = np.array(places, np.int64).reshape(-1, 2).T
    return begins, ends


def _texts(source: Source, fields: Fields) -> list[bytes]:
    """Return the contents of fields."""
    raw = source.raw
    return [raw[left:right] for left, right in zip(fields.left.tolist(), fields.right.tolist(), strict=True)]


def _shown(text: bytes) -> str:
    return repr(text[:80].decode(errors="backslashreplace"))


def _opset(source: Source, opsets: Fields) -> int:
    """Return the version of ONNX's own set of operators; require known sets, each once, in versions that can be."""
    fields = fields_of(source, *_places(opsets), _OPSET_FIELDS)
    named = dict(zip(fields.of(1).owner.tolist(), _texts(source, fields.of(1)), strict=True))
    domains = [named.get(index, b"").decode(errors="replace") for index in range(len(opsets.number))]
    if len(set(domains)) != len(domains) or not set(domains) <= DOMAINS:
        raise ValueError(f"it has the sets of operators {domains!r:.200}")
    versions = fields.of(2).value
    if len(versions) != len(domains) or versions.min(initial=1) < 1 or versions.max(initial=1) > _MAX_OPSET:
        raise ValueError("it has a set of operators in a version that there is not")
    return max((int(one) for one, name in zip(versions, domains, strict=True) if name in ("", "ai.onnx")), default=1)


def _operators(source: Source, parts: Fields, count: int) -> list[tuple[str, str]]:
    """Return domain and name of each node's operator.

    Raises:
        ValueError: one is on no list.
    """
    domains, names = [b""] * count, [b""] * count
    raw = source.raw
    for kept, number in ((domains, _DOMAIN), (names, _OPERATOR)):
        for owner, left, right in parts.of(number).ranges():
            kept[owner] = raw[left:right]
    pairs = [*zip(domains, names, strict=True)]
    known = {pair: (pair[0].decode(errors="replace"), pair[1].decode(errors="replace")) for pair in set(pairs)}
    for pair, operator in known.items():
        if operator not in _ALLOWED:
            raise ValueError(f"it has the operator {_shown(b'.'.join(filter(None, pair)))}, which is on no list")
    return [known[pair] for pair in pairs]


def _check_attributes(source: Source, parts: Fields, operators: list[tuple[str, str]]) -> Fields:
    """Require known attributes with sensible values, each once; return the fields that are tensors.

    Most attributes are equal to many others, byte by byte, so each is looked at once.
    """
    fields = parts.of(_ATTRIBUTE)
    raw = source.raw
    first: dict[bytes, int] = {}
    kinds: set[tuple[tuple[str, str], int]] = set()
    of: list[int] = []
    places: list[tuple[int, int]] = []
    for owner, left, right in fields.ranges():
        index = first.setdefault(raw[left:right], len(places))
        if index == len(places):
            places.append((left, right))
        of.append(index)
        kinds.add((operators[owner], index))
    found = fields_of(source, *_columns(places), _ATTRIBUTE_FIELDS)
    of_name = found.of(1)
    if len(of_name.number) != len(places):
        raise ValueError("it has an attribute without a name")
    names = [name for _, name in sorted(zip(of_name.owner.tolist(), _texts(source, of_name), strict=True))]
    for operator, index in kinds:
        if names[index].decode(errors="replace") not in _ALLOWED[operator]:
            raise ValueError(f"a {'.'.join(filter(None, operator))} has the attribute {_shown(names[index])}")
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    pairs = fields.owner * (len(codes) + 1) + np.array([codes[names[index]] for index in of], np.int64)
    if len(np.unique(pairs)) != len(pairs):
        raise ValueError("a node has an attribute twice")
    for index, name in enumerate(names):
        _check_attribute(source, name, found.where(found.owner == index))
    return found.of(_TENSOR_FIELD)


def _check_attribute(source: Source, name: bytes, fields: Fields) -> None:
    """Require the one value that the type of an attribute asks for, within what engines can do with it."""
    kind = fields.of(20).value.tolist()
    held = _HELD_IN.get(kind[0]) if kind else None
    present = set(fields.number.tolist()) - {1, 13, 20}
    if held is None or not present <= {held}:
        raise ValueError(f"the attribute {_shown(name)} has no type, or a value of another one")
    values = fields.of(held)
    if held == _STRING and not {*_texts(source, values)} <= _WORDS:
        raise ValueError(f"the attribute {_shown(name)} is none of the known words")
    if held in (_NUMBER_FIELD, _FLOATS):
        numbers = [struct.unpack_from("<f", source.raw, left)[0] for left in values.left.tolist()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"the attribute {_shown(name)} is not finite")
    if held in (_INT_FIELD, _INTS):
        least, most = _LIMITS.get(name, (-_MAX_SIZE, 1 << 62))
        if held == _INT_FIELD and not len(values.number):
            least = min(least, 0)  # an absent number is 0
        if len(values.number) > _MAX_INTS or ((values.value < least) | (values.value > most)).any():
            raise ValueError(f"the attribute {_shown(name)} has values that no exporter writes")
    if held == _TENSOR_FIELD and len(values.number) != 1:
        raise ValueError(f"the attribute {_shown(name)} has no value")


def _check_types(source: Source, types: Fields) -> None:
    """Require that types are those of tensors, with sizes or names for dimensions; equal ones are looked at once."""
    raw = source.raw
    places = {raw[left:right]: (left, right) for _, left, right in types.ranges()}
    at = fields_of(source, *_columns([*places.values()]), _TYPE)
    if len(at.number) != len(places):
        raise ValueError("it has a value that is no tensor")
    tensors = fields_of(source, *_places(at), _TENSOR_TYPE)
    if not set(tensors.of(1).value.tolist()) <= _BYTES.keys() or len(tensors.of(1).number) != len(at.number):
        raise ValueError("it has a value of an unknown type")
    dimensions = fields_of(source, *_places(tensors.of(2)), _SHAPE)
    sizes = fields_of(source, *_places(dimensions), _DIMENSION)
    if len(np.unique(sizes.owner)) != len(sizes.owner):
        raise ValueError("a dimension has a size and a name")
    known = sizes.of(1).value
    if known.min(initial=0) < 0 or known.max(initial=0) >= _MAX_SIZE:
        raise ValueError("a dimension has a size that cannot be")


def _check_tensors(
    source: Source, fields: Fields, named: int, others: int, weights: tuple[str | None, int]
) -> list[bytes]:
    """Require that every tensor has its values, in the file or in the listed weights; return the names of the first.

    Args:
        source: the bytes.
        fields: of all tensors.
        named: number of the first tensors, which need different names.
        others: number of those after them.
        weights: name and size of the only file that may be named.
    """
    count = named + others
    kinds, sizes = _kinds_and_sizes(fields, count)
    bytes_of = [size * _BYTES[kind] for size, kind in zip(sizes, kinds, strict=True)]
    held = np.zeros(count, np.int64)
    for number in (_RAW, _FLOAT_DATA, _INT32_DATA, _INT64_DATA):
        for owner, left, right in fields.of(number).ranges():
            held[owner] += 1
            if not _right_length(source, number, kinds[owner], (left, right), sizes[owner]):
                raise ValueError(f"a tensor of {sizes[owner]} values has others than its shape says")
    external = np.zeros(count, np.bool_)
    external[fields.of(EXTERNAL_DATA).owner] = True
    if (
        not np.array_equal(
            np.unique(fields.of(_LOCATION).where(fields.of(_LOCATION).value == 1).owner), np.flatnonzero(external)
        )
        or (fields.of(_LOCATION).value > 1).any()
    ):
        raise ValueError("a tensor says that it has its values elsewhere and has none there, or the other way round")
    if ((held + external != 1) & (np.array(sizes) > 0)).any():
        raise ValueError("a tensor has no values, or has them twice")
    if external[named:].any():
        raise ValueError("a constant has its values in another file")
    _check_external(source, fields.of(EXTERNAL_DATA), bytes_of, weights)
    names = _texts(source, fields.where((fields.number == _NAME_OF_TENSOR) & (fields.owner < named)))
    if len(names) != named or len(set(names)) != named:
        raise ValueError("two weights have one name, or one has none")
    return names


def _kinds_and_sizes(fields: Fields, count: int) -> tuple[list[int], list[int]]:
    """Return the type and the number of the values of each tensor; both must be possible."""
    kinds, sizes, dims = [0] * count, [1] * count, fields.of(1)
    if dims.value.min(initial=0) < 0 or dims.value.max(initial=0) >= _MAX_SIZE:
        raise ValueError("a tensor has a size that cannot be")
    for owner, kind in zip(fields.of(_DATA_TYPE).owner.tolist(), fields.of(_DATA_TYPE).value.tolist(), strict=True):
        kinds[owner] = kind
    if not set(kinds) <= _BYTES.keys():
        raise ValueError("a tensor has values of an unknown type")
    for owner, size in zip(dims.owner.tolist(), dims.value.tolist(), strict=True):
        sizes[owner] *= size
    return kinds, sizes


def _right_length(source: Source, number: int, kind: int, place: tuple[int, int], size: int) -> bool:
    """Return whether the values of a tensor, in one of the fields for them, are as many as they should be."""
    left, right = place
    if number == _RAW:
        return right - left == size * _BYTES[kind]
    if number == _FLOAT_DATA:
        return kind == 1 and right - left == 4 * size
    ends = source.view[left:right] < _MORE  # last bytes of numbers
    of_kind = kind in _IN_INT32 if number == _INT32_DATA else kind == _INT64
    return of_kind and int(ends.sum()) == size and (left == right or bool(ends[-1]))


def _check_external(source: Source, entries: Fields, sizes: list[int], weights: tuple[str | None, int]) -> None:
    """Require that tensors outside of the file are in the listed one, whole."""
    name, end = weights
    fields = fields_of(source, *_places(entries), ENTRY)
    keys, values = [b""] * len(entries.number), [b""] * len(entries.number)
    raw = source.raw
    for owner, number, left, right in zip(*(column.tolist() for column in fields[:4]), strict=True):
        (keys if number == 1 else values)[owner] = raw[left:right]
    said: dict[int, dict[bytes, bytes]] = {}
    for owner, key, value in zip(entries.owner.tolist(), keys, values, strict=True):
        if said.setdefault(owner, {}).setdefault(key, value) is not value:
            raise ValueError("a tensor has external data with doubled keys")
    wanted = None if name is None else name.encode()
    for owner, told in said.items():
        if not told.keys() <= {b"location", b"offset", b"length", b"checksum"}:
            raise ValueError("a tensor has external data with unknown keys")
        if wanted is None or told.get(b"location") != wanted:
            raise ValueError(f"a tensor is in {_shown(told.get(b'location', b''))}, not in the listed file {name!r}")
        offset = _decimal(told.get(b"offset", b"0"))
        if _decimal(told.get(b"length", b"")) != sizes[owner]:
            raise ValueError(f"a tensor of {sizes[owner]} bytes says that it has {_shown(told[b'length'])}")
        if offset + sizes[owner] > end:
            raise ValueError(f"a tensor ends at byte {offset + sizes[owner]} of {name!r}, which has {end}")


def _decimal(text: bytes) -> int:
    """Read a number as exporters write it: no sign, no zero in front."""
    if not text.isdigit() or len(text) > len(str(1 << 62)) or (text[:1] == b"0" and text != b"0"):
        raise ValueError(f"a tensor has the place {_shown(text)}")
    return int(text)


def _check_order(source: Source, parts: Fields, known: list[bytes], operators: list[tuple[str, int]]) -> None:
    """Require that a node takes what its operator does, made before it, and that nothing is made twice."""
    takes: list[list[bytes]] = [[] for _ in operators]
    gives: list[list[bytes]] = [[] for _ in operators]
    raw = source.raw
    for kept, number in ((takes, _TAKES), (gives, _GIVES)):
        for owner, left, right in parts.of(number).ranges():
            kept[owner].append(raw[left:right])
    made = {b"", *known}
    for (operator, version), taken, given in zip(operators, takes, gives, strict=True):
        if not fits(operator, version, taken, given):
            raise ValueError(f"a {operator} takes {len(taken)} values and gives {len(given)}")
        if not made.issuperset(taken):
            raise ValueError("a node takes what no node before it makes")
        for name in given:
            if name in made and name:
                raise ValueError(f"{_shown(name)} is made twice")
            made.add(name)
