"""COCO's table of the val set, during a training."""

from contextlib import nullcontext

from retinanet.annotations import has_objects
from retinanet.command_line import detect_settings, say
from retinanet.detect_set import detect_all
from retinanet.evaluate import AP, AP50, CocoTable, evaluate
from retinanet.stopping import STOP
from retinanet.train_setup import Job


def evaluate_weights(job: Job) -> float:
    """Print the table of the weights that test.py takes, the averaged ones if there are any, and return their AP."""
    average = job.state.average
    if average and has_objects(job.data.val):
        raw = _table(job)
        if raw:
            say(f"Raw weights: AP {raw.numbers[AP]:.3f}, AP50 {raw.numbers[AP50]:.3f}. The averaged ones:")
    with average.in_place() if average else nullcontext():
        table = _table(job)
    if table is None:
        return 0.0
    say(*table.text.splitlines())
    job.state.numbers = table.by_name(job.data.val.class_names)
    return table.numbers[AP]


def _table(job: Job) -> CocoTable | None:
    """The table of the val set; None where it has no objects, or at another rank than 0."""
    args, val = job.args, job.data.val
    with STOP.at_once():  # nothing in here changes what is saved then, the weights least of all
        rows = detect_all(
            job.state.network,
            job.data.val_set,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            precision=job.precision,
            detect_settings=detect_settings(args),
            timeout=args.timeout,
            ranks=job.ranks,
        )
        if not job.ranks.is_first:
            return None
        if not has_objects(val):
            say(f"{val.path} has no objects to compare with, so there is no table")
            return None
        return evaluate(val, rows, args.eval_backend)
