"""The arrays of a pickle: the few NumPy constructors that plain data may name.

Each stands for one `module.name` in the file and checks everything it is given, so
that a damaged or hostile file meets an error here and never NumPy's own code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The remedy where a file holds more than plain data.
RESAVE = (
    "if you trust the file, re-save it where it was made with plain NumPy arrays,"
    " numbers, strings, lists and dicts only"
)

_Spend = Callable[[int], None]
_Array = npt.NDArray[np.generic]


class Fault(Exception):
    """What is wrong with the file, and the remedy."""


@dataclass(eq=False)
class Unfinished:
    """An array or dtype whose contents arrive with a later BUILD instruction.

    Attributes:
        dtype: the type that BUILD completes; None: BUILD makes an array.
        value: the result, once it is built.
    """

    dtype: np.dtype[np.generic] | None = None
    value: object = None

    def build(self, spend: _Spend, state: tuple[object, ...]) -> object:
        """Make the array or dtype from what its `__setstate__` would get.

        Args:
            spend: takes the bytes that are to be copied; raises if they are too many.
            state: version, then shape, dtype, order and data; or of a dtype.

        Returns:
            The finished value.

        Raises:
            Fault: a structured dtype.
            TypeError, ValueError: the state is damaged.
        """
        if self.dtype is None:
            _, shape, dtype, fortran, data = state
            self.value = _array(spend, data, dtype, shape, "F" if fortran else "C")
        else:
            self.value = _finished_dtype(self.dtype, *state)
        return self.value


def _array(
    spend: _Spend, data: object, dtype: object, shape: object, order: object
) -> _Array:
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
        raise TypeError("array without shape or dtype")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise TypeError("array shape that is no tuple of sizes")
    count = math.prod(shape)
    flat: _Array
    if dtype.kind == "O":
        if type(data) is not list or len(data) != count:
            raise ValueError("object array whose list does not fit its shape")
        spend(count)
        flat = np.empty(count, dtype=object)
        # A slice assignment would unpack elements that are lists themselves.
        for i, item in enumerate(data):
            flat[i] = item
    else:
        buffer = _encode(spend, data, "latin1") if isinstance(data, str) else data
        if not isinstance(buffer, (bytes, memoryview)):
            raise TypeError("array data that are no bytes")
        if len(buffer) != count * dtype.itemsize:
            raise ValueError("array data that do not fit the shape")
        flat = np.frombuffer(buffer, dtype) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _finished_dtype(
    dtype: np.dtype[np.generic], version: object, order: object, *rest: object
) -> np.dtype[np.generic]:
    if len(rest) != 6 or any(part is not None for part in rest[:3]):
        raise Fault(f"holds a structured array; refused; {RESAVE}")
    if order not in ("<", ">", "|", "="):
        raise ValueError("unknown byte order")
    return dtype if order == "|" else dtype.newbyteorder(order)


def _dtype(spend: _Spend, code: object, *flags: object) -> Unfinished:
    if not isinstance(code, str):
        raise TypeError("dtype code that is no string")
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|O[48]?|[SU][1-9]\d{0,5}", code):
        raise Fault(f"holds an array of type {code[:40]!r}; refused; {RESAVE}")
    return Unfinished(np.dtype(code))


def _scalar(spend: _Spend, dtype: object, data: object) -> object:
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        raise TypeError("scalar of objects")
    return _array(spend, data, dtype, (), "C").item()


def _encode(spend: _Spend, text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("encoding of something else than a latin1 string")
    spend(len(text))
    return text.encode("latin1")


#: What the admitted names build, by `module.name`; the first argument is `spend`.
ARRAY_BUILDERS: dict[str, Callable[..., object]] = {
    "numpy.ndarray": lambda spend, *args: Unfinished(),
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    # Python 3 writes empty bytes as this call in the old protocols.
    "builtins.bytes": lambda spend: b"",
    "__builtin__.bytes": lambda spend: b"",
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1, NumPy 2
    ARRAY_BUILDERS[f"{_core}.multiarray._reconstruct"] = ARRAY_BUILDERS["numpy.ndarray"]
    ARRAY_BUILDERS[f"{_core}.multiarray.scalar"] = _scalar
    ARRAY_BUILDERS[f"{_core}.numeric._frombuffer"] = _array
