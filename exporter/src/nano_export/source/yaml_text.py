"""Reads YAML that a stranger wrote: bounded, without aliases, and with values that can be printed and stored."""

from __future__ import annotations

from typing import Any, Final

import yaml

__all__ = ["parsed_yaml"]

_MOST_LETTERS: Final = 200_000  # long lists of data sets and results in a card have some thousands
_MOST_DIGITS: Final = 40


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases: a few hundred bytes of aliases of aliases stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias; the signature is the base's."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse a number of thousands of digits, which Python does not print; the signature is the base's."""
        if len(node.value) > _MOST_DIGITS:
            raise yaml.YAMLError("it has a number of very many digits")
        return int(super().construct_yaml_int(node))

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """Refuse half of a pair of surrogates, which no file can hold; the signature is the base's."""
        text = str(super().construct_scalar(node))
        text.encode()
        return text


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parsed_yaml(text: str) -> Any:  # noqa: ANN401 - any of YAML's types
    """Return what a text says.

    Raises:
        ValueError: it is no YAML, is long or nested deep, or has aliases, endless numbers or halves of characters.
    """
    if len(text) > _MOST_LETTERS:
        raise ValueError(f"it has more than {_MOST_LETTERS} letters")
    try:
        return _Loader(text).get_single_data()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
