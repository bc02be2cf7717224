"""Names of files and folders: system files, which no user made, and forms of Unicode."""

import re
import unicodedata
from collections import Counter

SYSTEM_NAMES = {  # lower case; besides those that start with a dot
    # Windows
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "folder.htt",
    "autorun.inf",
    # macOS, and archives and file servers that it wrote to
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    "desktop db",
    "desktop df",
    "thevolumesettingsfolder",
    # Linux and Android
    "lost+found",
    "lost.dir",
    # NAS devices: Synology, QNAP, NetApp
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@tmp",
    "~snapshot",
    # Image viewers
    "picasa.ini",
    "zbthumbnail.info",
    "pspbrwse.jbf",
}
# Of Windows' disk check, file servers for macOS, Synology and Syncthing; lower case
SYSTEM_PATTERN = re.compile(r"found\.\d{3}|:2e.*|.*@syno(eastream|resource)|~syncthing~.*\.tmp")


def is_hidden(name: str) -> bool:
    """Check whether a listing skips files and folders of this name: dotfiles and system files."""
    return name.startswith(".") or is_system_name(name)


def is_system_name(name: str) -> bool:
    """Check whether a device, an operating system or a program makes files of this name."""
    lower = name.lower()
    return lower in SYSTEM_NAMES or SYSTEM_PATTERN.fullmatch(lower) is not None


def is_utf8(name: str) -> bool:
    """Check whether a file name, as Python decodes it, is UTF-8 on the disk."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def to_nfc(name: str) -> str:
    """Return a name in composed Unicode (NFC), in which equal names have equal characters."""
    return unicodedata.normalize("NFC", name)


def stored_paths(paths: list[str]) -> dict[str, str]:
    """Map paths to those in the store: in composed Unicode, unless two files would share one."""
    counts = Counter(map(to_nfc, paths))
    return {path: path if counts[to_nfc(path)] > 1 else to_nfc(path) for path in paths}
