"""Reads a dataset in any of the supported formats."""

from pathlib import Path

from retinanet.convert.coco_files import read_coco
from retinanet.convert.csv_files import read_csv
from retinanet.convert.cvat import read_cvat
from retinanet.convert.labelling_json import read_labelme, read_labelstudio
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Labelled, LabelledImage
from retinanet.convert.voc import read_voc
from retinanet.convert.yolo import read_yolo
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.convert import COCO, CSV, CVAT, LABELME, LABELSTUDIO, VOC, YOLO, ReadSettings

READERS = {
    YOLO: read_yolo,
    VOC: read_voc,
    CSV: read_csv,
    COCO: read_coco,
    CVAT: read_cvat,
    LABELSTUDIO: read_labelstudio,
    LABELME: read_labelme,
}


def read_dataset(source: Path, kind: str, told: ReadSettings | None = None) -> Labelled:
    """Returns the dataset in `source` (format `kind`). Raises UserError if it has a mistake that may not be skipped."""
    reading = Reading(source, told)
    labelled = read(reading, kind)
    reading.end()
    return labelled


def read(reading: Reading, kind: str) -> Labelled:
    """Returns the dataset at `reading.source`, which is in the format `kind`.

    Images in the same folders as annotated images, but not named in the annotations, are left out. With
    --allow_unlabelled, they are added without objects, because many tools don't list images that have none. The YOLO
    reader handles such images itself. Mistakes in individual images and rows are added to `reading`; any other mistake
    raises a UserError that names it.
    """
    folder = reading.told.image_path
    if folder and not reading.images():
        raise UserError(f"{folder}: has no images. Correct --image_path.")
    try:
        labelled = READERS[kind](reading)
    except OSError as error:  # a name is too long, or a folder can't be read
        raise UserError(
            f"{reading.source}: {error.filename} can't be read ({error.strerror}). Correct the path or its permissions."
        ) from None
    if kind == YOLO:
        return labelled
    num_unnamed = 0
    for labelled_set in labelled.sets:
        named = {image.path: image for image in labelled_set.images}
        tops = {path.parent: path for path in named}
        ids = [image.image_id for image in named.values() if image.image_id is not None]
        for path in [path for path in reading.images_beside(tops) if not reading.tree.is_explained(path)]:
            num_unnamed += 1
            if reading.told.allow_unlabelled:
                with reading.mistakes_collected():
                    size = reading.size(path, str(path))
                    name = Path(named[tops[path.parent]].name).with_name(path.name).as_posix()
                    ids.append(max(ids) + 1 if ids else 0)
                    image_id = ids[-1] if labelled.category_ids else None
                    labelled_set.images.append(LabelledImage(path, name, *size, [], image_id))
    if not num_unnamed:
        return labelled
    outcome = "without objects" if reading.told.allow_unlabelled else "left out, unless --allow_unlabelled is set"
    note = f"{counted(num_unnamed, 'image')} next to the others, not named in the annotations: {outcome}"
    return labelled._replace(notes=[*labelled.notes, note])
