"""The positive class, whose sensitivity, precision and threshold are meant."""

import re

from brainmri.common.errors import UserError

# Names of a class without a finding, in lower case and without other characters
NORMAL_NAMES = {
    "0",
    "absent",
    "control",
    "controls",
    "healthy",
    "neg",
    "negative",
    "no",
    "nofinding",
    "nolesion",
    "none",
    "nonlesion",
    "nontumor",
    "nontumour",
    "normal",
    "nostroke",
    "notumor",
    "notumour",
}


def positive_class(classes: list[str], setting: str | None) -> int | None:
    """Return the number of the positive class; None if no class is.

    Parameters
    ----------
    classes : list of str
    setting : str, optional
        `evaluate.positive`: a class; "auto", of two classes the one beside a class whose name says
        that there is no finding, such as "no" or "healthy"; None, no class.

    Raises
    ------
    UserError
        If it is no class.
    """
    if setting is None:
        return None
    if setting in classes:
        return classes.index(setting)
    if setting != "auto":
        raise UserError(
            f"evaluate.positive is {setting!r}; expected a class ({', '.join(classes)}), auto or"
            " null"
        )
    findings = [label for label, name in enumerate(classes) if not is_normal(name)]
    return findings[0] if len(classes) == 2 and len(findings) == 1 else None


def is_normal(name: str) -> bool:
    """Check whether the name of a class says that there is no finding."""
    return re.sub(r"[\W_]", "", name.casefold()) in NORMAL_NAMES
