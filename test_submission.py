"""Check a result file before it is handed in. Exit code 0: good, 1: findings, 2: can't be read."""

import argparse
from pathlib import Path

from retinanet.annotations import find_annotation_file, has_objects, load_annotations, read_json
from retinanet.command_line import HelpFormatter, run, say
from retinanet.evaluate import evaluate
from retinanet.results import check_results, images_without_detection


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", default="test", help="the set that the results are of")
    parser.add_argument("--results_path", type=Path, help="the file (default: {set_name}_bbox_results.json)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    results_path = args.results_path or Path(f"{args.set_name}_bbox_results.json")
    annotations = load_annotations(find_annotation_file(args.coco_path, args.set_name))
    rows = read_json(results_path)
    findings = check_results(rows, annotations)
    if findings:
        say(f"{results_path}: {len(findings)} findings")
        for finding in findings:
            say(f"- {finding.problem}: {finding.num_rows}")
            for example in finding.examples:
                say(f"    {example}")
            say(f"    Fix: {finding.fix}")
        return 1
    say(f"{results_path}: good, {len(rows)} detections for {len(annotations.image_ids)} images of {annotations.path}")
    empty = images_without_detection(rows, annotations)
    if empty:
        say(f"Images without a detection, which is no mistake: {len(empty)} ({', '.join(map(str, empty[:5]))} ...)")
    if has_objects(annotations):
        say(evaluate(annotations, rows).text)
    return 0


if __name__ == "__main__":
    run(main)
