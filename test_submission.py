"""Check a result file before it is handed in. Exit code 0: good, 1: findings, 2: can't be read."""

import argparse
from pathlib import Path

from retinanet.annotation_cache import load_annotations
from retinanet.annotations import has_objects, read_json
from retinanet.command_line import HelpFormatter, add_eval_backend_flag, run, say
from retinanet.evaluate import evaluate
from retinanet.layout import find_annotation_file
from retinanet.results import FEW, check_results, default_results_path, images_without_detection


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", default="test", help="the set that the results are of")
    parser.add_argument("--results_path", type=Path, help="the file (default: {set_name}_bbox_results.json)")
    add_eval_backend_flag(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    results_path = args.results_path or default_results_path(args.set_name)
    annotations = load_annotations(find_annotation_file(args.coco_path, args.set_name))
    rows = read_json(results_path)
    findings = check_results(rows, annotations)
    for finding in findings:
        say(f"- {finding.problem}: {finding.num_rows}")
        for example in finding.examples:
            say(f"    {example}")
        say(f"    Fix: {finding.fix}")
    verdict = f"{len(findings)} findings" if findings else "good"
    if any(finding.unusable for finding in findings):
        say(f"{results_path}: {verdict}")
        return 1
    say(f"{results_path}: {verdict}; {len(rows)} detections for {len(annotations.image_ids)} images")
    empty = images_without_detection(rows, annotations)
    ids = ", ".join(map(str, empty[:FEW])) + (" ..." if len(empty) > FEW else "")
    say(f"Images without a detection, which is no mistake: {len(empty)}" + (f" ({ids})" if empty else ""))
    if has_objects(annotations):
        say(evaluate(annotations, rows, args.eval_backend).text)
    else:
        say(f"{annotations.path} has no objects to compare with, so there is no table")
    return 1 if findings else 0


if __name__ == "__main__":
    run(main)
