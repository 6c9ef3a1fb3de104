"""What a user can mend, as one family of errors; everything else is a fault of ours."""

from __future__ import annotations


class UserError(Exception):
    """What a user can mend; the message names the cause and the remedy.

    Commands print it as one line. Any other error keeps its traceback.
    """


class SettingsError(UserError, ValueError):
    """An option or a setting that is unknown, impossible, or not for this case."""


class MissingPackageError(UserError, ImportError):
    """A package that an extra brings is not installed."""


class OutputError(UserError, OSError):
    """A file of results cannot be written."""


def require(settings: object, name: str, holds: object, wanted: str) -> None:
    """Refuse a setting that makes no sense.

    Args:
        settings: the dataclass.
        name: of its field.
        holds: whether the value is as wanted.
        wanted: in words, after "must be".

    Raises:
        SettingsError: it is not.
    """
    if not holds:
        value = getattr(settings, name)
        option = name.replace("_", " ")
        raise SettingsError(f"{option} {value!r} is impossible; it must be {wanted}")
