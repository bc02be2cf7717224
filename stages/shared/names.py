"""Names of any kind (class folders, files) in plots and tables: printable, short enough for their place, and distinct."""

import unicodedata
from collections import Counter
from collections.abc import Callable


def shorten(name: str, width: int, drawable: Callable[[str], bool] = str.isprintable) -> str:
    """Shorten a name to a width, keeping both ends; letters that can't be drawn are escaped.

    Parameters
    ----------
    name : str
    width : int
        In columns, of which a wide letter (Chinese, say) takes two and a combining mark none.
    drawable : callable
        Whether a printable letter can be drawn; others, and what is not printable, become escapes such as ``\\u8111``.
    """
    parts = _parts(name, drawable)
    if sum(map(columns, parts)) <= width:
        return "".join(parts)
    head, tail = [], []
    free = width - 1
    while parts and (taken := columns(parts[0 if len(head) <= len(tail) else -1])) <= free:
        if len(head) <= len(tail):
            head.append(parts.pop(0))
        else:
            tail.insert(0, parts.pop())
        free -= taken
    return "".join([*head, "…", *tail])


def shorten_all(names: list[str], width: int, drawable: Callable[[str], bool] = str.isprintable) -> list[str]:
    """Shorten names as `shorten` does; those that would be the same get their number in the list."""
    short = [shorten(name, width, drawable) for name in names]
    counts = Counter(short)
    numbered = [f" #{number}" for number in range(1, len(names) + 1)]
    return [
        text if counts[text] == 1 else shorten(name, width - len(number), drawable) + number
        for name, text, number in zip(names, short, numbered, strict=True)
    ]


def columns(text: str) -> int:
    """Count the columns that a text takes in a terminal."""
    return sum(
        0 if unicodedata.category(letter).startswith("M") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def pad(text: str, width: int) -> str:
    """Fill a text with spaces up to a width in columns."""
    return text + " " * (width - columns(text))


def _parts(name: str, drawable: Callable[[str], bool]) -> list[str]:
    """Split a name where it may be cut: letters with their combining marks, and escapes."""
    parts: list[str] = []
    for letter in name:
        if not letter.isprintable() or not drawable(letter):
            parts.append(letter.encode("unicode_escape").decode())
        elif parts and unicodedata.category(letter).startswith("M"):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts
