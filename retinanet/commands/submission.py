"""Checks a result file before submission, and optionally repairs and zips it."""

import gc
from pathlib import Path
from typing import Any

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations, has_objects
from retinanet.coco.folder import find_annotation_file
from retinanet.coco.result_rows import NUM_EXAMPLES, ResultFinding
from retinanet.coco.results import default_results_path, found_of, read_results, results_text, write_results, write_zip
from retinanet.evaluation.coco_table import AP, evaluate, require_backend, table_if_objects
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.submission import CORNERS, SubmissionSettings
from retinanet.submission.check import check_results, images_without_detection, name_findings
from retinanet.submission.fix import possible_readings, read_as, repair, rows_to_evaluate


def submission(settings: SubmissionSettings) -> int:
    """Checks the result file. Returns the exit code: 1 if there are findings or --zip wrote no file, otherwise 0."""
    gc.disable()  # rows have no reference cycles, and searching millions of rows for them takes a third of the time
    results_path = settings.results_path or default_results_path(settings.set_name)
    annotation_file = find_annotation_file(settings.coco_path, settings.set_name)
    for flag, path, ending in (("--fix", settings.fix, ".json"), ("--zip", settings.zip, ".zip")):
        if path is not None:
            require_place(flag, path, ending, inputs=[results_path, annotation_file])
    annotations = load_annotations(annotation_file)
    if has_objects(annotations):
        require_backend(settings.eval_backend)
    rows, member = read_results(results_path)
    fixed, is_reading_named = None, settings.boxes == CORNERS or settings.category_offset != 0
    if settings.fix is not None and isinstance(rows, list):
        rows = read_as(rows, corners=settings.boxes == CORNERS, category_offset=settings.category_offset)
        if (repaired := fix(rows, annotations)) is not None:
            write_results(repaired, settings.fix)
            rows, fixed = repaired, settings.fix
    findings = check_results(rows, annotations)
    submitted = settings.zip or settings.fix
    findings += name_findings(submitted or results_path, None if submitted else member, settings.set_name)
    if settings.fix is not None and findings:
        say("Fix these yourself:" if fixed else f"{settings.fix}: not written, since this can't be corrected:")
    print_findings(findings)
    if settings.fix is not None and isinstance(rows, list) and not is_reading_named:
        print_readings(rows, annotations, settings, is_written=fixed is not None)
    print_verdict(fixed or results_path, rows, findings, annotations)
    packed = settings.zip is None or pack(rows, findings, settings.zip)
    if not any(finding.unusable for finding in findings):
        detections = found_of(rows, annotations)
        if table := table_if_objects(annotations, detections, settings.eval_backend):
            say(*table.text.splitlines())
    return 0 if packed and not findings else 1


def require_place(flag: str, path: Path, ending: str, inputs: list[Path]) -> None:
    """Raises UserError if `path` doesn't end in `ending`, can't be written, or is one of the `inputs`."""
    if path.suffix.lower() != ending:
        raise UserError(f"{flag} {path}: the name must end in {ending}. Choose another name.")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"{flag} {path}: is a folder, or its parent folder does not exist. Choose a file in an existing folder."
        )
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{flag} {path}: would replace {source}, which is an input. Choose another file.")


def fix(rows: list[Any], annotations: Annotations) -> list[Any] | None:
    """Prints the repairs and returns the repaired rows, or None if no row is left or a whole column looks wrong."""
    repaired, changes = repair(rows)
    if rows and not repaired:
        say("Nothing is changed: no row would be left. Check the program that wrote the file.")
        return None
    if any(finding.whole_column for finding in check_results(repaired, annotations)):
        return None
    say("Corrected:" if changes else "Nothing corrected")
    for change in changes:
        say(f"- {change.what}: {change.num_rows}")
        for example in change.examples:
            say(f"    {example}")
    say(f"{len(repaired)} of {counted(len(rows), 'row')} kept")
    return repaired


def print_readings(rows: list[Any], annotations: Annotations, settings: SubmissionSettings, is_written: bool) -> None:
    """Prints other possible meanings of the rows, with the AP of each if the set has objects."""

    def average_precision(selected: list[Any]) -> float:
        detections = found_of(rows_to_evaluate(selected, annotations), annotations)
        return evaluate(annotations, detections, settings.eval_backend).numbers[AP]

    readings = possible_readings(rows, annotations)
    if len(readings) > 1:
        say("The rows may mean something else:")
        for name, read in readings:
            say(f"    {name}" + (f": AP {average_precision(read):.3f}" if has_objects(annotations) else ""))
    if not is_written:
        has_flags = any(name.startswith("--") for name, _ in readings)
        say(
            "Export the results again"
            + (f", or repeat --fix {settings.fix} with the flags of the right reading" * has_flags)
        )


def print_findings(findings: list[ResultFinding]) -> None:
    for finding in findings:
        say(f"- {finding.problem}: {finding.num_rows}")
        for example in finding.examples:
            say(f"    {example}")
        say(f"    Fix: {finding.fix}")


def print_verdict(path: Path, rows: Any, findings: list[ResultFinding], annotations: Annotations) -> None:
    verdict = counted(len(findings), "finding") if findings else "good"
    if any(finding.unusable for finding in findings):
        say(f"{path}: {verdict}")
        return
    say(f"{path}: {verdict}; {counted(len(rows), 'detection')} for {counted(len(annotations.image_ids), 'image')}")
    empty = images_without_detection(rows, annotations)
    ids = ", ".join(map(str, empty[:NUM_EXAMPLES])) + (" ..." if len(empty) > NUM_EXAMPLES else "")
    say(f"Images without a detection (not a mistake): {len(empty)}" + (f" ({ids})" if empty else ""))


def pack(rows: list[dict[str, Any]], findings: list[ResultFinding], path: Path) -> bool:
    """Writes the rows to the zip `path`, or prints why not; returns True if the zip was written."""
    if findings or not rows:
        why = "there are findings" if findings else "COCO's reader fails on a file without detections"
        say(f"{path}: not written, since {why}{'; the existing file is older' if path.exists() else ''}")
        return False
    write_zip(results_text(rows), path)
    say(f"{path}: written, with {path.stem}.json in it")
    return True
