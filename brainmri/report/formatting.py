"""Numbers and names as the report page and the model card show them."""

from brainmri.evaluation.metrics import format_metric

MAX_LISTED = 10  # names in a sentence


def format_number(value: float | None) -> str:
    """Format a count as an integer, a metric with three decimals, and None as "none"."""
    return str(value) if isinstance(value, int) else format_metric(value)


def format_percent(value: float, decimals: int = 0) -> str:
    """Format a fraction as a percentage, such as "87%"."""
    return f"{value:.{decimals}%}"


def format_interval(interval: list[float] | None) -> str:
    """Format an interval, such as "0.843 to 0.980"; empty for None."""
    if interval is None:
        return ""
    low, high = interval
    return f"{low:.3f} to {high:.3f}"


def list_names(names: list[str]) -> str:
    """List names with commas: all of a few, or the first of many and the number of the others."""
    more = len(names) - MAX_LISTED
    if more <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:MAX_LISTED])} and {more} more"


def to_sentence(text: str) -> str:
    """Return a text with a capital letter and a period."""
    return f"{text[:1].upper()}{text[1:]}."


def escape_cell(name: str) -> str:
    """Return a name as it can be written in a cell of a Markdown table."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable.replace("|", "\\|")
