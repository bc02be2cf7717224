"""Which letters plots can draw.

DejaVu Sans, which comes with matplotlib, draws what it has letters for, so that such plots have the same bytes on each machine.
Other letters are drawn with the fonts that are installed (Debian's `fonts-noto-cjk`, say), since a name that can be read is worth
more than equal bytes: those plots are the same on machines with the same fonts. Letters that no font has are escaped.
"""

import functools
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

matplotlib.rcdefaults()  # a matplotlibrc of the user's must not change plots without DVC knowing
matplotlib.rcParams["font.family"] = ["DejaVu Sans"]


@functools.cache
def drawable(letter: str) -> bool:
    """Whether plots can draw a letter; the font that it takes is added to those of the plots drawn from now on."""
    families = matplotlib.rcParams["font.family"]
    if any(_has(_file_of(family), letter) for family in families):
        return True
    for file in _font_files():
        if _has(file, letter) and (family := _family(file, letter)):
            matplotlib.rcParams["font.family"] = [*families, family]
            return True
    return False


@functools.cache
def _font_files() -> list[str]:
    """List matplotlib's fonts for text, then the installed ones; regular faces first."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    own = [str(folder / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSansDisplay", "STIXGeneral")]
    installed = [file for file in findSystemFonts() if "LastResort" not in file]
    return own + sorted(installed, key=lambda file: ("Regular" not in file, Path(file).name, file))


def _family(file: str, letter: str) -> str | None:
    """Make a font's family known to matplotlib; None if what it takes of the family lacks the letter."""
    family = FT2Font(file).family_name
    if family not in fontManager.get_font_names():
        fontManager.addfont(file)
    return family if _has(_file_of(family), letter) else None


def _file_of(family: str) -> str:
    return findfont(FontProperties(family=[family]))


def _has(file: str, letter: str) -> bool:
    """Whether a font has an outline for the letter; fonts of colored bitmaps have none."""
    try:
        font = FT2Font(file)
        if not font.scalable or not font.get_char_index(ord(letter)):
            return False
        font.set_size(10, 100)
        left, bottom, right, top = font.load_char(ord(letter)).bbox
    except (OSError, RuntimeError, ValueError):
        return False
    return letter.isspace() or (right > left and top > bottom)
