"""Draws the objects and detections in images or, with --logs, the loss and AP curves of runs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, has_objects
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.coco.results import Found, default_results_path, load_results, recorded_set
from retinanet.coco.score_thresholds import USUAL_THRESHOLD, above, threshold_text
from retinanet.data.headers import frame_notes, read_headers, upright_annotations
from retinanet.data.images import read_image
from retinanet.evaluation.analysis import working_point
from retinanet.reports.box_pictures import PANEL_PIXELS, Panel, draw_grid
from retinanet.reports.curves import curves_of, draw_curves
from retinanet.reports.figures import require_picture_place, save_figure, show_windows
from retinanet.reports.log_reader import read_logs
from retinanet.reports.log_table import hyper_parameter_table
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.draw import DrawSettings
from retinanet.settings.shared import UPRIGHT

SETS = ("val", "test", "train")  # the order in which --vis_pred looks for result files
MOST_PIXELS = 2000  # the maximum length of an image's longer side, if each image has its own picture


def draw(settings: DrawSettings) -> int:
    """Draws the requested picture. Returns the exit code."""
    if not settings.output_path:
        require_picture_place(settings.picture)
    if settings.runs.logs:
        draw_logs(settings.runs.logs, settings.runs.loss_scale != "linear", settings.picture, settings.show)
    elif settings.training.augmented:
        draw_augmented(settings)
    else:
        draw_images(settings)
    if settings.show:
        show_windows()
    return 0


def draw_logs(paths: Sequence[Path], log_scale: bool, picture_path: Path, show: bool) -> None:
    """Prints a table of the runs in the logs at `paths`, and draws the curves of these runs."""
    logs, without_run = read_logs(paths)
    if without_run:
        say(f"Left out, as they contain neither losses nor a table: {', '.join(map(str, without_run))}", "")
    say(*hyper_parameter_table(logs), "")
    if curves := curves_of(logs):
        save_figure(draw_curves(curves, log_scale, window=show), picture_path)
        say(f"Picture of {len(curves)} of {counted(len(logs), 'log')}: {picture_path}")
    else:
        say("No log has losses by epoch or iteration, so there is no picture")


def draw_images(settings: DrawSettings) -> None:
    set_name, pred_file = set_and_results(settings)
    annotations = load_annotations(find_annotation_file(settings.coco_path, set_name))
    folder = find_image_folder(settings.coco_path, set_name)
    if settings.output_path and settings.output_path.resolve() == folder.resolve():
        raise UserError(f"--output_path {settings.output_path}: is the image folder of the set. Choose another folder.")
    chosen = chosen_images(annotations, settings)
    headers = read_headers(annotations, folder, chosen)
    if settings.exif == UPRIGHT:
        annotations = upright_annotations(annotations, headers)
    for note in frame_notes(annotations, headers, settings.exif):
        say(f"Note: {note}")
    detections = None if pred_file is None else load_results(pred_file, annotations)
    if pred_file:
        say(f"Detections of the set {set_name}: {pred_file}")
    threshold = settings.threshold
    if detections is not None and threshold is None:
        threshold = best_threshold(detections, annotations)

    def panels_of(index: int) -> list[Panel]:
        height, width = annotations.sizes[index].tolist()
        pixels = read_image(
            folder / annotations.file_name(index),
            (height, width),
            settings.max_pixels,
            exif=settings.exif,
            white_level=settings.white_level,
            header=headers.at(index),
        )
        objects = object_panel(annotations, index, pixels)
        if detections is None or threshold is None:
            return [objects]
        return [objects, detection_panel(index, pixels, detections, threshold)]

    if settings.output_path:
        draw_files(settings, annotations, {index: partial(panels_of, index) for index in chosen})
        return
    panels = [panel for index in chosen for panel in panels_of(index)]
    save_grid(settings, panels, annotations.class_names, settings.picture)
    ids = ", ".join(str(annotations.image_ids[index]) for index in chosen)
    say(f"Picture of image{'s' if len(chosen) > 1 else ''} {ids}: {settings.picture}")


def draw_files(settings: DrawSettings, annotations: Annotations, panels: dict[int, Callable[[], list[Panel]]]) -> None:
    """Writes a picture per image, named after the image's file, with objects and detections side by side.

    If two pictures would have the same name, ignoring case, a number is appended to the second.
    """
    assert settings.output_path
    settings.output_path.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for index, panels_of in panels.items():
        side_by_side = panels_of()  # one image at a time: all of them may not fit in memory
        size = min(MOST_PIXELS, max(PANEL_PIXELS, *side_by_side[0].image.shape[:2]))
        stem = Path(annotations.file_name(index)).with_suffix("").as_posix().replace("/", "_")
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        save_grid(settings, side_by_side, annotations.class_names, settings.output_path / f"{name}.png", size)
    say(f"{counted(len(panels), 'picture')} in {settings.output_path}")


def save_grid(
    settings: DrawSettings, panels: list[Panel], class_names: list[str], path: Path, size: int = PANEL_PIXELS
) -> None:
    figure = draw_grid(
        panels,
        class_names,
        settings.columns,
        size=settings.size or size,
        with_names=not settings.hide_names,
        window=settings.show,
    )
    save_figure(figure, path)


def set_and_results(settings: DrawSettings) -> tuple[str, Path | None]:
    """Returns the set to draw, and the result file with its detections (None if detections are not drawn).

    Without --set_name, the set is taken from the record or the name of --pred_file. If --pred_file isn't given either,
    it is the first of SETS for which test.py has written a result file.
    """
    file = settings.pred_file
    if file is None and not settings.vis_pred:
        return settings.name_of_set, None
    if settings.set_name:
        return settings.set_name, file or default_results_path(settings.set_name)
    if file:
        named = [name for name in SETS if file.name == default_results_path(name).name]
        return recorded_set([file]) or (*named, settings.name_of_set)[0], file
    for name in SETS:
        if default_results_path(name).exists():
            return name, default_results_path(name)
    raise UserError(
        f"--vis_pred: there is no {default_results_path(SETS[0])} here. Write it with python test.py --set_name "
        f"{SETS[0]}, or name a result file with --pred_file."
    )


def draw_augmented(settings: DrawSettings) -> None:
    """Draws a row per image: the original, and the image as augmented in the first epochs of a one-process run."""
    # Imported here, because the other pictures don't need PyTorch.
    from retinanet.data.dataloader import LoaderSettings, TrainingBatches, training_loader
    from retinanet.data.dataset import load_set
    from retinanet.reports.augmented_panels import augmented_panel, places_of_epochs

    training = settings.training
    annotations, dataset = load_set(
        settings.coco_path,
        settings.name_of_set,
        min_side=training.min_side,
        max_side=training.max_side,
        max_pixels=settings.max_pixels,
        exif=settings.exif,
        white_level=settings.white_level,
        require_images=False,
        keep_crowds=training.ignore_crowds,
        min_visible=training.tiling.least_visible,
    )
    chosen = chosen_images(annotations, settings)
    loader, sampler = training_loader(
        dataset,
        LoaderSettings(training.batch_size),
        seed=settings.order_seed,
        augmentation=training.augmentation,
        tiles=training.tiling.tiles,
    )
    assert isinstance(loader.dataset, TrainingBatches)
    epochs = places_of_epochs(sampler, chosen)
    panels = []
    for index in chosen:
        panels.append(object_panel(annotations, index, dataset.original(index)))
        panels += [augmented_panel(loader.dataset, places[index]) for places in epochs]
    save_grid(settings, panels, annotations.class_names, settings.picture)
    say(f"Picture of {counted(len(chosen), 'image')}, and of each in epochs 0 to {len(epochs) - 1}: {settings.picture}")


def chosen_images(annotations: Annotations, settings: DrawSettings) -> list[int]:
    """Returns the indices of the images to draw."""
    image_id = settings.image_id
    if image_id is None:
        order = np.random.default_rng(settings.order_seed).permutation(len(annotations.image_ids))
        return order[: settings.num_images].tolist()
    rows = np.flatnonzero(annotations.image_ids == image_id)
    if not len(rows):
        raise UserError(
            f"{annotations.path}: has no image {image_id}. Use an id such as "
            f"{', '.join(map(str, annotations.image_ids[:5].tolist()))}."
        )
    return rows.tolist()


def object_panel(annotations: Annotations, index: int, pixels: np.ndarray) -> Panel:
    rows = slice(annotations.first[index], annotations.first[index + 1])
    title = f"{annotations.file_name(index)} (id {annotations.image_ids[index]})"
    return Panel(title, pixels, annotations.boxes[rows], annotations.labels[rows], None)


def detection_panel(index: int, pixels: np.ndarray, detections: Found, threshold: float) -> Panel:
    """Returns a panel of an image with its detections above the threshold."""
    shown = detections.at((detections.images == index) & above(detections.scores, threshold))
    title = f"Detections: {len(shown.scores)} above score {threshold_text(threshold)}"
    return Panel(title, pixels, shown.boxes, shown.labels, shown.scores)


def best_threshold(detections: Found, annotations: Annotations) -> float:
    """Returns the best-F1 threshold, as in test.py; USUAL_THRESHOLD if there are no objects or true positives."""
    best = working_point(annotations, detections).threshold if has_objects(annotations) else math.nan
    return USUAL_THRESHOLD if math.isnan(best) else best
