"""What an audit counts, as JSON and in a few lines."""

from brainmri.audit.collection import Collection
from brainmri.audit.counts import PARTS
from brainmri.audit.findings import Findings


def summarize(collection: Collection, lists: list[Findings], no_votes: str | None) -> dict:
    """Compute what metrics/data_audit.json holds.

    Returns
    -------
    dict
        Numbers of `images`, `rejected` files and `groups_of_near_duplicates`; of
        images by class (`classes`) and by part of the given split (`split`); of `patients`; and
        for each list `images`, by class too, and where they count `groups`. `mislabeled` is None
        without the votes of a run.
    """
    counts = {
        "images": len(collection.files),
        "rejected": len(collection.rejected),
        "classes": collection.count_classes(list(range(len(collection.files)))),
        "groups_of_near_duplicates": len({*collection.groups.tolist()}) if collection.files else 0,
    }
    parts = [part for part in PARTS if part in collection.splits]
    if parts:
        counts["split"] = {part: collection.splits.count(part) for part in parts}
    if collection.patients is not None:
        counts["patients"] = len({*collection.patients})
    for findings in lists:
        if findings.name != "outliers":
            counts[findings.name] = {
                **({"groups": len(findings.groups)} if findings.is_grouped else {}),
                "images": len(findings.rows),
                "classes": collection.count_classes(findings.rows),
            }
    if no_votes:
        counts["mislabeled"] = None
    return counts


def describe(collection: Collection, lists: list[Findings], no_votes: str | None) -> list[str]:
    """Describe an audit in a few lines."""
    by_class = collection.count_classes(list(range(len(collection.files))))
    named = ", ".join(f"{name} {number}" for name, number in by_class.items())
    lines = [f"{len(collection.files)} images ({named}); {len(collection.rejected)} unusable files"]
    if empty := [repr(name) for name, number in by_class.items() if not number]:
        lines.append(f"No usable image of class {', '.join(empty)}: `ingest` will refuse this")
    for findings in lists:
        if findings.name == "outliers" or not findings.rows:
            continue
        counts = _count(len(findings.rows), "image")
        if findings.is_grouped:
            counts += f" in {_count(len(findings.groups), 'group')}"
        lines.append(f"{findings.title}: {counts}")
    if no_votes:
        lines.append(f"Images that look mislabeled: no list, since {no_votes}; see `dvc repro`")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
