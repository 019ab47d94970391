"""Check a result file before it is handed in; correct and pack it."""

import gc
from pathlib import Path
from typing import Any

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, has_objects
from retinanet.coco.folder import find_annotation_file
from retinanet.coco.results import default_results_path, found_of, read_results, results_text, write_results
from retinanet.coco.results_zip import write_zip
from retinanet.evaluation.coco_table import AP, evaluate, require_backend, table_if_objects
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.settings.submission import SubmissionSettings
from retinanet.submission.check import NUM_EXAMPLES, ResultFinding, check_results, images_without_detection
from retinanet.submission.fix import fix_results
from retinanet.submission.server_names import name_findings


def check_submission(settings: SubmissionSettings) -> int:
    """Do what test_submission.py's command line asks for. Returns the exit code: 0 good, 1 findings."""
    gc.disable()  # rows hold no cycles, and to look for some in millions of them takes a third of the time
    results_path = settings.results_path or default_results_path(settings.set_name)
    annotation_file = find_annotation_file(settings.coco_path, settings.set_name)
    for flag, path, ending in (("--fix", settings.fix, ".json"), ("--zip", settings.zip, ".zip")):
        if path is not None:
            require_place(flag, path, ending, inputs=[results_path, annotation_file])
    annotations = load_annotations(annotation_file)
    if has_objects(annotations):
        require_backend(settings.eval_backend)
    rows, member = read_results(results_path)
    fixed = settings.fix if isinstance(rows, list) else None
    if fixed is not None:
        rows = fix(rows, annotations, settings.eval_backend)
        write_results(rows, fixed)
    findings = check_results(rows, annotations)
    handed_in = settings.zip or settings.fix
    findings += name_findings(handed_in or results_path, None if handed_in else member, settings.set_name)
    if settings.fix is not None and findings:
        say("Fix these yourself:" if fixed else f"{settings.fix}: not written, since this can't be corrected:")
    print_findings(findings)
    print_verdict(fixed or results_path, rows, findings, annotations)
    packed = settings.zip is None or pack(rows, findings, settings.zip)
    if not any(finding.unusable for finding in findings):
        found = found_of(rows, annotations)
        if table := table_if_objects(annotations, found, settings.eval_backend):
            say(*table.text.splitlines())
    return 0 if packed and not findings else 1


def require_place(flag: str, path: Path, ending: str, inputs: list[Path]) -> None:
    """UserError where `path` can't be written, or writing it would replace one of the `inputs`."""
    if path.suffix.lower() != ending:
        raise UserError(f"{flag} {path}: give it a name that ends in {ending}.")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"{flag} {path}: is a folder, or its parent folder does not exist. Give a file in an existing folder."
        )
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{flag} {path}: would replace {source}, which is an input. Give another file.")


def fix(rows: list[Any], annotations: Annotations, eval_backend: str) -> list[Any]:
    """The corrected rows; says what was changed, and how AP changed where there are objects to compare with."""

    def average_precision(some: list[dict[str, Any]]) -> float:
        return evaluate(annotations, found_of(some, annotations), eval_backend).numbers[AP]

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


def print_findings(findings: list[ResultFinding]) -> None:
    for finding in findings:
        say(f"- {finding.problem}: {finding.num_rows}")
        for example in finding.examples:
            say(f"    {example}")
        say(f"    Fix: {finding.fix}")


def print_verdict(path: Path, rows: Any, findings: list[ResultFinding], annotations: Annotations) -> None:
    verdict = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}" if findings else "good"
    if any(finding.unusable for finding in findings):
        say(f"{path}: {verdict}")
        return
    say(f"{path}: {verdict}; {len(rows)} detections for {len(annotations.image_ids)} images")
    empty = images_without_detection(rows, annotations)
    ids = ", ".join(map(str, empty[:NUM_EXAMPLES])) + (" ..." if len(empty) > NUM_EXAMPLES else "")
    say(f"Images without a detection (not a mistake): {len(empty)}" + (f" ({ids})" if empty else ""))


def pack(rows: list[dict[str, Any]], findings: list[ResultFinding], path: Path) -> bool:
    """Write the rows to the zip `path`, or say why not; whether it was written."""
    if findings or not rows:
        why = "there are findings" if findings else "COCO's reader fails where there is no detection at all"
        say(f"{path}: not written, since {why}{'; what is there is older' if path.exists() else ''}")
        return False
    write_zip(results_text(rows), path)
    say(f"{path}: written, with {path.stem}.json in it")
    return True
