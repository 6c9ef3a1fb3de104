"""Where to compute: the name of a device, and what to do when its memory runs out."""

from __future__ import annotations

import torch

from lnln.errors import SettingsError, UserError


class DeviceMemoryError(UserError, RuntimeError):
    """A device has too little memory even for the smallest piece of the work."""


def resolve_device(name: torch.device | str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, else the CPU.

    Args:
        name: "auto", "cpu", "cuda" or, of several, "cuda:1".

    Returns:
        The device, which this machine has.

    Raises:
        SettingsError: this machine has no such device.
    """
    name = str(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    known = ["cpu"] + ["cuda"] * bool(count) + [f"cuda:{i}" for i in range(count)]
    if name not in known:
        raise SettingsError(
            f"device {name!r} is not to be had here; choose from auto, "
            + ", ".join(known)
        )
    return torch.device(name)
