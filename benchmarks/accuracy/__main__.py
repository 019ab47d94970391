"""Makes the tables of accuracy.md: trains and tests every row that isn't on record yet, as far as time allows.

    python -m benchmarks.accuracy --coco_path $VOC5 --weights $R18 --folder FOLDER --minutes 60

If the command is stopped, run it again to resume. The following makes a provisional table on a CPU, in a few hours:

    python -m benchmarks.accuracy --coco_path $VOC5 --weights $R18 --folder FOLDER --device cpu --min_side 160 \
        --max_side 288 --batch_size 4 --epochs 6 --seeds 1 --rows baseline recommended peer
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision

from benchmarks.accuracy.rows import Run, Setting, filled, milestones_of, rows_of, runs_of
from benchmarks.accuracy.runs import ROOT, execute, last_line
from benchmarks.accuracy.table import (
    BEGIN,
    DONE,
    END,
    SUMMARY,
    SUMMARY_END,
    Record,
    line_of,
    read_records,
    with_tables,
)
from benchmarks.arguments import device_of
from benchmarks.speed.protocol import chip_of
from retinanet.checkpoints.provenance import git_commit
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import Annotations
from retinanet.coco.folder import find_annotation_file
from retinanet.coco.results import load_results
from retinanet.detector.settings import DEPTHS
from retinanet.evaluation.analysis import analyse
from retinanet.runtime.console import run, say
from retinanet.runtime.errors import Diverged
from retinanet.runtime.files import require_writable
from retinanet.settings.options import number_above, whole_number

# The first page has the summary, the second has all tables.
PAGES = (ROOT / "benchmarks" / "accuracy.md", ROOT / "benchmarks" / "results" / "accuracy.md")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", type=Path, required=True, help="the data folder, with train and val sets")
    parser.add_argument("--weights", type=Path, required=True, help="a state dict FILE of the ResNet")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs go")
    parser.add_argument(
        "--minutes", type=number_above(0), default=float("inf"), help="then stop; the same command continues"
    )
    parser.add_argument("--jobs", type=whole_number(1), default=1, help="runs at a time, which share the device")
    parser.add_argument("--device", type=device_of, default="auto")
    parser.add_argument("--workers", type=whole_number(0), help="loader processes of each run")
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=18)
    parser.add_argument("--channels", type=whole_number(32), default=256, help="channels of the pyramid and the heads")
    parser.add_argument("--min_side", type=whole_number(64), default=608)
    parser.add_argument("--max_side", type=whole_number(64), default=1024)
    parser.add_argument("--batch_size", type=whole_number(1), default=2)
    parser.add_argument("--epochs", type=whole_number(1), default=24)
    parser.add_argument("--milestones", type=whole_number(0), nargs="*", help="default: 2/3 and 8/9 of the epochs")
    parser.add_argument("--rows", nargs="+", help="default: all")
    parser.add_argument("--seeds", type=whole_number(0), nargs="+", default=[1, 2, 3])
    parser.add_argument("--record", type=Path, default=ROOT / "benchmarks" / "results" / "accuracy.jsonl")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="get the summary, the tables or both")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    deadline = time.monotonic() + 60 * args.minutes
    check_flags(parser, args)
    annotations = load_annotations(find_annotation_file(args.coco_path, "val"))
    setting = setting_of(args, annotations)
    rows = {row.name: row for row in rows_of(setting)}
    if unknown := set(args.rows or ()) - rows.keys():
        parser.error(f"--rows {' '.join(sorted(unknown))}: choose from {', '.join(rows)}")
    runs = runs_of(setting, [row for name, row in rows.items() if not args.rows or name in args.rows], args.seeds)
    left = runs_left(runs, setting, read_records(args.record))
    say(f"{setting.title()}: {len(runs)} runs, of which {len(runs) - len(left)} are on record")
    places = {"$VOC5": args.coco_path, "$R18": args.weights, "FOLDER": args.folder}
    full_places = {name: str(path.absolute()) for name, path in places.items()}
    failed = []
    commit = git_commit() or "unknown"  # before the pages are rewritten, which adds "-dirty"

    def finish(one: Run, code: int) -> None:
        name = f"{one.row.name}, seed {one.seed}"
        if code not in (0, Diverged.exit_code):
            failed.append(one)
            say(f"{name}: ended with code {code}: {last_line(one, full_places)}")
            return
        record = record_of_run(one, code, setting, annotations, args.device, commit, full_places)
        with args.record.open("a") as file:
            file.write(f"{line_of(record)}\n")
        for page in args.page:
            page.write_text(with_tables(page.read_text(), read_records(args.record)))
        say(f"{name}: {record.outcome}, {record.numbers}")

    more = [] if args.workers is None else ["--workers", str(args.workers)]
    own, borrowed = ([one for one in left if bool(one.row.test_flags) == of_test] for of_test in (False, True))
    execute(own, full_places, finish, jobs=args.jobs, deadline=deadline, more=more)
    # One by one, because they share the baseline's folder.
    execute(borrowed, full_places, finish, deadline=deadline, more=more)
    num_left = len(runs_left(runs, setting, read_records(args.record)))
    say(f"{num_left} runs are left" + (f"; {len(failed)} of them failed" if failed else ""))
    return 1 if failed else 0


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is below --min_side {args.min_side}")
    if args.device.index is not None:
        parser.error(f"--device {args.device}: choose the GPU with CUDA_VISIBLE_DEVICES, and set --device cuda")
    if not args.weights.is_file():
        parser.error(f"--weights {args.weights}: no such file")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds names a seed twice. Name each once")
    for page in args.page:
        lines = set(page.read_text().splitlines()) if page.is_file() else set()
        if not ({BEGIN, END} <= lines or {SUMMARY, SUMMARY_END} <= lines):
            parser.error(
                f"--page {page}: no file with the lines {BEGIN} and {END}, between which tables go, or {SUMMARY} and "
                f"{SUMMARY_END}"
            )
    require_writable(args.record)


def setting_of(args: argparse.Namespace, annotations: Annotations) -> Setting:
    return Setting(
        device=args.device.type,
        depth=args.depth,
        min_side=args.min_side,
        max_side=args.max_side,
        batch_size=args.batch_size,
        epochs=args.epochs,
        milestones=milestones_of(args.epochs) if args.milestones is None else tuple(args.milestones),
        val_set=annotations.fingerprint,
        channels=args.channels,
    )


def runs_left(runs: list[Run], setting: Setting, records: list[Record]) -> list[Run]:
    """Returns the runs that don't have a record with the same setting and flags."""
    done = {(one.row, one.flags, one.seed) for one in records if one.setting == setting}
    return [one for one in runs if (one.row.name, flags_text(one), one.seed) not in done]


def flags_text(one: Run) -> str:
    return " ".join((*one.row.flags, *one.row.test_flags))


def record_of_run(
    one: Run,
    code: int,
    setting: Setting,
    annotations: Annotations,
    device: torch.device,
    commit: str,
    places: Mapping[str, str],
) -> Record:
    """Returns the record of a run that ended with exit code `code`: 0, or the code of Diverged."""
    numbers, drawn, outcome = None, list[int](), DONE
    if code == 0:
        results = load_results(Path(filled([one.results_path], places)[0]), annotations)
        analysis = analyse(annotations, results)
        numbers = {"AP": analysis.ap.value, "AP50": analysis.ap50.value}
        numbers |= {f"AP of {row.name}": row.ap.value for row in analysis.classes}
        drawn = (analysis.drawn_means[0] * 10_000).round().astype(int).tolist()
    else:
        outcome = last_line(one, places)
        for name, place in places.items():  # other people's paths are of no interest
            outcome = outcome.replace(place, name)
    return Record(
        setting=setting,
        row=one.row.name,
        flags=flags_text(one),
        seed=one.seed,
        numbers=numbers,
        drawn_ap=drawn,
        outcome=outcome,
        commands=[" ".join(words) for words in one.commands],
        date=time.strftime("%Y-%m-%d"),
        commit=commit,
        machine=chip_of(device),
        versions=f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    )


if __name__ == "__main__":
    run(main)
