"""Files that are no pickles, told by their first bytes: what they are, what to do."""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

from lnln.unpickle_arrays import Fault

#: The remedy for files that did not arrive whole.
FETCH = "fetch the file again and compare its SHA-256 with the published one"
_UNPACK = "unpack it first"
_ARRAYS = (
    "load it where it was made and pickle {split: {key: numpy array or list}}, see "
    "data/README.md"
)
_FOREIGN = (
    (b"version https://git-lfs", "is a git-lfs pointer", "run `git lfs pull`"),
    (b"\x1f\x8b", "is gzip-compressed", _UNPACK),
    (b"PAR1", "is a Parquet table", _ARRAYS),
    (b"MATLAB", "is a MATLAB file", _ARRAYS),
    (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19",
        "is a PyTorch file (.pt)",
        _ARRAYS,
    ),
    (b"BZh", "is bzip2-compressed", _UNPACK),
    (b"\xfd7zXZ", "is xz-compressed", _UNPACK),
    (b"7z\xbc\xaf", "is a 7z archive", _UNPACK),
    (b"\x89HDF", "is an HDF5 file (.csd, .h5)", "use the processed MMSA .pkl file"),
    (b"\x93NUMPY", "is a .npy array", "use the processed MMSA .pkl file"),
)


def refuse_foreign(file: BinaryIO) -> None:
    """Raise Fault if a file is known to be something else than a pickle.

    Args:
        file: open for reading, at its start.

    Raises:
        Fault: what it is, and the remedy.
    """
    head = file.read(512)
    if not head:
        raise Fault(f"is empty; {FETCH}")
    for magic, fault, remedy in _FOREIGN:
        if head.startswith(magic):
            raise Fault(f"{fault}, not a pickle; {remedy}")
    # No pickle begins so, since neither is an instruction.
    if head.lstrip()[:1] in (b"{", b"["):
        raise Fault(f"is JSON text, not a pickle; {_ARRAYS}")
    header = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].rstrip(b"\r")
    if re.fullmatch(rb"[\w \-]+([,;\t][\w \-]*){2,}", header):
        raise Fault(
            "is a table of text (CSV), without features; transcripts in one go with a "
            "file of features: --data FEATURES.pkl --transcripts THIS.csv"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise Fault(
            "is a web page (HTML), not a pickle; the download was answered by a"
            " notice: open the link in a browser, then fetch the file itself"
        )
    if head.startswith(b"PK\x03\x04"):
        _refuse_archive(file)


def _refuse_archive(file: BinaryIO) -> None:
    try:
        names = zipfile.ZipFile(file).namelist()
    except zipfile.BadZipFile:
        raise Fault(f"is a damaged zip archive, not a pickle; {FETCH}") from None
    if any(name.endswith("data.pkl") for name in names):
        raise Fault(f"is a PyTorch file (.pt), not a plain pickle; {_ARRAYS}")
    if names and all(name.endswith(".npy") for name in names):
        raise Fault(f"is an .npz archive of NumPy arrays, not a pickle; {_ARRAYS}")
    raise Fault(f"is a zip archive, not a pickle; {_UNPACK}")
