"""Names of any kind (class folders, files) in plots and tables: printable, short and distinct."""

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
        Whether a printable letter can be drawn. Others, and letters that are not printable, become
        escapes such as ``\\u8111``.
    """
    parts = _split_letters(name, drawable)
    if sum(map(columns, parts)) <= width:
        return "".join(parts)
    head, tail = [], []
    free = width - 1
    while parts:
        is_head_next = len(head) <= len(tail)
        needed = columns(parts[0 if is_head_next else -1])
        if needed > free:
            break
        if is_head_next:
            head.append(parts.pop(0))
        else:
            tail.insert(0, parts.pop())
        free -= needed
    return "".join([*head, "…", *tail])


def shorten_all(
    names: list[str], width: int, drawable: Callable[[str], bool] = str.isprintable
) -> list[str]:
    """Shorten names as `shorten` does; names that would be equal get their number in the list."""
    shortened = [shorten(name, width, drawable) for name in names]
    counts = Counter(shortened)
    distinct = []
    for number, (name, text) in enumerate(zip(names, shortened, strict=True), start=1):
        if counts[text] == 1:
            distinct.append(text)
        else:
            suffix = f" #{number}"
            distinct.append(shorten(name, width - len(suffix), drawable) + suffix)
    return distinct


def columns(text: str) -> int:
    """Count the columns that a text takes in a terminal."""
    return sum(
        0
        if unicodedata.category(letter).startswith("M")
        else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def pad(text: str, width: int) -> str:
    """Pad a text with spaces to a width in columns."""
    return text + " " * (width - columns(text))


def _split_letters(name: str, drawable: Callable[[str], bool]) -> list[str]:
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
