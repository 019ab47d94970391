"""Evaluate a checkpoint on a set and write its result file, or compare two result files."""

import argparse
import os
from pathlib import Path

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint
from retinanet.cli.flags import (
    ArgumentParser,
    HelpFormatter,
    add_detection_flags,
    add_eval_backend_flag,
    add_log_dir_flag,
    add_machine_flags,
    detect_settings,
    whole_number,
)
from retinanet.coco.annotations import has_objects, require_same_classes
from retinanet.coco.results import default_results_path, write_results
from retinanet.data.dataset import load_set
from retinanet.data.settings import MAX_SIDE, MIN_SIDE, MOST_MIN_SIDE
from retinanet.detector.settings import DEPTHS
from retinanet.evaluation.analysis import LEAST_DRAWS, NUM_DRAWS, analyse
from retinanet.evaluation.coco_table import evaluate, require_backend
from retinanet.evaluation.compare import compare
from retinanet.evaluation.detect_set import detect_all
from retinanet.reports.analysis_text import analysis_lines, comparison_lines
from retinanet.reports.box_pictures import draw_grid
from retinanet.reports.figures import require_picture_place, save_figure
from retinanet.reports.html_report import REPORT, write_report
from retinanet.reports.panels import comparison_panels
from retinanet.runtime.console import run, say
from retinanet.runtime.device import choose_precision, default_workers
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import require_writable
from retinanet.runtime.log_file import LOG
from retinanet.runtime.log_names import name_of_run
from retinanet.submission.check import load_results
from retinanet.training.log_lines import checkpoint_line, settings_line, views_line

# Flags without a meaning beside --compare.
FOR_DETECTION = (
    *("results_path", "checkpoint_path", "log_dir", "depth", "min_side", "max_side", "batch_size", "workers"),
    *("raw_weights", "flip_test", "test_sides", "threshold", "num_candidates", "nms_iou", "max_detections"),
)


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", help="name of the set (default: test; with --compare val)")
    parser.add_argument("--checkpoint_path", type=Path, default=Path("output/model_final.pt"))
    parser.add_argument("--results_path", type=Path, help="file to write (default: {set_name}_bbox_results.json)")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare these result files; no checkpoint is needed"
    )
    parser.add_argument(
        "--report",
        type=Path,
        help="folder for metrics.json, figures, and report.html to open; with --compare for its picture",
    )
    parser.add_argument(
        "--num_draws",
        type=whole_number(0),
        default=NUM_DRAWS,
        help="draws of the images that intervals are from; 0: none",
    )
    add_log_dir_flag(parser)
    parser.add_argument("--depth", type=int, choices=DEPTHS, help="to check that the checkpoint has it")
    given = parser.add_argument_group("taken from the checkpoint unless given")
    given.add_argument("--min_side", type=whole_number(64, MOST_MIN_SIDE), help="shorter side of the images, pixels")
    given.add_argument("--max_side", type=whole_number(64), help="longer side, at most")
    given.add_argument("--batch_size", type=whole_number(1), help="images at a time")
    parser.add_argument("--raw_weights", action="store_true", help="not the averaged ones of a run with --ema_decay")
    views = parser.add_argument_group("test time augmentation", "what all views find is merged before the suppression")
    views.add_argument("--flip_test", action="store_true", help="look at the mirror image of each image too")
    views.add_argument(
        "--test_sides",
        type=whole_number(64),
        nargs="+",
        metavar="SIDE",
        help="look at each image at these shorter sides, the longer side's limit growing with them "
        "(default: the checkpoint's min_side alone)",
    )
    add_detection_flags(parser)
    add_eval_backend_flag(parser)
    add_machine_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if 0 < args.num_draws < LEAST_DRAWS:
        parser.error(f"--num_draws {args.num_draws} tells nothing. Give {LEAST_DRAWS} or more, or 0 for no intervals")
    if args.compare:
        for name in FOR_DETECTION:
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name} is for detecting; leave it or --compare away")
        return compare_results(args)
    check_views(parser, args)
    if args.report:
        require_writable(args.report / REPORT)
    args.set_name = args.set_name or "test"
    results_path = args.results_path or default_results_path(args.set_name)
    if results_path.is_dir() or not os.access(results_path.parent, os.W_OK):
        parser.error(f"--results_path {results_path}: is a folder, or in one that can't be written to")
    checkpoint = load_checkpoint(args.checkpoint_path)
    if args.depth not in (None, checkpoint.depth):
        raise UserError(
            f"{args.checkpoint_path}: its depth is {checkpoint.depth}, --depth says {args.depth}. Give "
            f"--depth {checkpoint.depth}, leave the flag away, or choose another checkpoint."
        )
    min_side, max_side = args.min_side or checkpoint.min_side, args.max_side or checkpoint.max_side
    if max_side < min_side:
        parser.error(f"the longer side {max_side} is below the shorter side {min_side}: give both sides")
    # The longer side may grow as the shorter does, or a wide image would look the same in all views.
    test_sides = [(side, round(max_side * side / min_side)) for side in args.test_sides or ()]
    annotations, dataset = load_set(
        args.coco_path, args.set_name, min_side=min_side, max_side=max_side, max_pixels=args.max_pixels
    )
    if has_objects(annotations):
        require_backend(args.eval_backend)
    require_same_classes(annotations, checkpoint.class_names, checkpoint.category_ids, args.checkpoint_path)
    precision = choose_precision(args.precision, args.device)
    model = build_model(checkpoint, args.checkpoint_path, averaged=not args.raw_weights).to(args.device)
    with LOG.kept(args.log_dir):
        begin(args, checkpoint)
        say(f"Num {args.set_name} images: {len(dataset)}")
        if args.test_sides or args.flip_test:
            say(views_line(args.test_sides or [min_side], args.flip_test))
        rows = detect_all(
            model,
            dataset,
            batch_size=args.batch_size or checkpoint.batch_size,
            workers=default_workers(args.device) if args.workers is None else args.workers,
            device=args.device,
            precision=precision,
            detection=detect_settings(args),
            test_sides=test_sides or None,
            flip_test=args.flip_test,
        )
        write_results(rows, results_path)
        say(f"{len(rows)} detections written to {results_path}")
        if has_objects(annotations):
            table = evaluate(annotations, rows, args.eval_backend)
            say(*table.text.splitlines())
            analysis = analyse(annotations, rows, args.num_draws)
            say(*analysis_lines(analysis, len(dataset)))
            if args.report:
                write_report(args.report, analysis, table, dataset, source=str(results_path))
                say(f"Report: {args.report / REPORT}")
        else:
            say(
                f"{annotations.path} has no objects to compare with, so there is no table"
                + (" and no report" if args.report else "")
            )
    return 0


def check_views(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    sides = args.test_sides or []
    if sides and args.min_side:
        parser.error("--test_sides and --min_side both say at which side to look; leave one away")
    for side in sides:
        if sides.count(side) > 1:
            parser.error(f"--test_sides: {side} stands twice, which would find everything twice; give it once")


def compare_results(args: argparse.Namespace) -> int:
    """Print what changed from one result file to the other, and draw the images most won and lost."""
    picture = (args.report or Path()) / "compare.png"
    require_picture_place(picture)
    annotations, dataset = load_set(
        args.coco_path, args.set_name or "val", min_side=MIN_SIDE, max_side=MAX_SIDE, max_pixels=args.max_pixels
    )
    if not has_objects(annotations):
        raise UserError(f"{annotations.path}: has no objects, so results can't be compared. Choose another --set_name.")
    a, b = (analyse(annotations, load_results(path, annotations), args.num_draws) for path in args.compare)
    comparison = compare(a, b, annotations)
    say(f"A: {args.compare[0]}", f"B: {args.compare[1]}")
    say(*comparison_lines(comparison, args.num_draws, len(dataset)))
    panels = comparison_panels(comparison, a, b, dataset)
    if not panels:
        say("No image is won or lost, so there is no picture")
        return 0
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(draw_grid(panels, annotations.class_names, columns=4), picture)
    say(f"Picture of the images most won and most lost: {picture}")
    return 0


def begin(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Open the log and say what is evaluated, and with which settings it was trained."""
    settings = {**checkpoint.settings, "depth": checkpoint.depth}
    with LOG.opened(name_of_run("valid" if args.set_name.startswith("val") else "test", settings)):
        say(checkpoint_line(checkpoint, args.checkpoint_path, averaged=not args.raw_weights))
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(settings))


if __name__ == "__main__":
    run(main)
