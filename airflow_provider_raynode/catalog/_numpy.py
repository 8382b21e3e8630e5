"""The kind `numpy`: one array in NumPy's own format."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from airflow_provider_raynode.catalog._base import Serializer


class NumpySerializer(Serializer):
    """One array without object elements, as `.npy` (format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""

    kind = "numpy"
    suffix = ".npy"

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a plain array without objects in it."""
        if type(value).__module__ != "numpy" or type(value).__name__ != "ndarray":
            return False
        return not value.dtype.hasobject

    def dump(self, value: Any, stream: BinaryIO) -> None:
        """Write the array; object elements are refused, since reading them back could run code."""
        import numpy as np

        array = np.asanyarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"an array of {array.dtype} holds Python objects: use kind='pickled'")
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_2_0(stream, header)
        # One view in place of the many small copies that NumPy makes for a stream that is not a real file.
        contiguous = array.T if fortran else np.ascontiguousarray(array)
        stream.write(contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b"")

    def load(self, data: bytearray, name: str) -> Any:
        """Return the array on the memory of `data`, writable, without a copy."""
        import numpy as np

        head = io.BytesIO(memoryview(data)[:65_536])
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(head)
        if dtype.hasobject:
            raise TypeError("an array of objects is not loaded as numpy: it could run code")
        array = np.frombuffer(data, dtype=dtype, offset=head.tell())
        return array.reshape(shape, order="F" if fortran else "C")
