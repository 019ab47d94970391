"""Writes the numbers of an evaluation or a comparison as JSON, for other programs to read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.evaluation.analysis import Analysis, WorkingPoint, f1_of_images, image_counts
from retinanet.evaluation.average_precision import RECALLS
from retinanet.evaluation.coco_table import NUMBER_NAMES, CocoTable
from retinanet.evaluation.compare import Comparison
from retinanet.evaluation.confusion import Confusion
from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.tide_errors import ERROR_KINDS
from retinanet.reports.analysis_text import precision_at_50
from retinanet.reports.compared_settings import SettingDifference
from retinanet.runtime.errors import file_error_explained
from retinanet.runtime.files import written_whole

MOST_IN_TABLE = 1000  # classes in the confusion table; if there are more, only the pairs that occur are written
MADE_BY = ("checkpoint", "epoch", "settings", "test_settings")  # taken from the record of a result file


def json_text(numbers: dict[str, Any]) -> str:
    return json.dumps(numbers, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, numbers: dict[str, Any]) -> None:
    """Writes the --json file atomically. Raises UserError if that fails."""
    with file_error_explained(path, "can't be written", "Choose another --json."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json_text(numbers))


def evaluation_numbers(
    source: str, annotations: Annotations, analysis: Analysis, table: CocoTable, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns all numbers of an evaluation, and what the `record` of the result file says about its origin."""
    return {
        "results": source,
        "annotations": str(annotations.path),
        "num_images": len(annotations.image_ids),
        **_made_by(record),
        **metrics_of(analysis, table),
        "images": _images(analysis, annotations),
    }


def comparison_numbers(
    sources: tuple[str, str],
    annotations: Annotations,
    comparison: Comparison,
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    num_draws: int,
    settings: Sequence[SettingDifference] | None,
) -> dict[str, Any]:
    """Returns what was compared, and all numbers from the comparison; differences are B minus A.

    `settings` are the settings that differ, or None if they are unknown.
    """
    a, b = ({"results": source, **_made_by(record)} for source, record in zip(sources, records, strict=True))
    names = map(annotations.file_name, range(len(annotations.image_ids)))
    f1 = comparison.f1.round(6).tolist()
    return {
        "annotations": str(annotations.path),
        "num_images": len(annotations.image_ids),
        "num_draws": num_draws,
        "a": a,
        "b": b,
        "settings_that_differ": None if settings is None else [each._asdict() for each in settings],
        "differences": [
            {
                "name": number.name,
                "a": none_of_nan(number.a),
                "b": none_of_nan(number.b),
                "difference": _number_dict(number.difference),
                "wins": none_of_nan(number.wins),
            }
            for number in comparison.differences
        ],
        "AP50_lost_more": dict(zip(ERROR_KINDS, comparison.lost_more.tolist(), strict=True)),
        "images": [
            {"id": image_id, "file_name": name, "f1_a": f1_a, "f1_b": f1_b}
            for image_id, name, f1_a, f1_b in zip(annotations.image_ids.tolist(), names, *f1, strict=True)
        ],
    }


def _made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in MADE_BY}


def _images(analysis: Analysis, annotations: Annotations) -> list[dict[str, Any]]:
    """Returns each image's counts and F1 at IoU 0.5, for detections above the threshold with the best F1."""
    counts = image_counts(analysis, annotations)
    columns = {
        "id": annotations.image_ids.tolist(),
        "file_name": [annotations.file_name(image) for image in range(len(annotations.image_ids))],
        **{name: values.tolist() for name, values in counts._asdict().items()},
        "f1": f1_of_images(counts).round(6).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def metrics_of(analysis: Analysis, table: CocoTable) -> dict[str, Any]:
    """Returns all numbers as plain data; unknown numbers are None."""
    names = [numbers.name for numbers in analysis.classes]
    return {
        "coco": dict(zip(NUMBER_NAMES, (None if number < 0 else number for number in table.numbers), strict=True)),
        "num_draws": analysis.drawn.shape[2],
        "AP": _number_dict(analysis.ap),
        "AP50": _number_dict(analysis.ap50),
        "classes": [
            {
                "name": numbers.name,
                "num_objects": numbers.num_objects,
                "AP": _number_dict(numbers.ap),
                "AP50": _number_dict(numbers.ap50),
                "AR": none_of_nan(numbers.ar),
                "best_f1": _number_dict(numbers.best),
                "AP50_lost": dict(zip(ERROR_KINDS, map(none_of_nan, numbers.lost.tolist()), strict=True)),
            }
            for numbers in analysis.classes
        ],
        "best_f1": _number_dict(analysis.best),
        "AP50_lost": dict(zip(ERROR_KINDS, analysis.lost.tolist(), strict=True)),
        "never_found": [numbers.name for numbers in analysis.classes if numbers.is_never_found],
        "confusion": {
            "true": [*names, "background"],
            "found": [*names, "not found"],
            **_counts(analysis.confusion),
        },
        "precision_recall_50": {
            "recall": RECALLS.tolist(),
            "precision": {
                name: None if curve[0] < 0 else curve.tolist()
                for name, curve in zip(names, precision_at_50(table).T, strict=True)
            },
        },
    }


def none_of_nan(number: float) -> float | None:
    return None if math.isnan(number) else number


def _counts(confusion: Confusion) -> dict[str, Any]:
    """Returns the confusion table, with a row for each true class and a last one for the background.

    With more than MOST_IN_TABLE classes, it instead returns [row, column, count] for each pair that occurs.
    """
    if confusion.num_classes <= MOST_IN_TABLE:
        return {"counts": confusion.table().tolist()}
    return {"pairs": np.stack(confusion[1:], axis=1).tolist()}


def _number_dict(numbers: Interval | WorkingPoint) -> dict[str, float | None]:
    return {name: none_of_nan(number) for name, number in numbers._asdict().items()}
