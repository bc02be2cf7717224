"""Which letters plots can draw, and with which fonts.

DejaVu Sans, which comes with matplotlib, draws all letters that it has, so that such plots have the
same bytes on every machine. Other letters are drawn with installed fonts (Debian's
`fonts-noto-cjk`, say), since a readable name is worth more than equal bytes: those plots are the
same on machines with the same fonts. Letters that no font has are escaped.
"""

import functools
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

families = ["DejaVu Sans"]
"""Font families of plots; `drawable` appends the fallbacks that letters need."""


@functools.cache
def drawable(letter: str) -> bool:
    """Return whether plots can draw a letter, and add the font that it needs to `families`."""
    if any(_has_letter(_font_file(family), letter) for family in families):
        return True
    for file in _font_files():
        if _has_letter(file, letter) and (family := _register(file, letter)):
            families.append(family)
            return True
    return False


@functools.cache
def _font_files() -> list[str]:
    """List matplotlib's fonts for text, then the installed ones, regular faces first."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    bundled_names = ("DejaVuSans", "DejaVuSansDisplay", "STIXGeneral")
    bundled = [str(folder / f"{name}.ttf") for name in bundled_names]
    installed = [file for file in findSystemFonts() if "LastResort" not in file]
    return bundled + sorted(
        installed, key=lambda file: ("Regular" not in file, Path(file).name, file)
    )


def _register(file: str, letter: str) -> str | None:
    """Add a font to matplotlib's, and return its family.

    Returns None if the file that matplotlib chooses of the family lacks the letter.
    """
    family = FT2Font(file).family_name
    if family not in fontManager.get_font_names():
        fontManager.addfont(file)
    return family if _has_letter(_font_file(family), letter) else None


def _font_file(family: str) -> str:
    """Return the regular face of a family, whatever the user's matplotlibrc prefers."""
    plain = dict.fromkeys(("style", "variant", "weight", "stretch"), "normal")
    return findfont(FontProperties(family=[family], size=10, **plain))


def _has_letter(file: str, letter: str) -> bool:
    """Return whether a font has an outline for the letter; fonts of colored bitmaps have none."""
    try:
        font = FT2Font(file)
        if not font.scalable or not font.get_char_index(ord(letter)):
            return False
        font.set_size(10, 100)
        left, bottom, right, top = font.load_char(ord(letter)).bbox
    except (OSError, RuntimeError, ValueError):
        return False
    return letter.isspace() or (right > left and top > bottom)
