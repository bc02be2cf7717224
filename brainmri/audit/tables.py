"""The CSV files of an audit: one for each list, and one of all images."""

from pathlib import Path

from brainmri.audit.collection import Collection
from brainmri.audit.findings import Findings
from brainmri.common.files import write_bytes
from brainmri.common.tables import format_csv

SHARED_COLUMNS = ["group", "path", "class", "split", "patient"]


def write_tables(
    folder: Path, collection: Collection, other: Collection | None, lists: list[Findings]
) -> None:
    """Write all CSV files of an audit; those of the last one are deleted.

    Parameters
    ----------
    folder : Path
    collection : Collection
    other : Collection or None
        The one with which it is compared.
    lists : list of Findings
    """
    for path in folder.glob("*.csv"):
        path.unlink()
    write_table(folder / "images.csv", _image_rows(collection))
    write_table(folder / "unusable.csv", [["path", "reason"], *map(_values, collection.rejected)])
    for findings in lists:
        write_table(folder / f"{findings.name}.csv", _list_rows(findings, collection, other))


def write_table(path: Path, rows: list[list]) -> None:
    """Write rows as CSV; see `format_csv`."""
    write_bytes(path, format_csv(rows))


def _values(entry: dict) -> list:
    return list(entry.values())


def _image_rows(collection: Collection) -> list[list]:
    header = ["path", "class", "split", "patient", "near_duplicate_group", "width", "height"]
    rows = [[*header, "mode", "is_colored", "background", "head"]]
    for row, image in enumerate(collection.measurements):
        path, *described = _describe(collection, row)
        rows.append(
            [
                path,
                *described,
                int(collection.groups[row]),
                image.width,
                image.height,
                image.mode,
                int(image.is_colored),
                image.background,
                round(image.head, 4),
            ]
        )
    return rows


def _list_rows(findings: Findings, collection: Collection, other: Collection | None) -> list[list]:
    further = [*next((group.items[0].values for group in findings.groups), {})]
    rows = [[*SHARED_COLUMNS, *further]]
    for number, group in enumerate(findings.groups):
        for item in group.items:
            described = _describe(other if item.is_other else collection, item.row)
            rows.append([number, *described, *item.values.values()])
    return rows


def _describe(collection: Collection, row: int) -> list:
    """Return the path, the class, the part of the split and the patient's number of an image."""
    file = collection.files[row]
    patient = "" if collection.patients is None else collection.patients[row]
    return [file.path, file.class_name, file.split or "", patient]
