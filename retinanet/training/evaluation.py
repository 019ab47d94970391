"""Saves and evaluates a run's weights: prints the COCO table of the val set and keeps the best weights."""

import math
from contextlib import nullcontext
from pathlib import Path

from retinanet.coco.annotations import has_objects
from retinanet.coco.results import Found
from retinanet.evaluation.analysis import analyse, working_point
from retinanet.evaluation.coco_table import AP, AP50, CocoTable, table_if_objects
from retinanet.evaluation.detect_set import detect_all
from retinanet.evaluation.views import Views
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.signals import STOP
from retinanet.settings.options import flat
from retinanet.settings.shared import BEST, EMBED, FINAL, ReportPictures
from retinanet.training.build import Run, loader_settings
from retinanet.training.near_zero import near_zero_lines
from retinanet.training.saves import Saves, weights_name
from retinanet.training.trackers import Trackers


def evaluate_and_save(run: Run, saves: Saves, trackers: Trackers, is_last: bool) -> None:
    """Saves the epoch's weights, evaluates them, sends the results to the trackers, and keeps the best weights."""
    if run.ranks.is_first:  # before evaluating, so that the weights survive if the evaluation fails
        _save_epoch(run, saves, is_last)
        if is_last:
            saves.save_state()
    ap = evaluate_weights(run)
    if ap is not None:  # again, now with the threshold that predict uses
        _save_epoch(run, saves, is_last)
    is_best = ap is None or ap > run.state.best_ap  # without an AP the newest weights are the best
    if run.ranks.is_first and is_best and saves.save_weights(BEST) and ap is not None:
        run.state.best_ap = ap
    if ap is not None:
        run.state.ap_by_epoch[run.state.epoch] = ap
        saves.record_evaluations()
        step = run.sampler.first_steps(run.state.epoch)[-1]
        trackers.log(step, {f"val/{name}": number for name, number in run.state.numbers.items()})
        if run.settings.output.track and _is_over(run, ap):
            trackers.pictures({path.stem: path for path in sorted(_report_folder(run).glob("*.png"))})
    run.state.evaluated = run.state.epoch
    if is_last:
        saves.save_state()
    run.ranks.wait()


def _save_epoch(run: Run, saves: Saves, is_last: bool) -> None:
    if saves.save_weights(weights_name(run.state.epoch)):
        saves.remove_old_weights()
    if is_last:
        saves.save_weights(FINAL)


def evaluate_weights(run: Run) -> float | None:
    """Prints the COCO table of the weights that test.py uses (the averaged ones, if there are any); returns their AP.

    Returns None if the val set has no objects, and on ranks other than 0.
    """
    average, val = run.state.average, run.sets.val
    if average and has_objects(val):
        raw, _ = _table(run)
        if raw:
            say(f"Raw weights: AP {raw.numbers[AP]:.3f}, AP50 {raw.numbers[AP50]:.3f}. The averaged ones:")
    with average.in_place() if average else nullcontext():
        table, detections = _table(run)
    if table is None:
        return None
    numbers = f"AP {table.numbers[AP]:.3f}, AP50 {table.numbers[AP50]:.3f} after epoch {run.state.epoch}"
    say(*table.text.splitlines(), on_terminal=[numbers])
    say(*near_zero_lines(run, table.numbers[AP], detections))
    if run.settings.output.track and _is_over(run, table.numbers[AP]):
        _write_report(run, table, detections)
    run.state.numbers = table.by_name(val.class_names)
    return table.numbers[AP]


def _is_over(run: Run, ap: float) -> bool:
    """Returns True if the run ends after an evaluation with this `ap`: in its last epoch, or because of --patience."""
    patience, aps = run.settings.output.patience, run.state.ap_by_epoch | {run.state.epoch: ap}
    return run.state.epoch >= run.settings.optimisation.epochs or 0 < patience <= evaluations_since_best(aps)


def _report_folder(run: Run) -> Path:
    return run.settings.output.output_path / "report"


def _write_report(run: Run, table: CocoTable, detections: Found) -> None:
    """Writes the same report as test.py, but without confidence intervals.

    evaluate_and_save sends the report's charts to the trackers.
    """
    from retinanet.reports.embedded_images import pictures_of, telling_order
    from retinanet.reports.html_report import write_report  # not at the top: it imports Matplotlib

    folder, analysis = _report_folder(run), analyse(run.sets.val, detections, num_draws=0)
    try:
        record = {"epoch": run.state.epoch, "settings": flat(run.settings)}
        order = telling_order([analysis], run.sets.val)
        pictures = pictures_of(run.sets.val_set, order, EMBED, ReportPictures.report_mb, folder)
        write_report(folder, analysis, table, run.sets.val_set, "the last evaluation", record, pictures)
    except UserError as fault:
        say(f"No report: {fault}")


def _table(run: Run) -> tuple[CocoTable | None, Found]:
    """Returns the val set's COCO table (None without objects, or on ranks other than 0) and the detections."""
    settings = run.settings
    # Only rank 0's batch-norm statistics are saved; the other ranks would take them over in the next step anyway.
    run.ranks.take_first(run.state.network.buffers())
    with STOP.at_once():  # no state changes here, so a stop can save the state at any moment
        detections = detect_all(
            run.state.network,
            run.sets.val_set,
            loader_settings(settings, run.device),
            device=run.device,
            precision=run.precision,
            detection=settings.detection,
            views=Views(tiles=settings.data.tiling.tiles),
            ranks=run.ranks,
        )
        table = table_if_objects(run.sets.val, detections, settings.eval_backend) if run.ranks.is_first else None
        threshold = working_point(run.sets.val, detections).threshold if table else math.nan
    if table:
        run.state.score_threshold = None if math.isnan(threshold) else threshold
    return table, detections


def out_of_patience(run: Run) -> bool:
    """Returns True if --patience ends the run; all ranks get the same answer, though only rank 0 has the AP."""
    patience, state = run.settings.output.patience, run.state
    if not patience or state.iteration or state.epoch > state.evaluated:  # resumed in an epoch, or not evaluated yet
        return False
    if run.ranks.from_first(lambda: evaluations_since_best(state.ap_by_epoch)) < patience:
        return False
    say(f"Stopped early after epoch {state.epoch}: {counted(patience, 'evaluation')} without a higher AP (--patience)")
    return True


def evaluations_since_best(ap_by_epoch: dict[int, float]) -> int:
    """Returns the number of evaluations since the highest AP, or since the first of several equally high ones."""
    aps = [ap_by_epoch[epoch] for epoch in sorted(ap_by_epoch)]
    return len(aps) - 1 - aps.index(max(aps)) if aps else 0
