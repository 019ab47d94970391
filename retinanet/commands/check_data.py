"""Checks a data folder: reads its sets, prints the findings and counts, and draws the charts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from retinanet.check_data import charts
from retinanet.check_data.annotation_checks import CheckedSet, check_set
from retinanet.check_data.box_charts import draw_readings
from retinanet.check_data.box_groups import groups_of, judge_set
from retinanet.check_data.box_texts import KINDS, JudgedSet, Misfit, misfits_of, verdict_lines
from retinanet.check_data.counts import Counts, count, histograms, reach
from retinanet.check_data.findings import Finding, Findings
from retinanet.check_data.image_checks import Content, note_contents, note_repeated, read_contents
from retinanet.check_data.lookalikes import Lookalike, draw_lookalikes, note_lookalikes
from retinanet.check_data.proof import measure, train_small
from retinanet.check_data.proof_pictures import CLASSES, DETECTIONS, draw_classes, draw_detections
from retinanet.check_data.proof_verdict import NOT_AT_ALL, Decision, decide, decision_lines, part_lines, refusal
from retinanet.check_data.text import (
    advice_lines,
    alternative_lines,
    cheaper_lines,
    class_lines,
    finding_lines,
    histogram_lines,
    reach_lines,
    remedy_block,
    tile_lines,
)
from retinanet.checkpoints.start import require_weights
from retinanet.coco.annotations import require_same_classes
from retinanet.coco.folder import SETS, find_annotation_file, find_image_folder, split_advice
from retinanet.data.anchor_coverage import AnchorSetup, Coverage, coverage
from retinanet.data.anchor_remedies import (
    LOW_QUALITY,
    Remedy,
    alternatives,
    recommended,
    remedies,
    remedy_of,
    smaller_sides,
    tile_remedies,
)
from retinanet.data.box_fit import BoxFit
from retinanet.data.dataset import CocoDataset
from retinanet.data.tiles import TiledEpochs
from retinanet.data.unread import UNREADABLE_IMAGE, reason_unread
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings
from retinanet.reports.figures import picture_beside, require_picture_place
from retinanet.runtime.console import say
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.printable import counted, printable
from retinanet.runtime.streams import hides_bars
from retinanet.runtime.tree import Account, Tree
from retinanet.settings.check_data import PROOF_DEPTH, CheckDataSettings
from retinanet.settings.train import anchor_words

MOST_LINES = 40  # the maximum number of lines printed without --all
MOST_MATCHED = 50_000  # the approximate maximum number of objects that are matched to anchors


class Examined(NamedTuple):
    """The sets of a data folder, and everything that was found in them."""

    sets: list[CheckedSet]
    contents: list[list[Content]]  # of each set's images
    pairs: list[Lookalike]
    judged: list[JudgedSet]
    misfits: list[Misfit]
    findings: Findings


def check_data(settings: CheckDataSettings) -> int:
    """Checks the data folder; returns the proof's exit code or, without a proof, 1 if there are mistakes and 0 if not.

    The checks come first: if a single finding already explains why nothing can be learned, the proof stops before
    training.
    """
    if settings.prove:
        require_weights(settings.weights, PROOF_DEPTH)
        settings.output_path.mkdir(parents=True, exist_ok=True)
    require_picture_place(settings.picture_path)
    sets, contents, pairs, judged, _, findings = examined = examine(settings)
    pairs_path = picture_beside(settings.picture_path, "pairs")
    pairs_drawn = draw_lookalikes(pairs, pairs_path)
    readings_path = picture_beside(settings.picture_path, "readings")
    readings_drawn = draw_readings(judged, readings_path)
    mistakes = findings.of(is_mistake=True)
    blocks = [
        [f"{settings.coco_path}: {verdict(mistakes)}; charts in {settings.picture_path}"],
        *finding_blocks(findings, settings.all),
        *([[f"Pairs of images that look alike, in {pairs_path}"]] if pairs_drawn else []),
        *([verdict_lines(judged, readings_path if readings_drawn else None)] if judged else []),
        *count_blocks(sets, settings),
    ]
    lines = [line for block in blocks for line in ["", *block]][1:]
    if not settings.all and len(lines) >= MOST_LINES:
        lines = [*lines[: MOST_LINES - 2], "..."]
    say(*lines, "", account_of(settings.coco_path, sets, contents).line(settings.coco_path))
    if not settings.all:
        say("", "More counts and examples: add --all")
    if settings.prove:
        return prove(settings, examined)
    return 1 if mistakes else 0


def examine(settings: CheckDataSettings) -> Examined:
    """Reads the annotation files and the images of the sets, and collects what is found in them."""
    findings = Findings()
    sets = check_annotation_files(settings, findings)
    fits = [None if settings.no_pixels else BoxFit(checked.dataset.annotations) for checked in sets]
    contents = check_image_files(sets, fits, settings.threads, findings)
    pairs = note_lookalikes(list(zip(sets, contents, strict=True)), findings)
    judged = judge_boxes(sets, fits)
    misfits = misfits_of(judged, settings.coco_path)
    for each in misfits:
        findings.add(each.set_name, KINDS[each.kind], [each.text])
    return Examined(sets, contents, pairs, judged, misfits, findings)


def prove(settings: CheckDataSettings, examined: Examined) -> int:
    """Says whether a network learns the first set, and draws what it has learned. Returns the exit code."""
    if cause := refusal(examined.findings, examined.contents[0]):
        say("", *decision_lines(Decision(NOT_AT_ALL, [cause])))
        return 1
    train, *others = (checked.dataset for checked in examined.sets)
    val = next((dataset for dataset in others if dataset.is_learned.any()), None)
    classes, detections = settings.output_path / CLASSES, settings.output_path / DETECTIONS
    draw_classes(train, val, classes)
    say("", "Proof: training a small detector")
    proof = measure(train_small(train, settings.weights, settings.seed), val)
    draw_detections(proof, detections)
    decision = decide(proof, examined.judged, examined.misfits, *reach_of(settings, train))
    say(*part_lines(proof), "", *decision_lines(decision))
    say(f"Crops of each class, to compare with its name: {classes}; what the network finds: {detections}")
    return decision.exit_code


def setup_of(settings: CheckDataSettings) -> AnchorSetup:
    tiling = settings.tiling
    return AnchorSetup(settings.min_side, settings.max_side, settings.anchors.shapes, tiling.tiles, tiling.min_visible)


def tile_block(settings: CheckDataSettings, dataset: CocoDataset) -> list[str]:
    """Returns lines about the tile size given by --tile and about other sizes; no lines without the flag."""
    tiling = settings.tiling
    if not tiling.tiles or not dataset.is_learned.any():
        return []
    epochs = TiledEpochs(dataset, tiling.tiles, tiling.min_visible)
    measured = tile_remedies(dataset, setup_of(settings), DEFAULT_LOSS, MOST_MATCHED)
    return [epochs.line(), *tile_lines(measured, recommended(measured))]


def reach_of(settings: CheckDataSettings, train: CocoDataset) -> tuple[float, str]:
    """Returns the fraction of objects that get no anchor, and the flags that reduce it most ("" if none do)."""
    setup = setup_of(settings)
    now = coverage(train, setup, most=MOST_MATCHED)
    options = remedies(train, setup, DEFAULT_LOSS, now)
    return now.missed, options[0].flags if options else ""


def finding_blocks(findings: Findings, with_all: bool) -> list[list[str]]:
    titles = (("Mistakes", True), ("Worth knowing", False))
    return [
        [f"{title}:" if of_kind else f"{title}: none", *finding_lines(of_kind, with_all)]
        for title, is_mistake in titles
        for of_kind in [findings.of(is_mistake)]
    ]


def verdict(mistakes: Sequence[Finding]) -> str:
    if not mistakes:
        return "no mistakes"
    total, kinds = sum(finding.num_found for finding in mistakes), len({finding.kind for finding in mistakes})
    return f"{counted(total, 'mistake')} of {counted(kinds, 'kind')}"


def check_annotation_files(settings: CheckDataSettings, findings: Findings) -> list[CheckedSet]:
    """Loads the sets and checks all their annotation files before any image, since images take longer."""
    sets: list[CheckedSet] = []
    for name in settings.sets or existing_sets(settings.coco_path):
        checked = check_set(
            name,
            find_annotation_file(settings.coco_path, name),
            find_image_folder(settings.coco_path, name),
            min_side=settings.min_side,
            max_side=settings.max_side,
            max_pixels=settings.max_pixels,
            exif=settings.exif,
            white_level=settings.white_level,
            anchor_shapes=settings.anchors.shapes,
            tiling=settings.tiling,
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


def existing_sets(coco_path: Path) -> list[str]:
    """Returns the names of the sets with an annotation file. Raises UserError if there is no such set."""
    names, missing = [], {}
    for name in SETS:
        try:
            find_annotation_file(coco_path, name)
            names.append(name)
        except UserError as error:
            missing[name] = error
    if not names:
        raise missing[SETS[0]]
    for name in missing:
        advice = split_advice(coco_path, name, names)
        say(f"No set {name} in {coco_path}: not checked{f'.{advice}' if advice else ''}")
    return names


def check_image_files(
    sets: list[CheckedSet], fits: Sequence[BoxFit | None], threads: int, findings: Findings
) -> list[list[Content]]:
    """Decodes and checks each image once, adds box scores to `fits`, and returns the images' contents by set."""
    contents: list[list[Content]] = []
    for checked, fit in zip(sets, fits, strict=True):
        every = read_contents(checked.dataset, threads, fit)
        bar = tqdm(every, f"Images of {checked.name}", total=len(checked.dataset), leave=False, disable=hides_bars())
        contents.append(list(bar))
        note_contents(checked, contents[-1], findings)
    note_repeated(list(zip(sets, contents, strict=True)), findings)
    return contents


def judge_boxes(sets: list[CheckedSet], fits: Sequence[BoxFit | None]) -> list[JudgedSet]:
    """Judges how each set's boxes must be read; skips sets without scored boxes and, with --no_pixels, all sets."""
    judged = []
    for checked, fit in zip(sets, fits, strict=True):
        if fit and len(fit.rows):
            scores = fit.scores()
            judged.append(JudgedSet(checked, scores, judge_set(scores, groups_of(checked, scores))))
    return judged


def account_of(coco_path: Path, sets: list[CheckedSet], contents: list[list[Content]]) -> Account:
    """Returns which files below `coco_path` were read, and which weren't."""
    tree = Tree()
    files = tree.files(coco_path)
    for checked, every in zip(sets, contents, strict=True):
        tree.read(checked.annotations.path)
        for index, content in enumerate(every):
            path = checked.dataset.path(index)
            if content.error is None:
                tree.read(path)
            elif path.exists():
                tree.leave(path, UNREADABLE_IMAGE)
    for path in files:
        if path.suffix.lower() == ".json" and not tree.is_read(path):
            tree.leave(path, "JSON that no checked set uses")
    return tree.account(reason_unread)


def count_blocks(sets: list[CheckedSet], settings: CheckDataSettings) -> list[list[str]]:
    """Counts the objects of all sets, measures the first set's anchor coverage, draws charts, and returns the text."""
    counts = [count(checked.name, checked.dataset) for checked in sets]
    dataset, classes = sets[0].dataset, names_of_classes(sets)
    setup = setup_of(settings)
    now = coverage(dataset, setup, most=MOST_MATCHED)
    groups = reach(now, dataset, setup)
    charts.draw(counts, classes, groups, settings.picture_path)
    sides = ["--min_side", str(settings.min_side), "--max_side", str(settings.max_side)]
    tiles = settings.tiling.tiles
    sides += tiles.words if tiles else []
    flags = " ".join([*sides, *anchor_words(settings.anchors.shapes)])
    drawn = "" if now.are_all else f" ({len(now.matched)} drawn)"
    title = f"Best anchor of each object in {counts[0].name}{drawn}, {flags}"
    options = remedies(dataset, setup, DEFAULT_LOSS, now)
    tile_blocks = [block for block in [tile_block(settings, dataset)] if block]
    if not settings.all:
        advice = advice_lines(now, groups[""][0], title, dataset.annotations.class_names)
        more: list[str] = []
        if options:
            more = remedy_block(options)
        elif len(now.matched):
            more = cheaper_lines(now, measured(smaller_sides(setup), dataset, setup, now))
        return [class_lines(counts, most_frequent(classes, counts)), [*advice, *more], *tile_blocks]
    tables = [class_lines(counts, classes), *map(histogram_lines, histograms(counts)), reach_lines(groups, title)]
    blocks = [*tables, *tile_blocks]
    if not len(now.matched):
        return blocks
    others = measured(alternatives(setup), dataset, setup, now)
    forced = remedy_of(LOW_QUALITY, dataset, setup, setup, LossSettings(matcher="low_quality"), len(now.matched))
    return [*blocks, [*alternative_lines(now, [*others, forced]), *remedy_block(options)]]


def measured(setups: dict[str, AnchorSetup], dataset: CocoDataset, setup: AnchorSetup, now: Coverage) -> list[Remedy]:
    """Measures the anchor coverage of each of `setups`, on about as many objects as `now` was measured on."""
    most = len(now.matched)
    return [remedy_of(flags, dataset, setup, other, DEFAULT_LOSS, most) for flags, other in setups.items()]


def names_of_classes(sets: list[CheckedSet]) -> dict[int, str]:
    """Returns the class names of all sets by category id."""
    classes: dict[int, str] = {}
    for checked in reversed(sets):  # if they differ, the first set's names win
        names = map(printable, checked.annotations.class_names)
        classes |= zip(checked.annotations.category_ids, names, strict=True)
    return dict(sorted(classes.items()))


def most_frequent(classes: dict[int, str], counts: Sequence[Counts], most: int = 8) -> dict[int, str]:
    """Returns up to `most` classes: those with the most objects in the first set."""
    if len(classes) <= most:
        return classes
    order = sorted(classes, key=lambda category_id: -counts[0].class_objects.get(category_id, 0))
    return {category_id: classes[category_id] for category_id in order[:most]}
