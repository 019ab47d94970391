"""Checks labels: for each fold of a set, trains a detector on the other folds, and lists labels that it contradicts."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.check_labels.detections import Seen, seen_by_folds, seen_in_file
from retinanet.check_labels.fold_runs import FOLD_SEED, fold_settings, train_folds
from retinanet.check_labels.suspects import rated_images, suspects_in
from retinanet.check_labels.suspects_file import SUSPECTS, summary_lines, suspects_content, write_suspects
from retinanet.checkpoints.start import settings_of_weights
from retinanet.coco.annotations import Annotations, has_objects, placeholder_note
from retinanet.coco.folder import known_set
from retinanet.coco.results import Found, default_results_path, read_record, rows_of, write_results
from retinanet.data.dataset import CocoDataset, load_set, load_set_without_images
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.coco_table import evaluate, require_backend
from retinanet.evaluation.detect_set import found_in_set
from retinanet.reports.embedded_images import pictures_of
from retinanet.reports.html_report import REPORT, write_report
from retinanet.runtime.console import say, warn
from retinanet.runtime.device import find_device, num_workers
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import join, leave
from retinanet.runtime.streams import STDOUT
from retinanet.settings.check_labels import CheckLabelsSettings
from retinanet.settings.options import with_values
from retinanet.settings.shared import UPRIGHT
from retinanet.training.trackers import require_trackers


def check_labels(settings: CheckLabelsSettings) -> int:
    """Writes the suspects among a set's labels. Returns the exit code."""
    with STDOUT.set_up(timed=settings.training.output.log_time), STDOUT.outlived():
        return (
            check_file(settings, settings.checking.results) if settings.checking.results else check_by_folds(settings)
        )


def check_by_folds(settings: CheckLabelsSettings) -> int:
    """For each fold, trains a detector on the others, and checks the fold's labels against the detector's output."""
    training = settings.training
    device = find_device(training.machine.device)
    workers = num_workers(training.machine.workers, device)
    training = with_values(training, {"device": str(device), "workers": workers})
    require_trackers(training.output.track or ())
    ranks = join(device, training.safety.timeout)
    if ranks.size > 1:
        raise UserError("check_labels runs in one process only. Start it without torchrun.")
    data = training.data
    annotations, dataset = load_set(
        data.coco_path,
        data.train_set,
        min_side=data.min_side,
        max_side=data.max_side,
        max_pixels=training.machine.max_pixels,
        exif=data.exif,
        white_level=data.white_level,
    )
    require_objects(annotations)
    require_backend(training.eval_backend)
    weights = training.network.weights
    if was_trained_on(settings, settings_of_weights(weights)):
        warn(f"--weights {weights}: its detector was trained on this set, so the folds' detectors repeat the mistakes")
    if data.tiling.tiles:
        warn(
            "--tile applies to the folds' training only. Labels are compared with detections in whole images, so many "
            "small objects may be listed as boxes without an object"
        )
    runs = fold_settings(settings.checking, training, dataset)
    train_folds(runs, ranks)
    leave()
    path = training.output.output_path / default_results_path(data.train_set)
    found = report(settings, dataset, seen_by_folds(runs, annotations), path)
    write_results(rows_of(found, annotations), path)
    say(f"The folds' detections: {path}")
    return 0


def check_file(settings: CheckLabelsSettings, path: Path) -> int:
    """Checks the labels against the detections in a result file."""
    data = settings.training.data
    dataset = load_set_without_images(
        data.coco_path,
        data.train_set,
        settings.training.machine.max_pixels,
        exif=data.exif,
        white_level=data.white_level,
        for_pictures=True,
    )
    require_objects(dataset.annotations)
    require_backend(settings.training.eval_backend)
    if was_trained_on(settings, read_record(path)[0].get("settings", {})):
        warn(f"{path}: its detector was trained on this set, so it repeats the mistakes and won't find them")
    report(settings, dataset, seen_in_file(path, dataset.annotations), path)
    return 0


def was_trained_on(settings: CheckLabelsSettings, trained: Mapping[str, Any]) -> bool:
    """Returns True if a detector whose run had the settings `trained` was trained on the set."""
    data = settings.training.data
    same_folder = Path(str(trained.get("coco_path"))).resolve() == data.coco_path.resolve()
    return same_folder and trained.get("train_set") == data.train_set


def require_objects(annotations: Annotations) -> None:
    if not has_objects(annotations):
        raise UserError(
            f"{annotations.path}: has no objects to check{placeholder_note(annotations)}. Choose another --train_set."
        )


def report(settings: CheckLabelsSettings, dataset: CocoDataset, seen: Iterator[Seen], results: Path) -> Found:
    """Finds suspects, writes them and the report, and returns all detections.

    `seen` yields the regions and detections of each image; `results` is the path of the result file with the
    detections.
    """
    annotations, training = dataset.annotations, settings.training
    folder = training.output.output_path
    rated = list(rated_images(annotations, seen, FOLD_SEED))
    suspects = suspects_in(rated, len(annotations.class_names))
    content = suspects_content(suspects, annotations, training.data.train_set)
    write_suspects(content, folder / SUSPECTS)
    say(*summary_lines(content, sum(len(each.rows) for each in rated)))
    found = found_in_set([each.found for each in rated], annotations)
    order = np.array([*dict.fromkeys([*(each.image for each in suspects), *range(len(dataset))])])
    checking = settings.checking
    pictures = pictures_of(dataset, order, checking.pictures.report_images, checking.pictures.report_mb, folder)
    table, analysis = evaluate(annotations, found, training.eval_backend), analyse(annotations, found, 0)
    write_report(folder, analysis, table, dataset, str(results), pictures=pictures, suspects=content)
    # Of a folder, convert may read only the sets whose names it knows.
    source = training.data.coco_path if known_set(training.data.train_set) else annotations.path
    words = ["python", "-m", "retinanet.convert", str(source), "--decisions", "decisions.json"]
    words += ["--output_path", f"{training.data.coco_path}_fixed"]
    words += ["--exif", training.data.exif] if training.data.exif != UPRIGHT else []
    say(
        f"Suspects: {folder / SUSPECTS}",
        f"What next: open {folder / REPORT}, decide in its tab Labels and save the decisions, then",
        f"  {shlex.join(words)}",
    )
    return found
