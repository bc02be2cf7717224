"""The error that is reported in one line, without a traceback, and how that line is printed."""


class UserError(Exception):
    """A mistake that the user can fix. The message is one line: what is wrong, what was expected,
    what to do.
    """


def printable(text: object) -> str:
    """Escape, as Python writes them, letters that a terminal may take for commands."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def error_line(error: object) -> str:
    """Return an error as it is printed: one line, whatever names it holds."""
    return "error: " + printable(" ".join(str(error).split()))
