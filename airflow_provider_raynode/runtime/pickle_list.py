"""One pickle of a list, made of pickles that are there already, without reading them. Pure.

Pickles cannot be joined as they are: each counts its memo from zero. In the list's pickle each stands as bytes, with a
call of `pickle.loads` around it, so any Python reads it back, and who writes it never holds more than one of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

# Opcodes of the pickle machine, see Lib/pickletools.py.
_PROTO, _STOP = b"\x80\x05", b"."
_EMPTY_LIST, _MARK, _APPENDS, _TUPLE = b"]", b"(", b"e", b"t"
_BYTES, _TUPLE1, _REDUCE = b"\x8e", b"\x85", b"R"
_LOADS = {False: b"cpickle\nloads\n", True: b"cjson\nloads\n"}
_LIST_OF, _CHAIN = b"cbuiltins\nlist\n", b"citertools\nchain\n"


def list_of(items: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pickle of a list, given a pickle of each item."""
    yield _PROTO + _EMPTY_LIST + _MARK
    for item in items:
        yield from _loaded(item, is_json=False)
    yield _APPENDS + _STOP


def joined(lists: Iterable[tuple[bytes, bool]]) -> Iterator[bytes]:
    """Yield the pickle of the list that holds the items of several lists.

    :param lists: each as a pickle, or as JSON where the second value is true.
    """
    yield _PROTO + _LIST_OF + _CHAIN + _MARK
    for data, is_json in lists:
        yield from _loaded(data, is_json=is_json)
    # chain(*lists), and list(...) of that
    yield _TUPLE + _REDUCE + _TUPLE1 + _REDUCE + _STOP


def _loaded(data: bytes, *, is_json: bool) -> Iterator[bytes]:
    yield _LOADS[is_json] + _BYTES + struct.pack("<Q", len(data))
    yield data
    yield _TUPLE1 + _REDUCE
