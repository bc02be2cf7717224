"""The error that is reported in one line, without a traceback."""


class UserError(Exception):
    """A mistake that the user can fix. The message is one line: what is wrong, what was expected,
    what to do.
    """
