"""Reads and writes COCO result files, plain or zipped, and converts their rows to arrays and back."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, as_in_file, as_read
from retinanet.coco.json_values import is_id, is_text
from retinanet.coco.result_rows import KEYS, set_of, unusable_findings
from retinanet.runtime.console import warn
from retinanet.runtime.errors import CANT_READ, UserError, file_error_explained
from retinanet.runtime.files import written_whole
from retinanet.runtime.json_files import parse_json, read_json, without_nan
from retinanet.runtime.text_files import has_mark

# A zip member may claim at most MAX_BYTES, and at most SMALL bytes plus MAX_GROWTH times the size of the zip: result
# rows compress to about a tenth of their size, never to less than a hundredth.
MAX_BYTES, MAX_GROWTH, SMALL = 2**31, 100, 2**26
WRITTEN_AT = (1980, 1, 1, 0, 0, 0)  # the earliest date in a zip; fixed, so that equal rows make equal bytes
FASTEST = 1  # the compression level; slower levels hardly shrink digits further
DIGEST = "results_sha256"  # the key of the result file's hash in its record
TEST_SETTINGS = "test_settings"
SETTINGS_KEYS = ("settings", TEST_SETTINGS)  # the keys of train.py's and test.py's flags in a record


class Results(NamedTuple):
    """The contents of a result file."""

    rows: Any  # as parsed, not checked
    member: str | None = None  # the file's name in the zip, if it was zipped


class Found(NamedTuple):
    """D detections in the images of a set."""

    images: np.ndarray  # int64 [D], index of the image
    labels: np.ndarray  # int64 [D]
    scores: np.ndarray  # float64 [D]
    boxes: np.ndarray  # float64 [D, 4], (left, top, width, height) in original pixels

    def at(self, rows: np.ndarray) -> "Found":
        """Returns the detections selected by `rows`, which are indices or a mask, in the order of `rows`."""
        return Found(*(values[rows] for values in self))


def joined(parts: Sequence[Found]) -> Found:
    """Concatenates the detections of all `parts`."""
    none = Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    return Found(*map(np.concatenate, zip(none, *parts, strict=True)))


def found_of(rows: Sequence[dict[str, Any]], annotations: Annotations) -> Found:
    """Converts checked rows (image_id, category_id, bbox, score) of a result file to detections, in the same order.

    The rows' boxes are oriented as in the annotation file; detections are turned upright if the annotations were.
    """
    order = np.argsort(annotations.image_ids)
    ids = np.array([row["image_id"] for row in rows], np.int64)
    images = order[np.searchsorted(annotations.image_ids[order], ids).clip(max=len(order) - 1)]
    assert (annotations.image_ids[images] == ids).all(), "a row of another set"
    label_of = {category_id: label for label, category_id in enumerate(annotations.category_ids)}
    return Found(
        images,
        labels=np.array([label_of[row["category_id"]] for row in rows], np.int64),
        scores=np.array([row["score"] for row in rows], np.float64),
        boxes=as_read(np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4), images, annotations),
    )


def rows_of(found: Found, annotations: Annotations) -> list[dict[str, Any]]:
    """Converts detections to rows of a COCO result file, with boxes oriented as in the annotation file."""
    category_ids = np.array(annotations.category_ids, np.int64)[found.labels]
    boxes = as_in_file(found.boxes, found.images, annotations)
    columns = (annotations.image_ids[found.images], category_ids, boxes, found.scores)
    return [dict(zip(KEYS, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]


def default_results_path(set_name: str) -> Path:
    return Path(f"{set_name}_bbox_results.json")


def read_results(path: Path) -> Results:
    """Reads a result file, plain or in a .zip. Raises UserError if the file is missing or damaged."""
    if _is_zip(path):
        member, content = read_zip(path)
        return Results(_rows(content, path), member)
    with file_error_explained(path, CANT_READ, "Check the path and its permissions."):
        return Results(_rows(path.read_bytes(), path))


def _rows(content: bytes, path: Path) -> Any:
    if has_mark(content):  # some Windows programs write a mark
        raise UserError(
            f"{path}: begins with a byte order mark, which evaluation servers refuse. Save it as UTF-8 without it."
        )
    return parse_json(content, path)


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not is_id(record.get("epoch")) or not is_text(record.get("checkpoint")):
        return False
    if not all(isinstance(record.get(name), dict) for name in SETTINGS_KEYS):
        return False
    values = [value for name in SETTINGS_KEYS for value in record[name].values()] + [record.get("git_commit")]
    words = [word for value in values for word in (value if isinstance(value, list) else [value])]
    return all(word is None or is_text(word) or isinstance(word, bool | int | float) for word in words)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def load_results(path: Path, annotations: Annotations) -> Found:
    """Returns the detections in a result file; warns if the file's record names other annotations.

    Raises UserError if the detections can't be drawn or evaluated.
    """
    rows = read_results(path).rows
    if findings := unusable_findings(rows, annotations):
        finding, other = findings[0], set_of(rows, annotations)
        advice = f"Its images and categories belong to the set {other}: use --set_name {other}."
        times = f" ({finding.num_rows} times)" if finding.num_rows > 1 else ""
        raise UserError(f"{path}: {finding.problem}{times}. {advice if other else finding.fix}")
    if other_file := _other_annotations(read_record(path)[0], annotations):
        warn(
            f"{path}: was made for {other_file} as it was then, not for {annotations.path} as it is now. The "
            "detections only fit if both have the same images under the same ids"
        )
    return found_of(rows, annotations)


def write_results(rows: list[Any], path: Path, record: dict[str, Any] | None = None) -> None:
    """Atomically writes a result file and, beside it, the `record` of its origin. Raises UserError if that fails."""
    content = json.dumps(rows)  # json.dump takes several times as long
    _write(content, path)
    if record is not None:
        digest = hashlib.sha256(content.encode()).hexdigest()
        _write(json.dumps(record | {DIGEST: digest}, indent=2) + "\n", record_path(path))


def _write(content: str, path: Path) -> None:
    with file_error_explained(path, "can't be written", "Choose another place for it."), written_whole(path) as file:
        file.write(content)


def record_path(path: Path) -> Path:
    """Returns the path of the record of the result file `path`, such as val_bbox_results.run.json."""
    # Anything else after a dot, as in val_t0.3, is a part of the name.
    stem = path.stem if path.suffix.lower() in (".json", ".zip") else path.name
    return path.with_name(f"{stem}.run.json")


def read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Returns (record, "") for the result file `path`, or ({}, reason) if its record can't be used."""
    beside = record_path(path)
    if not beside.exists():
        return {}, f"there is no {beside}"
    try:
        record = read_json(beside)
    except UserError as error:
        return {}, str(error)
    if not _is_record(record):
        return {}, f"{beside} is not the record of a result file"
    content = read_zip(path)[1] if _is_zip(path) else path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record.get(DIGEST):
        return {}, f"{beside} belongs to another version of {path.name}"
    return without_nan(record), ""


def recorded_set(paths: Sequence[Path]) -> str | None:
    """Returns the first set named in the records of the result files `paths`; None if no record names one."""
    names = (read_record(path)[0].get(TEST_SETTINGS, {}).get("set_name") for path in paths)
    return next(filter(is_text, names), None)


def _other_annotations(record: dict[str, Any], annotations: Annotations) -> str | None:
    """Returns the annotation file that the `record` of a result file names, unless it matches these `annotations`."""
    data = record.get("data")
    match [*data.values()] if isinstance(data, dict) else []:
        case [{"file": str(file), "sha256": str(digest)}] if digest != annotations.fingerprint:
            return file
    return None


def results_text(rows: list[dict[str, Any]]) -> str:
    """Returns checked `rows` as JSON to submit, with only the four KEYS, from which COCO infers the type of result."""
    return json.dumps([{key: row[key] for key in KEYS} for row in rows], allow_nan=False)


def read_zip(path: Path) -> tuple[str, bytes]:
    """Returns the name and contents of the only file, a .json, in the zip `path`. Raises UserError for other zips."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _only_member(archive, path.stat().st_size)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: can't be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception as error:  # damaged bytes can make zipfile raise almost anything
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a zip with a result file in it, or damaged ({reason}). Zip the result file again, by itself."
        ) from error


def write_zip(text: str, path: Path) -> None:
    """Atomically writes NAME.zip, with `text` in it as NAME.json. Raises UserError if writing fails.

    The same text under the same name always gives the same bytes.
    """
    member = zipfile.ZipInfo(f"{path.stem}.json", WRITTEN_AT)
    member.create_system, member.external_attr = 3, 0o644 << 16  # a plain file with the usual permissions on Unix
    with (
        file_error_explained(path, "can't be written", "Choose another place for it."),
        written_whole(path, "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        archive.writestr(member, text, zipfile.ZIP_DEFLATED, FASTEST)


def set_aside(path: Path, rows: list[Any]) -> Path | None:
    """Renames an older result file at `path`, and its record, unless the file holds these `rows`.

    Returns the file's new path, or None if nothing was renamed.
    """
    if not path.exists() or path.read_bytes() == json.dumps(rows).encode():
        return None
    number = 1
    while (aside := path.with_stem(f"{path.stem}.before_{number}")).exists():
        number += 1
    with file_error_explained(path, "can't be renamed", "Choose another place."):
        path.rename(aside)
        if record_path(path).exists():
            record_path(path).rename(record_path(aside))
    return aside


def _only_member(archive: zipfile.ZipFile, size: int) -> tuple[str, bytes]:
    members = archive.infolist()
    names = ", ".join(member.filename for member in members[:3]) + (" ..." if len(members) > 3 else "")
    if len(members) != 1 or not members[0].filename.endswith(".json"):
        raise ValueError(f"it must hold one .json and nothing else, but holds {names or 'nothing'}")
    (member,) = members
    if member.file_size > min(MAX_BYTES, SMALL + MAX_GROWTH * size):
        raise ValueError(f"{names} claims {member.file_size} bytes in a zip of {size}, more than any result file")
    with archive.open(member) as file:
        content = file.read(member.file_size)  # without a limit, read() would unpack everything before the check
    if len(content) != member.file_size:
        raise ValueError(f"{names} claims {member.file_size} bytes but has {len(content)}")
    return member.filename, content
