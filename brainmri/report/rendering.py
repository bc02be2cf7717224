"""Fill the Jinja2 templates of the report page and the model card."""

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from brainmri.report import formatting

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> bytes:
    """Fill a template, with values escaped in HTML.

    Parameters
    ----------
    template : str
        Name of a file in templates/.
    **values : object
        Variables of the template.

    Returns
    -------
    bytes
        UTF-8; what can't be encoded, such as bytes of a file name that are not UTF-8, is written as
        a backslash escape.
    """
    text = environment_of(TEMPLATES).get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace")


@functools.cache
def environment_of(folder: Path) -> Environment:
    """Return what renders the templates in a folder, which may extend those of the report.

    Those of HTML escape values.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": formatting.escape_cell,
        "interval": formatting.format_interval,
        "names": formatting.list_names,
        "number": formatting.format_number,
        "percent": formatting.format_percent,
        "sentence": formatting.to_sentence,
    }
    return environment
