"""The one kind of error that is told to people in one line."""


class UserError(Exception):
    """A mistake a user can mend. The message is one line: what is wrong, what was expected, what to do."""
