"""All lists of an audit, those first that must be empty for results to be believed."""

from brainmri.audit.collection import Collection
from brainmri.audit.findings import Findings
from brainmri.audit.image_findings import (
    find_bright,
    find_colored,
    find_margins,
    find_mislabeled,
    find_outliers,
)
from brainmri.audit.mislabeled import LabelIssue
from brainmri.audit.overlap_findings import (
    find_across_classes,
    find_across_split,
    find_copies,
    find_mixed_patients,
    find_near_duplicates,
    find_shared,
    find_split_patients,
)


def list_findings(
    collection: Collection,
    issues: list[LabelIssue] | None,
    other: Collection | None,
    other_folder: str | None,
) -> list[Findings]:
    """Return all lists for which something is known: a split, patients, votes, other images.

    Parameters
    ----------
    collection : Collection
    issues : list of LabelIssue or None
        None without the votes of a run.
    other : Collection or None
        The one with which it is compared.
    other_folder : str or None
        Its folder, as the user named it.
    """
    has_split = any(collection.splits)
    lists = [
        find_shared(collection, other, other_folder) if other else None,
        find_across_split(collection) if has_split else None,
        find_split_patients(collection) if has_split else None,
        find_across_classes(collection),
        find_mislabeled(collection, issues) if issues is not None else None,
        find_mixed_patients(collection),
        find_copies(collection),
        find_near_duplicates(collection),
        find_colored(collection),
        find_bright(collection),
        find_margins(collection),
        find_outliers(collection),
    ]
    return [findings for findings in lists if findings]
