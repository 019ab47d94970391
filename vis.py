"""Draw the objects of images, and what a model found in them; or with --logs the curves of runs."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.cli.augment_flags import NAMES, add_augment_flags, augment_settings, check_augment_flags
from retinanet.cli.flags import ArgumentParser, HelpFormatter, number_from, whole_number
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.coco.results import default_results_path
from retinanet.data.dataloader import TrainingBatches, training_loader
from retinanet.data.dataset import load_set
from retinanet.data.images import read_image
from retinanet.data.settings import MAX_PIXELS
from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.curves import curves_of, draw_curves
from retinanet.reports.figures import require_picture_place, save_figure, show_windows
from retinanet.reports.log_reader import read_log
from retinanet.reports.log_table import hyper_parameter_table
from retinanet.reports.panels import augmented_panel, draws_of_epochs
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import UserError
from retinanet.submission.check import load_results
from retinanet.training.settings import SEED

# Flags without a meaning beside --logs.
FOR_IMAGES = (
    *("coco_path", "set_name", "image_id", "num_images", "seed"),
    *("vis_pred", "pred_file", "threshold", "max_pixels", "augmented"),
)
FOR_DETECTIONS = ("vis_pred", "pred_file", "threshold")


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", help="name of the set (default: val, with --augmented train)")
    parser.add_argument("--image_id", type=int, help="the image to draw; without it, --seed chooses")
    parser.add_argument("--num_images", type=whole_number(1), default=1, help="how many images, in a grid")
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        help=f"which images are drawn, and with --augmented how they change (default: 0, with --augmented {SEED})",
    )
    parser.add_argument("--vis_pred", action="store_true", help="draw the detections of {set_name}_bbox_results.json")
    parser.add_argument("--pred_file", type=Path, help="draw the detections of this result file")
    parser.add_argument("--threshold", type=number_from(0, 1), default=0.5, help="lowest score drawn")
    parser.add_argument("--picture_path", type=Path, help="file to write (default: vis.png, with --logs curves.png)")
    parser.add_argument("--show", action="store_true", help="open a window too")
    parser.add_argument("--max_pixels", type=whole_number(1), default=MAX_PIXELS, help="refuse larger images")
    training = parser.add_argument_group("training", "with train.py's flags and --seed, the images that it trains on")
    training.add_argument(
        "--augmented", action="store_true", help="draw each image as it is, and as train.py changes it in 3 epochs"
    )
    add_augment_flags(training)
    training.add_argument("--ignore_crowds", action="store_true", help="crowd regions, dashed, change with the image")
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--logs", type=Path, nargs="+", help="draw the losses and AP of these logs, and print a table of the runs"
    )
    runs.add_argument("--loss_scale", choices=("log", "linear"), help="of the losses' axis (default: log)")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_flags(parser, args)
    if args.logs:
        compare(args.logs, args.loss_scale != "linear", args.picture_path, args.show)
    elif args.augmented:
        draw_augmented(args)
    else:
        draw_images(args)
    if args.show:
        show_windows()
    return 0


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where flags contradict each other; fill in the picture's default path."""
    if args.image_id is not None and args.num_images > 1:
        parser.error("--image_id draws one image; leave --num_images away")
    if args.loss_scale and not args.logs:
        parser.error("--loss_scale is for the curves of --logs")
    for name in FOR_IMAGES if args.logs else ():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} is for pictures of images; leave it or --logs away")
    for name in FOR_DETECTIONS if args.augmented else (*NAMES, "ignore_crowds"):
        if getattr(args, name) != parser.get_default(name):
            parser.error(
                f"--{name} is for pictures of detections; leave it or --augmented away"
                if args.augmented
                else f"--{name} is for --augmented"
            )
    check_augment_flags(parser, args)
    if args.set_name is None:
        args.set_name = "train" if args.augmented else "val"
    if args.seed is None:
        args.seed = SEED if args.augmented else 0
    args.picture_path = args.picture_path or Path("curves.png" if args.logs else "vis.png")
    require_picture_place(args.picture_path)


def compare(paths: list[Path], log_scale: bool, picture_path: Path, show: bool) -> None:
    """Print the table of the runs of these logs, and draw their curves."""
    logs = [read_log(path) for path in paths]
    say(*hyper_parameter_table(logs), "")
    if curves := curves_of(logs):
        save_figure(draw_curves(curves, log_scale, window=show), picture_path)
        say(f"Picture of {len(curves)} of {len(logs)} logs: {picture_path}")
    else:
        say("No log has losses by epoch or iteration, so there is no picture")


def draw_images(args: argparse.Namespace) -> None:
    annotations = load_annotations(find_annotation_file(args.coco_path, args.set_name))
    folder = find_image_folder(args.coco_path, args.set_name)
    pred_file = args.pred_file or (default_results_path(args.set_name) if args.vis_pred else None)
    detections = None if pred_file is None else load_detections(pred_file, annotations, args.threshold)

    chosen = choose(annotations, args.image_id, args.num_images, args.seed)
    ids = [str(annotations.image_ids[index]) for index in chosen]
    panels = []
    for index in chosen:
        image = read_image(folder / annotations.file_names[index], tuple(annotations.sizes[index]), args.max_pixels)
        pixels = image.permute(1, 2, 0).numpy()
        panels.append(object_panel(annotations, index, pixels))
        if detections is not None:
            panels.append(detection_panel(annotations, index, pixels, detections))
    figure = draw_grid(panels, annotations.class_names, columns=4, window=args.show)
    save_figure(figure, args.picture_path)
    say(f"Picture of image{'s' if len(chosen) > 1 else ''} {', '.join(ids)}: {args.picture_path}")


def draw_augmented(args: argparse.Namespace) -> None:
    """A row for each image: as it is, and in the first epochs of a training by one process."""
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": args.max_pixels}
    annotations, dataset = load_set(
        args.coco_path, args.set_name, **sides, require_images=False, keep_crowds=args.ignore_crowds
    )
    chosen = choose(annotations, args.image_id, args.num_images, args.seed)
    how = {"batch_size": args.batch_size, "seed": args.seed, "settings": augment_settings(args)}
    loader, sampler = training_loader(dataset, **how, workers=0, pin_memory=False)
    assert isinstance(loader.dataset, TrainingBatches)
    epochs = draws_of_epochs(sampler, chosen)
    panels = []
    for index in chosen:
        panels.append(object_panel(annotations, index, dataset.original(index).permute(1, 2, 0).numpy()))
        panels += [augmented_panel(loader.dataset, draws[index], index) for draws in epochs]
    save_figure(draw_grid(panels, annotations.class_names, columns=4, window=args.show), args.picture_path)
    say(f"Picture of {len(chosen)} images, and of each in epochs 0 to {len(epochs) - 1}: {args.picture_path}")


def choose(annotations: Annotations, image_id: int | None, num_images: int, seed: int) -> list[int]:
    """The indices of the images to draw."""
    if image_id is None:
        order = np.random.default_rng(seed).permutation(len(annotations.image_ids))
        return order[:num_images].tolist()
    found = np.flatnonzero(annotations.image_ids == image_id)
    if not len(found):
        raise UserError(
            f"{annotations.path}: has no image {image_id}. Its ids begin with "
            f"{', '.join(map(str, annotations.image_ids[:5].tolist()))}."
        )
    return found.tolist()


def object_panel(annotations: Annotations, index: int, pixels: np.ndarray) -> Panel:
    rows = slice(annotations.first[index], annotations.first[index + 1])
    title = f"{annotations.file_names[index]} (id {annotations.image_ids[index]})"
    return Panel(title, pixels, annotations.boxes[rows], annotations.labels[rows], None)


def detection_panel(
    annotations: Annotations, index: int, pixels: np.ndarray, detections: list[dict[str, Any]]
) -> Panel:
    found = [row for row in detections if row["image_id"] == annotations.image_ids[index]]
    return Panel(
        title=f"Detections: {len(found)}",
        image=pixels,
        boxes=np.array([row["bbox"] for row in found]).reshape(-1, 4),
        labels=np.array([annotations.category_ids.index(row["category_id"]) for row in found], dtype=int),
        scores=np.array([row["score"] for row in found]),
    )


def load_detections(path: Path, annotations: Annotations, threshold: float) -> list[dict[str, Any]]:
    return [row for row in load_results(path, annotations) if row["score"] >= threshold]


if __name__ == "__main__":
    run(main)
