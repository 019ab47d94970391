"""Check a result file before it is handed in; correct and pack it. Exit code 0: good, 1: findings, 2: can't be read."""

import argparse
import gc
from pathlib import Path
from typing import Any

from retinanet.cli.flags import ArgumentParser, HelpFormatter, add_eval_backend_flag
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, has_objects
from retinanet.coco.folder import find_annotation_file
from retinanet.coco.results import default_results_path, read_results, results_text, write_results
from retinanet.coco.results_zip import write_zip
from retinanet.evaluation.coco_table import AP, evaluate, require_backend
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import UserError
from retinanet.submission.check import NUM_EXAMPLES, ResultFinding, check_results, images_without_detection
from retinanet.submission.fix import fix_results
from retinanet.submission.server_names import name_findings


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    parser.add_argument("--set_name", default="test", help="the set that the results are of")
    parser.add_argument(
        "--results_path", type=Path, help="the file, or a .zip with it (default: {set_name}_bbox_results.json)"
    )
    parser.add_argument(
        "--fix", type=Path, metavar="OUT.json", help="write it here, corrected where that is safe, and check that"
    )
    parser.add_argument("--zip", type=Path, metavar="NAME.zip", help="pack it to be handed in, if it is good")
    add_eval_backend_flag(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    results_path = args.results_path or default_results_path(args.set_name)
    annotation_file = find_annotation_file(args.coco_path, args.set_name)
    for flag, path, ending in (("--fix", args.fix, ".json"), ("--zip", args.zip, ".zip")):
        if path is not None:
            require_place(flag, path, ending, inputs=[results_path, annotation_file])
    annotations = load_annotations(annotation_file)
    if has_objects(annotations):
        require_backend(args.eval_backend)
    rows, member = read_results(results_path)
    fixable = args.fix is not None and isinstance(rows, list)
    if fixable:
        rows = fix(rows, annotations, args.eval_backend)
        write_results(rows, args.fix)
    findings = check_results(rows, annotations)
    handed_in = args.zip or args.fix
    findings += name_findings(handed_in or results_path, None if handed_in else member, args.set_name)
    if args.fix is not None and findings:
        say("What only you can mend:" if fixable else f"{args.fix}: not written, since this can't be corrected:")
    tell_findings(findings)
    tell_verdict(args.fix if fixable else results_path, rows, findings, annotations)
    packed = args.zip is None or pack(rows, findings, args.zip)
    if not any(finding.unusable for finding in findings):
        if has_objects(annotations):
            say(*evaluate(annotations, rows, args.eval_backend).text.splitlines())
        else:
            say(f"{annotations.path} has no objects to compare with, so there is no table")
    return 0 if packed and not findings else 1


def require_place(flag: str, path: Path, ending: str, inputs: list[Path]) -> None:
    """UserError where `path` can't be written, or writing it would replace one of the `inputs`."""
    if path.suffix.lower() != ending:
        raise UserError(f"{flag} {path}: give it a name that ends in {ending}.")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{flag} {path}: is a folder, or in none that there is. Name a file in a folder that there is.")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{flag} {path}: would replace {source}, which is read. Name another file.")


def fix(rows: list[Any], annotations: Annotations, eval_backend: str) -> list[Any]:
    """The corrected rows; says what was changed, and what became of AP where there are objects to compare with."""

    def average_precision(some: list[dict[str, Any]]) -> float:
        return evaluate(annotations, some, eval_backend).numbers[AP]

    fixed = fix_results(rows, annotations, average_precision if has_objects(annotations) else None)
    say("Corrected:" if fixed.changes else "Nothing corrected")
    for change in fixed.changes:
        say(f"- {change.what}: {change.num_rows}{ap_text(change.ap)}")
        for example in change.examples:
            say(f"    {example}")
    for note in fixed.notes:
        say(f"Not corrected: {note}")
    aps = [change.ap for change in fixed.changes if change.ap]
    whole = ap_text((aps[0][0], aps[-1][1])) if aps else ""
    say(f"{len(fixed.rows)} of {len(rows)} rows kept{whole}{', of the rows that can be evaluated' if aps else ''}")
    return fixed.rows


def ap_text(ap: tuple[float, float] | None) -> str:
    return "" if ap is None else f"; AP {ap[0]:.3f} before, {ap[1]:.3f} after"


def tell_findings(findings: list[ResultFinding]) -> None:
    for finding in findings:
        say(f"- {finding.problem}: {finding.num_rows}")
        for example in finding.examples:
            say(f"    {example}")
        say(f"    Fix: {finding.fix}")


def tell_verdict(path: Path, rows: Any, findings: list[ResultFinding], annotations: Annotations) -> None:
    verdict = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}" if findings else "good"
    if any(finding.unusable for finding in findings):
        say(f"{path}: {verdict}")
        return
    say(f"{path}: {verdict}; {len(rows)} detections for {len(annotations.image_ids)} images")
    empty = images_without_detection(rows, annotations)
    ids = ", ".join(map(str, empty[:NUM_EXAMPLES])) + (" ..." if len(empty) > NUM_EXAMPLES else "")
    say(f"Images without a detection, which is no mistake: {len(empty)}" + (f" ({ids})" if empty else ""))


def pack(rows: list[dict[str, Any]], findings: list[ResultFinding], path: Path) -> bool:
    """Write the rows to the zip `path`, or say why not; whether it was written."""
    if findings or not rows:
        why = "there are findings" if findings else "COCO's reader fails where there is no detection at all"
        say(f"{path}: not written, since {why}{'; what is there is older' if path.exists() else ''}")
        return False
    write_zip(results_text(rows), path)
    say(f"{path}: written, with {path.stem}.json in it")
    return True


if __name__ == "__main__":
    gc.disable()  # rows hold no cycles, and to look for some in millions of them takes a third of the time
    run(main)
