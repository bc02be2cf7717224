"""Files of a folder of images that end every command of DVC's, since it can't read them."""

import os
import stat


def unreadable_files(root: str) -> list[str]:
    """Return a line for each file below a folder that DVC can't read, with the reason."""
    lines = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = f"{folder}/{name}"
            if reason := why_unreadable(path):
                lines.append(f"{path!r}: {reason}")
    return sorted(lines)


def why_unreadable(path: str) -> str | None:
    """Return why DVC can't read a file or list a folder; None if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a symbolic link to nowhere"
    except OSError as error:
        return error.strerror
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "not a regular file"
    return None if os.access(path, os.R_OK) else "no permission to read it"
