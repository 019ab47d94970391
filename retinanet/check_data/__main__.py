"""Check a data set before you pay for training. Exit code 0: good, 1: mistakes, 2: can't be read."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from retinanet.check_data import charts
from retinanet.check_data.annotation_checks import CheckedSet, check_set
from retinanet.check_data.counts import count, histograms, reach, try_alternatives
from retinanet.check_data.findings import Finding, Findings
from retinanet.check_data.image_checks import Content, note_contents, note_repeated, read_contents
from retinanet.check_data.text import alternative_lines, class_lines, finding_lines, histogram_lines, reach_lines
from retinanet.cli.flags import ArgumentParser, HelpFormatter, whole_number
from retinanet.coco.annotations import require_same_classes
from retinanet.coco.folder import find_annotation_file, find_image_folder
from retinanet.data.anchor_coverage import Setup
from retinanet.data.settings import MAX_PIXELS, MAX_SIDE, MIN_SIDE, MOST_MIN_SIDE
from retinanet.reports.figures import require_picture_place
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.printable import printable

SETS = ("train", "val", "test")


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="python -m retinanet.check_data", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="the sets to check, the training set first (default: those of train, val and test that exist)",
    )
    parser.add_argument(
        "--min_side",
        type=whole_number(64, MOST_MIN_SIDE),
        default=MIN_SIDE,
        help="as for train.py",
    )
    parser.add_argument("--max_side", type=whole_number(64), default=MAX_SIDE, help="as for train.py")
    parser.add_argument("--max_pixels", type=whole_number(1), default=MAX_PIXELS, help="as for train.py")
    parser.add_argument(
        "--threads", type=whole_number(1), default=min(16, os.cpu_count() or 1), help="threads that decode images"
    )
    parser.add_argument("--picture_path", type=Path, default=Path("check_data.png"), help="file to draw the charts in")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is below --min_side {args.min_side}")
    if args.sets and len(set(args.sets)) < len(args.sets):
        parser.error(f"--sets {' '.join(args.sets)} names a set twice")
    require_picture_place(args.picture_path)
    findings = Findings()
    sets = check_annotation_files(args, findings)
    check_image_files(sets, args.threads, findings)
    report(sets, args)
    notes, mistakes = findings.of(is_mistake=False), findings.of(is_mistake=True)
    for title, found in (("Worth knowing", notes), ("Mistakes", mistakes)):
        say("", f"{title}:" if found else f"{title}: none", *finding_lines(found))
    say("", f"{args.coco_path}: {verdict(mistakes)}; charts in {args.picture_path}")
    return 1 if mistakes else 0


def verdict(mistakes: Sequence[Finding]) -> str:
    if not mistakes:
        return "no mistakes"
    total, kinds = sum(finding.num_found for finding in mistakes), len({finding.kind for finding in mistakes})
    return f"{total} mistake{'s' if total > 1 else ''} of {kinds} kind{'s' if kinds > 1 else ''}"


def check_annotation_files(args: argparse.Namespace, findings: Findings) -> list[CheckedSet]:
    """The sets, checked by their annotation files: all of them before any image, which takes longer."""
    sets: list[CheckedSet] = []
    for name in args.sets or sets_there(args.coco_path):
        checked = check_set(
            name,
            find_annotation_file(args.coco_path, name),
            find_image_folder(args.coco_path, name),
            min_side=args.min_side,
            max_side=args.max_side,
            max_pixels=args.max_pixels,
            is_trained_on=not sets,
            findings=findings,
        )
        sets.append(checked)
        first = sets[0].annotations
        try:
            require_same_classes(checked.annotations, first.class_names, first.category_ids, first.path)
        except DataFault as error:
            findings.add(name, error.kind, [str(error)])
    return sets


def sets_there(coco_path: Path) -> list[str]:
    """Those of SETS that have an annotation file; UserError if none has."""
    found, missing = [], {}
    for name in SETS:
        try:
            find_annotation_file(coco_path, name)
            found.append(name)
        except UserError as error:
            missing[name] = error
    if not found:
        raise missing[SETS[0]]
    for name in missing:
        say(f"No set {name} in {coco_path}: not checked")
    return found


def check_image_files(sets: list[CheckedSet], threads: int, findings: Findings) -> None:
    contents: list[list[Content]] = []
    for checked in sets:
        every = read_contents(checked.dataset, threads)
        bar = tqdm(every, f"Images of {checked.name}", total=len(checked.dataset), leave=False, disable=None)
        contents.append(list(bar))
        note_contents(checked, contents[-1], findings)
    note_repeated(list(zip(sets, contents, strict=True)), findings)


def report(sets: list[CheckedSet], args: argparse.Namespace) -> None:
    """Print and draw the content of the sets, and how well anchors cover the first of them."""
    counts = [count(checked.name, checked.dataset) for checked in sets]
    first, dataset = counts[0], sets[0].dataset
    setup = Setup(args.min_side, args.max_side)
    classes: dict[int, str] = {}
    for checked in reversed(sets):  # if they differ, the first set's names win
        names = map(printable, checked.annotations.class_names)
        classes |= zip(checked.annotations.category_ids, names, strict=True)
    classes = dict(sorted(classes.items()))
    groups = reach(first, dataset, setup)
    title = f"Best anchor of each object of {first.name}, --min_side {args.min_side} --max_side {args.max_side}"
    blocks = [class_lines(counts, classes), *map(histogram_lines, histograms(counts)), reach_lines(groups, title)]
    if len(first.objects.labels):
        blocks.append(alternative_lines(groups[""][0], try_alternatives(first, dataset, setup)))
    say(*(line for number, block in enumerate(blocks) for line in ([""] if number else []) + block))
    charts.draw(counts, classes, groups, args.picture_path)


if __name__ == "__main__":
    run(main)
