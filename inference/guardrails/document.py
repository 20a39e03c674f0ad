"""YAML read strictly: every mapping knows its line, and a key stands once. Pure; the YAML library is imported when a
text is read, so that a process without policies starts without it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml


# What PyYAML lets through of a value that does not fit its tag, a date that is none, and depth.
STUMBLES = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)


class Unreadable(ValueError):
    """Why a text is no such document; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"Line {line}: {reason}")
        self.line, self.reason = line, reason


class Mapping(dict[str, Any]):
    """A YAML mapping that knows the line it begins on."""

    line = 1


def read(text: str) -> Any:
    """The document in `text`: mappings are `Mapping`, the rest plain values. Raises Unreadable."""
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, error.problem or "this is not YAML.") from error
    except yaml.YAMLError as error:
        raise Unreadable(1, f"this is not YAML: {error}") from error
    except STUMBLES as error:
        raise Unreadable(1, f"a value cannot be read: {error or type(error).__name__}.") from error


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        def mapping(self, node: yaml.MappingNode) -> Mapping:
            found = Mapping()
            found.line = node.start_mark.line + 1
            for key_node, value_node in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str) or key in found:
                    raise yaml.MarkedYAMLError(problem=f"the key {key!r} is unclear.", problem_mark=key_node.start_mark)
                found[key] = self.construct_object(value_node, deep=True)
            return found

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, Loader.mapping)
    return Loader
