"""Evaluates a checkpoint or a result file on a set, or compares two result files."""

import os
from pathlib import Path
from typing import Any

import torch

from retinanet.checkpoints.checkpoint import is_white_level, saved_epoch
from retinanet.checkpoints.output_folder import best_and_final_line, read_evaluations
from retinanet.checkpoints.provenance import name_of_device, provenance, time_now
from retinanet.coco.annotations import Annotations, has_objects, placeholder_note, require_same_classes
from retinanet.coco.folder import SETS, find_annotation_file
from retinanet.coco.results import (
    TEST_SETTINGS,
    Found,
    default_results_path,
    load_results,
    read_record,
    rows_of,
    set_aside,
    write_results,
)
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset, load_set, load_set_without_images
from retinanet.data.lookalikes import known_lookalikes
from retinanet.data.transforms import longest_at
from retinanet.evaluation.analysis import Analysis, analyse, ap_without
from retinanet.evaluation.coco_table import AP, require_backend, table_if_objects
from retinanet.evaluation.compare import compare
from retinanet.evaluation.detect_set import detect_with
from retinanet.evaluation.views import Views, views_line
from retinanet.predict.networks import Opened, Trained, opened
from retinanet.reports.analysis_text import analysis_lines, comparison_lines, without_lookalikes_line
from retinanet.reports.box_pictures import comparison_panels, draw_grid, no_pictures_line
from retinanet.reports.compared_settings import setting_differences, setting_lines
from retinanet.reports.embedded_images import pictures_of, telling_order
from retinanet.reports.figures import require_picture_place, save_figure
from retinanet.reports.html_comparison import write_comparison
from retinanet.reports.html_report import REPORT, write_report
from retinanet.reports.metrics import comparison_numbers, evaluation_numbers, write_json
from retinanet.reports.page_data import Run
from retinanet.runtime.console import say, warn
from retinanet.runtime.device import num_workers
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import require_writable, size_on_disk, size_text
from retinanet.runtime.json_files import without_nan
from retinanet.runtime.log_file import LOG, name_of_run
from retinanet.runtime.printable import counted
from retinanet.runtime.streams import STDOUT
from retinanet.settings.evaluate import EvaluateSettings
from retinanet.settings.options import flat, with_values
from retinanet.settings.shared import BEST, EXIF, RAW, UPRIGHT, WHITE_LEVEL, Tiles
from retinanet.settings.train import settings_line


def evaluate(settings: EvaluateSettings) -> int:
    """Runs the requested evaluation. Returns the exit code."""
    with STDOUT.set_up(timed=settings.log_time, quiet=settings.quiet):
        return evaluate_or_compare(settings)


def evaluate_or_compare(settings: EvaluateSettings) -> int:
    require_place_of_json(settings)
    if settings.compare:
        return compare_results(settings, *settings.compare)
    if settings.from_results is not None:
        return report_on_file(settings, settings.from_results)
    return evaluate_detector(settings)


def evaluate_detector(settings: EvaluateSettings) -> int:
    """Evaluates a checkpoint or an exported file."""
    set_name = settings.name_of_set
    results_path = place_of_results(settings)
    machine = settings.machine
    detector = opened(settings.checkpoint_path, machine.device, machine.precision, averaged=not settings.raw_weights)
    trained, device = detector.trained, detector.device
    min_side, max_side = sides_of(settings, trained)
    tiles = trained.tiles(settings.tiling.tile, settings.tiling.overlap)
    annotations, dataset = load_set(
        settings.coco_path,
        set_name,
        min_side=min_side,
        max_side=max_side,
        max_pixels=machine.max_pixels,
        exif=settings.trained.exif or trained.exif,
        white_level=trained.white_level,
    )
    require_objects(settings, annotations)
    if has_objects(annotations):
        require_backend(settings.eval_backend)
    require_same_classes(annotations, trained.class_names, trained.category_ids, settings.checkpoint_path)
    look = detector.look_for(settings.detection, more_looks(settings, tiles))
    with LOG.recording(settings.log_dir):
        begin(settings, detector)
        say(f"Num {set_name} images: {len(dataset)}", *dataset.frame_notes())
        if settings.views.test_sides or settings.views.flip_test:
            say(views_line(settings.views.test_sides or [min_side], settings.views.flip_test))
        if tiles:
            say(f"Tiles: side {tiles.side}, overlap {tiles.overlap:g}, and each image as a whole")
        detections = detect_with(
            look,
            dataset,
            LoaderSettings(
                settings.trained.batch_size or trained.batch_size, num_workers(machine.workers, device), device
            ),
            device=device,
            detection=settings.detection,
            views=Views(
                # The limit on the longer side grows with the shorter side; otherwise wide images would have the same
                # size in all views.
                [(side, longest_at(side, min_side, max_side)) for side in settings.views.test_sides or ()] or None,
                settings.views.flip_test,
                tiles,
            ),
        )
        record = record_of(settings, trained, annotations, device)
        write_found(detections, annotations, results_path, record)
        code = report_on(settings, detections, dataset, results_path, record)
        if hint := better_checkpoint(settings.checkpoint_path, trained.epoch):
            say(hint)
    return code


def more_looks(settings: EvaluateSettings, tiles: Tiles | None) -> list[str]:
    """Returns the given flags that make the network run several times per image, and so need candidates before NMS."""
    flags = {"flip_test": settings.views.flip_test, "test_sides": settings.views.test_sides, "tile": tiles}
    return [name for name, value in flags.items() if value]


def require_objects(settings: EvaluateSettings, annotations: Annotations) -> None:
    """Raises UserError if the settings need an AP, but the set has no objects."""
    flags = {"--min_ap": settings.min_ap is not None, "--json": settings.json is not None}
    needing = [flag for flag, is_given in flags.items() if is_given]
    if needing and not has_objects(annotations):
        raise UserError(
            f"{needing[0]} needs an AP, and {annotations.path} has no objects{placeholder_note(annotations)}. Remove "
            "the flag, or choose another --set_name."
        )


def record_of(
    settings: EvaluateSettings, trained: Trained, annotations: Annotations, device: torch.device
) -> dict[str, Any]:
    """Returns the record of a result file, the counterpart of a run's run.json."""
    min_side, max_side = sides_of(settings, trained)
    side, overlap = trained.tiles(settings.tiling.tile, settings.tiling.overlap) or (None, None)
    used = {
        "set_name": settings.name_of_set,
        "min_side": min_side,
        "max_side": max_side,
        "batch_size": settings.trained.batch_size or trained.batch_size,
        "exif": settings.trained.exif or trained.exif,
        "tile": side,
        "overlap": overlap,
    }
    return {
        "checkpoint": str(settings.checkpoint_path),
        "epoch": trained.epoch,
        "settings": without_nan(dict(trained.settings)),
        TEST_SETTINGS: flat(with_values(settings, used)),
        "data": {settings.name_of_set: {"file": str(annotations.path), "sha256": annotations.fingerprint}},
        "device": name_of_device(device),
        **provenance(),
        "time": time_now(),
    }


def better_checkpoint(path: Path, epoch: int | None) -> str | None:
    """Returns a hint if the run's evaluations rate best.pt higher than the file `path`, saved after `epoch`."""
    aps, best = read_evaluations(path.parent), path.parent / BEST
    if path.name == BEST or epoch is None or epoch not in aps or max(aps.values()) <= aps[epoch]:
        return None
    better = saved_epoch(best)  # not the best epoch if the disk was full at that time
    if better not in aps or aps[better] <= aps[epoch]:
        return None
    return (
        f"Hint: {best} was better on the run's val set: AP {aps[better]:.3f} after epoch {better}, {aps[epoch]:.3f} "
        f"after epoch {epoch}. Use --checkpoint_path {best}"
    )


def write_found(detections: Found, annotations: Annotations, path: Path, record: dict[str, Any]) -> None:
    """Writes the result file and its record; an older file is kept under another name."""
    rows = rows_of(detections, annotations)
    if aside := set_aside(path, rows):
        say(f"{path} already existed: the older file is now {aside} ({size_text(size_on_disk(aside))})")
    write_results(rows, path, record)
    say(f"{counted(len(rows), 'detection')} written to {path}")


def report_on(
    settings: EvaluateSettings,
    detections: Found,
    dataset: CocoDataset,
    source: Path,
    record: dict[str, Any],
) -> int:
    """Prints the COCO table and the analysis of the detections, and writes the report and the numbers if requested.

    Returns the exit code: 1 if AP is below --min_ap, otherwise 0.
    """
    annotations = dataset.annotations
    no_table = "so there is no table" + (" and no report" if settings.report else "")
    table = table_if_objects(annotations, detections, settings.eval_backend, or_else=no_table)
    if table is None:
        return 0
    say(*table.text.splitlines())
    analysis = analyse(annotations, detections, settings.num_draws)
    say(*analysis_lines(analysis, len(dataset)), *lookalike_lines(settings, analysis, dataset, record))
    if settings.report:
        pictures = pictures_of(
            dataset,
            telling_order([analysis], annotations),
            settings.pictures.report_images,
            settings.pictures.report_mb,
            settings.report,
        )
        write_report(settings.report, analysis, table, dataset, str(source), record, pictures)
        if line := no_pictures_line(dataset):
            say(line)
        say(f"Report: {settings.report / REPORT}")
    if settings.json:
        write_json(settings.json, evaluation_numbers(str(source), annotations, analysis, table, record))
        say(f"Numbers: {settings.json}")
    if settings.min_ap is not None and table.numbers[AP] < settings.min_ap:
        warn(f"AP {table.numbers[AP]:.6g} is below --min_ap {settings.min_ap:g}")
        return 1
    return 0


def lookalike_lines(
    settings: EvaluateSettings, analysis: Analysis, dataset: CocoDataset, record: dict[str, Any]
) -> list[str]:
    """Returns a line with the AP after leaving out lookalikes of training images, if check_data found any."""
    train_set = str(record.get("settings", {}).get("train_set", SETS[0]))
    is_alike = known_lookalikes(dataset, settings.coco_path, train_set)
    if is_alike is None or not is_alike.any():
        return []
    ap, ap50 = ap_without(analysis, dataset.annotations, is_alike)
    return [without_lookalikes_line(ap, ap50, int(is_alike.sum()), train_set)]


def report_on_file(settings: EvaluateSettings, path: Path) -> int:
    """Evaluates an existing result file. Image files are needed only for the pictures of the report."""
    if settings.report:
        require_writable(settings.report / REPORT)
    record = read_record(path)[0]
    dataset = load_set_without_images(
        settings.coco_path,
        settings.name_of_set,
        settings.machine.max_pixels,
        exif=exif_of_pictures(settings, record),
        white_level=white_level_of_pictures(record),
        for_pictures=settings.report is not None,
    )
    require_objects(settings, dataset.annotations)
    detections = load_results(path, dataset.annotations)
    say(f"Evaluating {path} as it is, against {dataset.annotations.path}")
    return report_on(settings, detections, dataset, path, record)


def exif_of_pictures(settings: EvaluateSettings, record: dict[str, Any]) -> str:
    """Returns the --exif value for a report's pictures: as given, or else as recorded with the result file."""
    if settings.trained.exif or not record:
        return settings.trained.exif or UPRIGHT
    used = record[TEST_SETTINGS].get("exif")
    return used if used in EXIF else RAW


def white_level_of_pictures(record: dict[str, Any]) -> int:
    """Returns the white level for a report's pictures: as recorded with the result file, or else the default."""
    level = record.get("settings", {}).get("white_level")
    return level if is_white_level(level) else WHITE_LEVEL


def require_place_of_json(settings: EvaluateSettings) -> None:
    """Raises UserError if the --json file can't be written, or is a result file, the checkpoint or the annotations."""
    if not settings.json:
        return
    results = settings.results_path or default_results_path(settings.name_of_set)
    taken = (settings.from_results or results, *(settings.compare or ()), settings.checkpoint_path)
    if settings.json.resolve() in [path.resolve() for path in taken]:
        raise UserError(f"--json {settings.json}: is a result file or the checkpoint. Choose another file.")
    require_not_annotations("--json", settings.json, settings)
    require_writable(settings.json)


def require_not_annotations(flag: str, path: Path, settings: EvaluateSettings) -> None:
    """Raises UserError if the file to write is the annotation file of the set."""
    if path.resolve() == find_annotation_file(settings.coco_path, settings.name_of_set).resolve():
        raise UserError(f"{flag} {path}: is the annotation file of the set. Choose another file.")


def place_of_results(settings: EvaluateSettings) -> Path:
    """Returns the path of the result file. Raises UserError if the result file or the report can't be written."""
    path = settings.results_path or default_results_path(settings.name_of_set)
    if settings.report:
        require_writable(settings.report / REPORT)
    if not path.parent.is_dir():
        raise UserError(f"--results_path {path}: there is no folder {path.parent}. Create it, or choose another file.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--results_path {path}: is a folder, or its folder can't be written to. Choose another file.")
    if path.exists() and not os.access(path, os.R_OK):  # an earlier file is read before it is moved away
        raise UserError(f"--results_path {path}: exists, and can't be read. Correct its permissions, or remove it.")
    require_not_annotations("--results_path", path, settings)
    return path


def sides_of(settings: EvaluateSettings, trained: Trained) -> tuple[int, int]:
    """Returns the shorter side of the images and the limit on the longer side.

    Raises UserError if flags and checkpoint contradict each other.
    """
    depth = trained.depth
    if settings.depth not in (None, depth):
        raise UserError(
            f"{settings.checkpoint_path}: its depth is {depth}, but --depth says {settings.depth}. Use "
            f"--depth {depth}, remove the flag, or choose another checkpoint."
        )
    min_side, max_side = (
        settings.trained.min_side or trained.min_side,
        settings.trained.max_side or trained.max_side,
    )
    if max_side < min_side:
        raise UserError(f"--min_side {min_side} is larger than --max_side {max_side}. Set both sides.")
    return min_side, max_side


def begin(settings: EvaluateSettings, detector: Opened) -> None:
    """Opens the log, and logs the checkpoint to be evaluated and the settings of its run."""
    trained = {**detector.trained.settings, "depth": detector.trained.depth}
    with LOG.opened(name_of_run("valid" if settings.name_of_set.startswith("val") else "test", trained)):
        say(detector.line)
    if line := best_and_final_line(settings.checkpoint_path):
        say(line)
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(trained), on_terminal=())


def compare_results(settings: EvaluateSettings, path_a: Path, path_b: Path) -> int:
    """Prints what changed from one result file to the other, and draws the images that changed most.

    With --report, also writes the report. With --json, the picture is drawn only if --report is given.
    """
    if settings.report:
        require_writable(settings.report / REPORT)
    picture = (settings.report or Path()) / "compare.png"
    (record_a, why_a), (record_b, why_b) = read_record(path_a), read_record(path_b)
    dataset = load_set_without_images(
        settings.coco_path,
        settings.name_of_set,
        settings.machine.max_pixels,
        exif=exif_of_pictures(settings, record_a),
        white_level=white_level_of_pictures(record_a),
        for_pictures=settings.report is not None or settings.json is None,
    )
    annotations = dataset.annotations
    is_drawn = bool((settings.report or not settings.json) and dataset.images_there().any())
    if is_drawn:
        require_picture_place(picture)
    if not has_objects(annotations):
        why = placeholder_note(annotations)
        raise UserError(
            f"{annotations.path}: has no objects, so results can't be compared{why}. Choose another --set_name."
        )
    a, b = (analyse(annotations, load_results(path, annotations), settings.num_draws) for path in (path_a, path_b))
    comparison, num_draws = compare(a, b, annotations), a.drawn.shape[2]
    differing = setting_differences(record_a, record_b) if record_a and record_b else None
    lines = [
        *(f"A: {path_a}", f"B: {path_b}"),
        *setting_lines(differing, list(filter(None, (why_a, why_b)))),
        *comparison_lines(comparison, num_draws, len(dataset)),
    ]
    say(*lines)
    if settings.json:
        sources, records = (str(path_a), str(path_b)), (record_a, record_b)
        numbers = comparison_numbers(sources, annotations, comparison, records, num_draws, differing)
        write_json(settings.json, numbers)
        say(f"Numbers: {settings.json}")
    if (settings.report or not settings.json) and (line := no_pictures_line(dataset)):
        say(line)
    panels = comparison_panels(comparison, a, b, dataset) if is_drawn else []
    if panels:
        picture.parent.mkdir(parents=True, exist_ok=True)
        save_figure(draw_grid(panels, annotations.class_names, columns=4), picture)
        say(f"Picture of the images that gained and lost most: {picture}")
    elif is_drawn:
        say("A and B do equally well on every image, so there is no picture")
    if settings.report:
        runs = (
            Run("A", str(path_a), record_a.get("checkpoint"), a),
            Run("B", str(path_b), record_b.get("checkpoint"), b),
        )
        pictures = pictures_of(
            dataset,
            telling_order([a, b], annotations),
            settings.pictures.report_images,
            settings.pictures.report_mb,
            settings.report,
        )
        compared = picture.read_bytes() if panels else None
        write_comparison(settings.report / REPORT, runs, comparison, annotations, lines, pictures, compared)
        say(f"Report: {settings.report / REPORT}")
    return 0
