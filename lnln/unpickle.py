"""Read pickles of plain data and NumPy arrays without running anything in them.

A pickle is a program: whoever wrote it decides what `pickle.load` imports and
calls. Restricting the imports of the standard unpickler is not enough for outside
files, because a few bytes still make it allocate gigabytes (a huge memo index) or
crash the interpreter (hashing a deeply nested tuple). So this module reads the
pickle instructions itself, knows only those that plain data needs, and lets no
stated size exceed the file. Arrays stay views into the file until they are copied.
"""

from __future__ import annotations

import codecs
import mmap
import pickle  # for the names of the instructions only; it loads nothing here
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lnln.data import DataError
from lnln.unpickle_arrays import ARRAY_BUILDERS, RESAVE, Fault, Unfinished
from lnln.unpickle_foreign import FETCH, refuse_foreign

# A MOSEI file takes about half a million; each may cost some 70 bytes of memory.
_MAX_STEPS = 20_000_000
# Payloads from this size on stay in the file until somebody reads them.
_LARGE = 1 << 16


@dataclass(frozen=True)
class _Name:
    """An admitted `module.name`; inert until REDUCE looks up its builder."""

    text: str


def load_plain(path: str | Path) -> object:
    """Read a pickle of plain data: numbers, strings, lists, tuples, dicts, arrays.

    Args:
        path: the file; pickle protocols 0 to 5, written by Python 2 or 3 and by
            NumPy 1 or 2.

    Returns:
        The stored object. Its arrays are read-only views into the file.

    Raises:
        DataError: the file cannot be read, is no pickle, is truncated or damaged,
            or asks for anything but plain data (which is named and never run).
    """
    machine = None
    try:
        with open(path, "rb") as file:
            refuse_foreign(file)
            machine = _Machine(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return machine.run()
    except Fault as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check path and permissions"
        ) from error
    # An outside file can break any step in any way; the user needs one kind of error.
    except Exception as error:
        at = machine.at if machine else 0
        state = "is not a pickle or is damaged"
        if machine and machine.data[:1] == pickle.PROTO:
            state = "is a damaged pickle"
        raise DataError(
            f"{path}: {state} ({type(error).__name__} at byte {at}); {FETCH}"
        ) from error


class _Machine:
    """The pickle stack machine, reduced to the instructions of plain data."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.view = memoryview(data)
        self.at = 0
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.budget = len(data)

    def run(self) -> object:
        for _ in range(_MAX_STEPS):
            code = bytes(self.take(1))
            if code == pickle.STOP:
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                self.refuse(code)
            else:
                step(self)
        raise Fault(f"holds more than {_MAX_STEPS:,} small objects; {RESAVE}")

    def refuse(self, code: bytes) -> None:
        names = {item.code.encode("latin1"): item.name for item in pickletools.opcodes}
        # No instruction at all is a KeyError: the file is damaged.
        raise Fault(
            f"uses the pickle instruction {names[code]} at byte {self.at - 1}, which"
            f" plain data does not need; refused, nothing was run; {RESAVE}"
        )

    def take(self, count: int) -> memoryview:
        start, end = self.at, self.at + count
        if end > len(self.view):
            raise Fault(f"ends early at byte {len(self.view)} (truncated); {FETCH}")
        self.at = end
        return self.view[start:end]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        # Without a newline, ask for a byte more than there is.
        end = end if end >= 0 else len(self.view)
        return bytes(self.take(end + 1 - self.at))[:-1]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def counted(self, form: str) -> memoryview:
        count = self.number(form)
        if count < 0:
            raise ValueError("negative size")
        return self.take(count)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[object]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def spend(self, amount: int) -> None:
        # Repeating a reference costs two bytes; copies must not multiply on it.
        self.budget -= amount
        if self.budget < 0:
            raise Fault(f"declares more data than it holds; {FETCH}")

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def get(self, index: int) -> None:
        value = self.memo[index]
        if isinstance(value, Unfinished) and value.value is not None:
            value = value.value
        self.push(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError("append to something else than a list")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise TypeError("item assignment to something else than a dict")
        target.update(_dict(items))

    def name(self, module: object, name: object) -> None:
        text = f"{module}.{name}"
        if text not in _BUILDERS or not isinstance(module, str):
            raise Fault(
                f"asks for {text[:200]!r}, which is not plain data; refused, nothing"
                f" was run; {RESAVE}"
            )
        self.push(_Name(text))

    def reduce(self) -> None:
        args, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Name) or not isinstance(args, tuple):
            raise TypeError("call of something that is no builder")
        self.push(_BUILDERS[target.text](self.spend, *args))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Unfinished) or not isinstance(state, tuple):
            raise TypeError("state for something that takes none")
        self.push(target.build(self.spend, state))


def _dict(items: list[object]) -> dict[object, object]:
    if len(items) % 2:
        raise ValueError("key without value")
    for key in items[::2]:
        # Hashing nested tuples can exhaust the C stack; long ints can collide.
        if type(key) is not str and not (type(key) is int and abs(key) < 1 << 31):
            raise TypeError("dict key that is no string or small integer")
    return dict(zip(items[::2], items[1::2], strict=True))


def _ordered_dict(
    spend: Callable[[int], None], items: object = ()
) -> dict[object, object]:
    if not isinstance(items, (list, tuple)):
        raise TypeError("OrderedDict of something else than a list")
    spend(len(items))
    return _dict([part for key, value in items for part in (key, value)])


_BUILDERS = {**ARRAY_BUILDERS, "collections.OrderedDict": _ordered_dict}


def _proto(m: _Machine) -> None:
    version = m.number("<B")
    if version > 5:
        raise Fault(f"uses the unknown pickle protocol {version}; {RESAVE}")


def _payload(view: memoryview) -> bytes | memoryview:
    return view if len(view) >= _LARGE else bytes(view)


def _py2_string(view: memoryview) -> str | memoryview:
    # Python 2 stores array bytes as strings; decoding gigabytes would copy them.
    return view if len(view) >= _LARGE else str(view, "latin1")


def _unicode(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _int_line(line: bytes) -> int | bool:
    # Protocol 0 writes booleans as the integers 00 and 01.
    return line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _quoted(line: bytes) -> str:
    text = line.strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise ValueError("string without quotes")
    return codecs.escape_decode(text[1:-1])[0].decode("latin1")


def _long(view: memoryview) -> int:
    return int.from_bytes(view, "little", signed=True)


def _tuple(m: _Machine, count: int) -> None:
    m.push(tuple([m.stack.pop() for _ in range(count)][::-1]))


_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    pickle.PROTO: _proto,
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: _Machine.mark,
    pickle.POP: _Machine.pop,
    pickle.POP_MARK: _Machine.pop_mark,
    pickle.DUP: lambda m: m.push(m.stack[-1]),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: lambda m: m.push(_int_line(m.line())),
    pickle.LONG: lambda m: m.push(_int_line(m.line())),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(_long(m.counted("<B"))),
    pickle.LONG4: lambda m: m.push(_long(m.counted("<i"))),
    pickle.FLOAT: lambda m: m.push(float(m.line())),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.STRING: lambda m: m.push(_quoted(m.line())),
    pickle.BINSTRING: lambda m: m.push(_py2_string(m.counted("<i"))),
    pickle.SHORT_BINSTRING: lambda m: m.push(_py2_string(m.counted("<B"))),
    pickle.BINBYTES: lambda m: m.push(_payload(m.counted("<I"))),
    pickle.SHORT_BINBYTES: lambda m: m.push(_payload(m.counted("<B"))),
    pickle.BINBYTES8: lambda m: m.push(_payload(m.counted("<Q"))),
    pickle.BYTEARRAY8: lambda m: m.push(_payload(m.counted("<Q"))),
    pickle.UNICODE: lambda m: m.push(str(m.line(), "raw-unicode-escape")),
    pickle.BINUNICODE: lambda m: m.push(_unicode(m.counted("<I"))),
    pickle.SHORT_BINUNICODE: lambda m: m.push(_unicode(m.counted("<B"))),
    pickle.BINUNICODE8: lambda m: m.push(_unicode(m.counted("<Q"))),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.pop_mark()),
    pickle.APPEND: lambda m: m.extend([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.pop_mark()),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
    pickle.TUPLE1: lambda m: _tuple(m, 1),
    pickle.TUPLE2: lambda m: _tuple(m, 2),
    pickle.TUPLE3: lambda m: _tuple(m, 3),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: lambda m: m.push(_dict(m.pop_mark())),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    pickle.SETITEMS: lambda m: m.set_items(m.pop_mark()),
    pickle.GET: lambda m: m.get(int(m.line())),
    pickle.BINGET: lambda m: m.get(m.number("<B")),
    pickle.LONG_BINGET: lambda m: m.get(m.number("<I")),
    pickle.PUT: lambda m: m.put(int(m.line())),
    pickle.BINPUT: lambda m: m.put(m.number("<B")),
    pickle.LONG_BINPUT: lambda m: m.put(m.number("<I")),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.GLOBAL: lambda m: m.name(str(m.line(), "utf-8"), str(m.line(), "utf-8")),
    pickle.STACK_GLOBAL: lambda m: m.name(m.stack.pop(-2), m.stack.pop()),
    pickle.REDUCE: _Machine.reduce,
    pickle.BUILD: _Machine.build,
}
