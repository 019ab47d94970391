"""Collects the data that a report's page embeds: images, objects, and each run's detections with their matches."""

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.score_thresholds import USUAL_THRESHOLD
from retinanet.evaluation.analysis import Analysis, image_f1
from retinanet.evaluation.compare import Comparison
from retinanet.evaluation.tide_errors import ERROR_KINDS
from retinanet.reports.analysis_text import change_text, number_text
from retinanet.reports.embedded_images import Pictures
from retinanet.reports.metrics import none_of_nan

VERSION = 1  # of the data's format
MOST_EXACT = 2**53 - 1  # beyond it, JavaScript changes the digits of whole numbers


class Run(NamedTuple):
    """Holds the analysis of one result file, and the file's origin."""

    name: str
    source: str  # the result file
    checkpoint: str | None
    analysis: Analysis


def page_data(
    title: str,
    annotations: Annotations,
    runs: Sequence[Run],
    *,
    pictures: Pictures | None = None,
    comparison: Comparison | None = None,
    suspects: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the data for a page about one run, or two runs on the same set, in the form that page/data.js reads.

    Without `pictures`, the page draws only boxes. Arrays are encoded in base64.
    """
    num_images = len(annotations.image_ids)
    return {
        "version": VERSION,
        "title": title,
        "classes": annotations.class_names,
        "category_ids": annotations.category_ids,
        "images": {
            "names": [annotations.file_name(image) for image in range(num_images)],
            "ids": list(map(_exact, annotations.image_ids.tolist())),
            "width": _base64(annotations.sizes[:, 1], "<i4"),
            "height": _base64(annotations.sizes[:, 0], "<i4"),
            "pictures": pictures.sources if pictures else [None] * num_images,
            "notes": pictures.notes if pictures else [None] * num_images,
        },
        "objects": {
            "image": _base64(owners_of(annotations), "<i4"),
            "class": _base64(annotations.labels, "<i4"),
            "box": _base64(annotations.boxes, "<f4"),
            "crowd": _base64(annotations.crowds, "u1"),
        },
        "runs": [_run_data(run, annotations) for run in runs],
        "kinds": list(ERROR_KINDS),
        "comparison": _comparison_data(comparison),
        "suspects": None if suspects is None else _with_exact_ids(suspects),
    }


def data_text(data: dict[str, Any]) -> str:
    """Returns the data as JSON that can't end the script element around it."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _run_data(run: Run, annotations: Annotations) -> dict[str, Any]:
    analysis = run.analysis
    found, matches, errors = analysis.found, analysis.matches, analysis.errors
    best = none_of_nan(analysis.best.threshold)
    return {
        "name": run.name,
        "source": run.source,
        "checkpoint": run.checkpoint,
        "threshold": USUAL_THRESHOLD if best is None else best,
        "ap": str(analysis.ap),
        "ap50": str(analysis.ap50),
        "class_ap": [str(numbers.ap) for numbers in analysis.classes],
        "class_ap50": [str(numbers.ap50) for numbers in analysis.classes],
        "class_ar": [number_text(numbers.ar) for numbers in analysis.classes],
        "detections": {
            "image": _base64(found.images, "<i4"),
            "class": _base64(found.labels, "<i4"),
            "score": _base64(found.scores, "<f4"),
            "box": _base64(found.boxes, "<f4"),
            "ignored": _base64(matches.ignored[0], "u1"),
            "kind": _base64(errors.kinds, "i1"),
            "match": _base64(matches.objects, "<i4"),
            "any": _base64(matches.any_class, "<i4"),
            "near": _base64(errors.objects, "<i4"),
        },
        "f1": _base64(image_f1(analysis, annotations), "<f8"),
    }


def _comparison_data(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "differences": [
            [each.name, none_of_nan(each.a), none_of_nan(each.b), change_text(each.difference), none_of_nan(each.wins)]
            for each in comparison.differences
        ]
    }


def _with_exact_ids(suspects: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of label_suspects.json with ids that the page can write to decisions.json unchanged."""
    return suspects | {
        "classes": [each | {"id": _exact(each["id"])} for each in suspects["classes"]],
        "suspects": [
            {name: _exact(value) if name.endswith("_id") else value for name, value in each.items()}
            for each in suspects["suspects"]
        ],
    }


def _exact(identity: Any) -> Any:
    """Returns an id, as text if JavaScript would change it: 2**53 + 1 would be rounded, and 7.0 would become 7."""
    is_changed = isinstance(identity, float) or (isinstance(identity, int) and abs(identity) > MOST_EXACT)
    return json.dumps(identity) if is_changed else identity


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
