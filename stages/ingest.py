"""Read a folder of class folders into the RAD, the on-disk image store.

    dvc repro ingest

Reads   params: data.source, ingest
Writes  data/rad/image_data.h5   index file: labels, and a view of the pixels in
        data/rad/shards          files named by their content
        data/rad/metadata.json   of each image; why each skipped file was skipped
        metrics/ingest.json      numbers of images and of skipped files
"""

from collections import Counter
from pathlib import Path

from brainmri.common.file_names import stored_paths
from brainmri.common.files import write_json
from brainmri.common.params import load_params
from brainmri.common.paths import INGEST_METRICS, METADATA, STORE_INDEX
from brainmri.images.cache import DecodeCache
from brainmri.images.ingestion import check_source, conflicting_classes, decode_new, write_shards
from brainmri.images.sources import list_images
from brainmri.store.writer import write_store


def main() -> None:
    params = load_params()
    settings = params.ingest
    source = Path(params.data.source)
    classes, files, rejected = list_images(source)
    with DecodeCache(settings) as cache:
        records, skipped = decode_new(source, files, cache)
        skipped |= conflicting_classes(files, records)
        rejected += [
            {"path": path, "reason": skipped[path]} for _, path in files if path in skipped
        ]
        usable = [(name, path) for name, path in files if path not in skipped]
        images_of = Counter(name for name, _ in usable)
        counts = {name: images_of[name] for name in classes}
        check_source(source, counts, rejected, settings.strict)

        paths = stored_paths([path for _, path in files])
        names, sizes = write_shards(files, paths, records, skipped, cache)
        labels = [classes.index(name) for name, _ in usable]
        write_store(
            STORE_INDEX, cache.folder, names, sizes, labels, settings.image_size, len(classes)
        )
        cache.save_index(names)

    images = [
        {"path": paths[path], "class": name, **records[path].metadata} for name, path in usable
    ]
    write_json(METADATA, {"classes": classes, "images": images, "rejected": rejected})
    metrics = {"images": len(usable), "rejected": len(rejected), "classes": counts}
    write_json(INGEST_METRICS, metrics)
    print(f"{len(usable)} images of {len(classes)} classes, {len(rejected)} files skipped")
