"""How the book checks a reader's answer to an exercise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempt(number: str, check: Callable[[Any], None], answer: Any) -> None:
    """Check an answer and print "solved", or "not yet" with what is wrong.

    Never raises, so that a chapter with open exercises still runs to its end; the
    stored outputs show that every stub is "not yet" and every solution is "solved".

    Args:
        number: of the exercise, as in "5.1".
        check: raises (an assertion, or any other exception) for a wrong answer.
        answer: the reader's value or function.
    """
    try:
        check(answer)
    except Exception as fault:
        reason = str(fault).split("\n")[0] or type(fault).__name__
        print(f"Exercise {number}: not yet ({reason})")
    else:
        print(f"Exercise {number}: solved")
