"""Builds CLIP's tokenizer in code, of vocabulary and merges; what else a ``tokenizer.json`` asks for is compared.

A ``tokenizer.json`` of Hugging Face's is a program: its normalizer may make a million letters of one, and what no
checkpoint has ends the library in a panic. CLIP's steps are always the same, so only data is taken from the file. They
match ``CLIPTokenizer`` of transformers 5 and ``CLIPConverter`` of transformers 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    import tokenizers

__all__ = ["MAX_BYTES", "clip_bpe", "read_clip_bpe"]

MAX_BYTES: Final = 64 << 20  # of a file; CLIP's has 4 million

_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORDS_AND_ENDS: Final = rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}"  # since transformers 4.27
_NORMALIZER: Final = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}
_SUFFIX: Final = "</w>"
_Id = Annotated[int, Meta(ge=0, lt=1 << 31)]


class _Model(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Byte-pair encoding: only the first three are data."""

    vocab: dict[str, _Id]
    merges: list[Any]
    unk_token: str | None = None
    type: str = "BPE"
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _Added(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A token that is no word of the vocabulary, or is found before words are."""

    id: _Id
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A ``tokenizer.json``; truncation and padding of its own are not used."""

    model: _Model
    added_tokens: Annotated[list[_Added], Meta(max_length=100_000)] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None
    version: str = "1.0"
    truncation: Any = None
    padding: Any = None


def read_clip_bpe(content: bytes) -> tokenizers.Tokenizer:
    """Build the tokenizer that the content of a ``tokenizer.json`` describes.

    Raises:
        ValueError: it is none, or asks for other steps than CLIP's; the message names the key.
    """
    try:
        file = msgspec.json.decode(content, type=_File)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    model = file.model
    wanted: dict[str, tuple[object, tuple[object, ...]]] = {
        "version": (file.version, ("1.0",)),
        "normalizer": (file.normalizer, (_NORMALIZER,)),
        "pre_tokenizer": (_filled_in(file.pre_tokenizer), tuple(map(_pre_tokenizer, (_WORDS_AND_ENDS, _WORDS)))),
        "post_processor": (_kind_and_trim(file.post_processor), (None, ("RobertaProcessing", False))),
        "decoder": (_kind_and_trim(file.decoder)[:1] if file.decoder else None, (None, ("ByteLevel",))),
        "model.type": (model.type, ("BPE",)),
        "model.dropout": (model.dropout, (None, 0)),
        "model.continuing_subword_prefix": (model.continuing_subword_prefix, (None, "")),
        "model.end_of_word_suffix": (model.end_of_word_suffix, (_SUFFIX,)),
        "model.fuse_unk": (model.fuse_unk, (False,)),
        "model.byte_fallback": (model.byte_fallback, (False,)),
        "model.ignore_merges": (model.ignore_merges, (False,)),
    }
    for key, (found, allowed) in wanted.items():
        if found not in allowed:
            raise ValueError(f"its {key} is not CLIP's")
    unknown = model.unk_token
    if unknown is not None and unknown not in model.vocab and not _has_all_letters(model.vocab):
        raise ValueError(f"its model.unk_token {unknown[:40]!r} is not in model.vocab, and letters are missing there")
    words = _WORDS if "startoftext" not in str(file.pre_tokenizer) else _WORDS_AND_ENDS
    encoder = clip_bpe(model.vocab, _pairs(model.merges, model.vocab), unknown, words)
    _add(encoder, file.added_tokens)
    return encoder


def clip_bpe(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    unknown: str | None,
    words: str = _WORDS_AND_ENDS,
) -> tokenizers.Tokenizer:
    """Build the tokenizer without added tokens.

    Args:
        vocabulary: id of each word.
        merges: in order.
        unknown: word for what is in no word of the vocabulary.
        words: pattern of what becomes a word.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers  # noqa: PLC0415 - for `tokenizer`
    from tokenizers.models import BPE  # noqa: PLC0415

    encoder = Tokenizer(
        BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            unk_token=unknown,
            continuing_subword_prefix="",
            end_of_word_suffix=_SUFFIX,
            fuse_unk=False,
        )
    )
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    encoder.decoder = decoders.ByteLevel()
    return encoder


def _has_all_letters(vocabulary: Mapping[str, int]) -> bool:
    """Return whether every byte is in the vocabulary, within words and at their end: then every word is."""
    from tokenizers.pre_tokenizers import ByteLevel  # noqa: PLC0415 - for `tokenizer`

    return all(letter in vocabulary and letter + _SUFFIX in vocabulary for letter in ByteLevel.alphabet())


def _pre_tokenizer(words: str) -> dict[str, object]:
    """Return how the file writes the split into words."""
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def _filled_in(step: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """Return the split into words with a key that earlier releases of the library did not write."""
    try:
        split, level = step["pretokenizers"]
        filled_in = {**step, "pretokenizers": [split, {"use_regex": True, **level}]}
    except (TypeError, KeyError, ValueError):
        return step
    return filled_in


def _kind_and_trim(step: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """Return the kind of a step, and whether it moves the places of tokens: nothing else of it is used."""
    return (step.get("type"), step.get("trim_offsets", True)) if isinstance(step, dict) else step


def _pairs(merges: Sequence[Any], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return merges as pairs; a merge is written as one text with a blank, or as a list."""
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):  # noqa: PLR2004
            raise ValueError(f"its model.merges has {str(merge)[:40]!r}, which is no pair")
        if pair[0] not in vocabulary or pair[1] not in vocabulary or "".join(pair) not in vocabulary:
            raise ValueError(f"its model.merges has {str(merge)[:40]!r}, which is not in model.vocab")
        pairs.append((pair[0], pair[1]))
    return pairs


def _add(encoder: tokenizers.Tokenizer, added: Sequence[_Added]) -> None:
    """Add tokens in the order of the file, which decides on their ids."""
    from tokenizers import AddedToken  # noqa: PLC0415 - as above

    tokens = [
        AddedToken(
            one.content,
            single_word=one.single_word,
            lstrip=one.lstrip,
            rstrip=one.rstrip,
            normalized=one.normalized,
            special=one.special,
        )
        for one in added
    ]
    encoder.add_tokens(tokens)
    for one in added:
        if one.content and encoder.token_to_id(one.content) != one.id:
            raise ValueError(
                f"its added_tokens give {one.content[:40]!r} the id {one.id}, which is not free or not next"
            )
