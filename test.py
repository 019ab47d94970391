"""Evaluate a checkpoint on a set and write its result file."""

import argparse
import os
from pathlib import Path

from retinanet.annotations import has_objects, require_same_classes
from retinanet.backbone import DEPTHS
from retinanet.checkpoint import Checkpoint, build_model, load_checkpoint
from retinanet.command_line import (
    HelpFormatter,
    add_detection_flags,
    add_eval_backend_flag,
    add_log_dir_flag,
    add_machine_flags,
    default_workers,
    detect_settings,
    load_set,
    run,
    say,
    whole_number,
)
from retinanet.engine import detect_all
from retinanet.errors import UserError
from retinanet.evaluate import evaluate
from retinanet.log_file import LOG
from retinanet.log_lines import checkpoint_line, settings_line
from retinanet.log_names import name_of_run
from retinanet.precision import choose_precision
from retinanet.results import default_results_path, write_results


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", default="test", help="name of the set")
    parser.add_argument("--checkpoint_path", type=Path, default=Path("output/model_final.pt"))
    parser.add_argument("--results_path", type=Path, help="file to write (default: {set_name}_bbox_results.json)")
    add_log_dir_flag(parser)
    parser.add_argument("--depth", type=int, choices=DEPTHS, help="to check that the checkpoint has it")
    given = parser.add_argument_group("taken from the checkpoint unless given")
    given.add_argument("--min_side", type=whole_number(64), help="shorter side of the images, pixels")
    given.add_argument("--max_side", type=whole_number(64), help="longer side, at most")
    given.add_argument("--batch_size", type=whole_number(1), help="images at a time")
    add_detection_flags(parser)
    add_eval_backend_flag(parser)
    add_machine_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
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
    annotations, dataset = load_set(
        args.coco_path, args.set_name, min_side=min_side, max_side=max_side, max_pixels=args.max_pixels
    )
    require_same_classes(annotations, checkpoint.class_names, checkpoint.category_ids, args.checkpoint_path)
    precision = choose_precision(args.precision, args.device)
    model = build_model(checkpoint, args.checkpoint_path).to(args.device)
    with LOG.kept(args.log_dir):
        begin(args, checkpoint)
        say(f"Num {args.set_name} images: {len(dataset)}")
        rows = detect_all(
            model,
            dataset,
            batch_size=args.batch_size or checkpoint.batch_size,
            workers=default_workers(args.device) if args.workers is None else args.workers,
            device=args.device,
            precision=precision,
            detect_settings=detect_settings(args),
        )
        write_results(rows, results_path)
        say(f"{len(rows)} detections written to {results_path}")
        if has_objects(annotations):
            say(evaluate(annotations, rows, args.eval_backend).text)
        else:
            say(f"{annotations.path} has no objects to compare with, so there is no table")
    return 0


def begin(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Open the log and say what is evaluated, and with which settings it was trained."""
    settings = {**checkpoint.settings, "depth": checkpoint.depth}
    with LOG.opened(name_of_run("valid" if args.set_name.startswith("val") else "test", settings)):
        say(checkpoint_line(checkpoint, args.checkpoint_path))
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(settings))


if __name__ == "__main__":
    run(main)
