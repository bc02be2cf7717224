"""Read the images of a source into the RAD, the on-disk image store.

    dvc repro ingest

Reads   data.source, and data.labels or data.test; params: data, ingest
Writes  data/rad/image_data.h5   index file: labels, and a view of the pixels in
        data/rad/shards          files named by their content
        data/rad/metadata.json   of each image; why each skipped file was skipped
        metrics/ingest.json      numbers of images, of skipped files and, if known, of patients
"""

from collections import Counter

from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import INGEST_METRICS, METADATA, STORE_INDEX
from brainmri.images.cache import DecodeCache
from brainmri.images.ingestion import check_source, conflicting_classes, decode_new, write_shards
from brainmri.images.patients import number_patients
from brainmri.images.sources import list_images
from brainmri.store.writer import write_store


def main() -> None:
    params = load_params()
    settings = params.ingest
    classes, files, rejected = list_images(params.data)
    with DecodeCache(settings) as cache:
        records, skipped = decode_new(files, cache)
        skipped |= conflicting_classes(files, records)
        rejected += [
            {"path": file.path, "reason": skipped[file.path]}
            for file in files
            if file.path in skipped
        ]
        usable = [file for file in files if file.path not in skipped]
        images_of = Counter(file.class_name for file in usable)
        counts = {name: images_of[name] for name in classes}
        check_source(params.data.source, counts, rejected, settings.strict)
        records_of_usable = [records[file.path] for file in usable]
        patients = number_patients(usable, records_of_usable, params.data.patient)

        names, sizes = write_shards(files, records, skipped, cache)
        labels = [classes.index(file.class_name) for file in usable]
        write_store(
            STORE_INDEX, cache.folder, names, sizes, labels, settings.image_size, len(classes)
        )
        cache.save_index(names)

    images = [
        {
            "path": file.path,
            "class": file.class_name,
            **records[file.path].metadata,
            **({"split": file.split} if file.split else {}),
            **({"patient": patients[row]} if patients else {}),
        }
        for row, file in enumerate(usable)
    ]
    write_json(METADATA, {"classes": classes, "images": images, "rejected": rejected})
    metrics = {"images": len(usable), "rejected": len(rejected), "classes": counts}
    metrics |= {"patients": len({*patients})} if patients else {}
    write_json(INGEST_METRICS, metrics)
    print(f"{len(usable)} images of {len(classes)} classes, {len(rejected)} files skipped")
