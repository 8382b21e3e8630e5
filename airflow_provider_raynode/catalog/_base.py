"""A serializer: how one kind of value becomes bytes and comes back."""

from __future__ import annotations

import abc
from typing import Any, BinaryIO, ClassVar


class UnfitError(ValueError):
    """A part of a value does not fit the kind: `path` to it from the value (`.auc[3]`), and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'it'} {reason}")
        self.path = path
        self.reason = reason


class Serializer(abc.ABC):
    """Writes and reads the values of one kind; register an instance with `register_serializer`.

    `accepts` is asked in the order of registration, newest first, when `put` is called without a kind.
    """

    #: Name of the kind, as it stands in references: lower-case letters, digits and `_`.
    kind: ClassVar[str]
    #: Ending of the stored object's name, with its dot.
    suffix: ClassVar[str]
    #: Whether loading can run code that the object holds. Such objects are loaded from trusted catalogs only.
    runs_code: ClassVar[bool] = False

    @abc.abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether `put` may choose this kind for `value`: only if `load` gives an equal value of the same type."""

    @abc.abstractmethod
    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write `value` to `stream`, which can only be written to."""

    @abc.abstractmethod
    def load(self, data: bytearray, name: str) -> Any:
        """Return the value of an object.

        :param data: the whole object, its digest verified; the serializer may keep and change it.
        :param name: the object's file name.
        """

    def name_for(self, name: str, value: Any) -> str:
        """Return the stored object's file name for the name that was given to `put`."""
        return name if name.endswith(self.suffix) else f"{name}{self.suffix}"
