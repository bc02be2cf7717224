"""Show what is wrong with a set of images, before anybody trains on it.

    python -m brainmri.audit                  (the source of params.yaml)
    python -m brainmri.audit FOLDER --test FOLDER --against FOLDER

Images are read, never changed. FOLDER is a folder of class folders, or one that holds them as
Training and Testing. The page has counts, duplicates, overlaps of classes, of a split and of
patients, labels that the votes of the last run contradict, odd formats, and images unlike all
others; with --against, what the images share with those of another folder.

Reads   params.yaml; the images; models/members and data/rad, if they are of these images
Writes  plots/data_audit.html, plots/data_audit/*.csv, metrics/data_audit.json
"""

import argparse

from brainmri.audit.collection import Collection, build_collection
from brainmri.audit.listing import choose_data, list_collection, list_folder, resolve_layout
from brainmri.audit.lists import list_findings
from brainmri.audit.measuring import load_cache, measure_files, save_cache
from brainmri.audit.mislabeled import label_issues, read_votes
from brainmri.audit.page import render_page
from brainmri.audit.summary import describe, summarize
from brainmri.audit.tables import write_tables
from brainmri.common.command import run_command
from brainmri.common.errors import UserError, printable
from brainmri.common.files import write_bytes, write_json
from brainmri.common.params import NEAR_DUPLICATE_BITS, Data, Params, load_params
from brainmri.common.paths import AUDIT, AUDIT_METRICS, AUDIT_TABLES
from brainmri.images.sources import SourceFile, describe_first


def main() -> None:
    options = parse_arguments()
    params = load_params()
    chosen = choose_data(
        params.data,
        options.folder,
        labels=options.labels,
        test=options.test,
        patient=options.patient,
    )
    data, validation = resolve_layout(chosen)
    collection, other = read_collections(params, data, validation, options.against)
    issues, no_votes = None, None
    try:
        issues = label_issues(read_votes(params, collection))
    except UserError as error:
        no_votes = str(error)
    lists = list_findings(collection, issues, other, options.against)

    sources = {**data.paths, "validation": validation, "against": options.against}
    sources = {kind: path for kind, path in sources.items() if path}
    write_tables(AUDIT_TABLES, collection, other, lists)
    write_json(AUDIT_METRICS, summarize(collection, lists, no_votes))
    page = render_page(sources, collection, other, lists, no_votes, options.thumbnails)
    write_bytes(AUDIT, page)
    print(*map(printable, describe(collection, lists, no_votes)), AUDIT, sep="\n")


def parse_arguments() -> argparse.Namespace:
    """Parse the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m brainmri.audit", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="of class folders; default: data.source"
    )
    parser.add_argument("--labels", metavar="TABLE", help="as data.labels")
    parser.add_argument("--test", metavar="FOLDER", help="as data.test")
    parser.add_argument("--patient", metavar="REGEX", help="as data.patient")
    parser.add_argument(
        "--against", metavar="FOLDER", help="other images, in any folders, to compare with"
    )
    parser.add_argument(
        "--no-thumbnails",
        dest="thumbnails",
        action="store_false",
        help="show names instead of images on the page, for example to share it",
    )
    return parser.parse_args()


def read_collections(
    params: Params, data: Data, validation: str | None, against: str | None
) -> tuple[Collection, Collection | None]:
    """List and measure the images, and those of the folder to compare with.

    Raises
    ------
    UserError
        If a folder can't be listed, holds no usable image, or the patients' pattern does not fit.
    """
    size = params.ingest.image_size
    bits = params.split.near_duplicate_bits
    bits = NEAR_DUPLICATE_BITS if bits is None else bits
    source = list_collection(data, validation)
    others = list_folder(against) if against is not None else []
    cache = load_cache(size)

    def read(
        classes: list[str], files: list[SourceFile], rejected: list, pattern: str | None, label: str
    ) -> Collection:
        measurements = measure_files(files, size, label, cache)
        return build_collection(classes, files, measurements, rejected, pattern, bits)

    collection = read(*source, data.patient, "reading images")
    other = None
    if against is not None:
        other = read([""], others, [], None, f"reading {against}")
    save_cache(source.files + others, size, cache)
    for name, read_images in ((data.source, collection), (against, other)):
        if read_images and not read_images.files:
            raise UserError(
                f"{name}: no usable image{describe_first(read_images.rejected)}; expected PNG, JPEG"
                " or another common format"
            )
    return collection, other


if __name__ == "__main__":
    run_command(main)
