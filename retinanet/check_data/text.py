"""Formats the report on a dataset as lines of text."""

from collections.abc import Sequence

from retinanet.check_data.counts import Counts, Histogram, Reach
from retinanet.check_data.findings import FINDING_KINDS, Finding
from retinanet.data.anchor_coverage import Coverage
from retinanet.data.anchor_remedies import CLEAR_GAIN, Remedy, missed_classes, remedy_lines
from retinanet.detector.settings import BACKGROUND_IOU, FOREGROUND_IOU
from retinanet.reports.tables import aligned

BAR = 20  # the number of characters in a histogram's longest bar
# Objects of the second and third kinds are not matched; the names give the IoU of their best anchor.
REACHED = ("matched", f"IoU {BACKGROUND_IOU:g} or more", f"below {BACKGROUND_IOU:g}")


def class_lines(sets: Sequence[Counts], classes: dict[int, str]) -> list[str]:
    """Returns a table of the objects and images of each class in each set; `classes` are the names by category id."""
    header = ["", *(text for counts in sets for text in (f"{counts.name} objects", "images"))]
    rows = [
        [
            name,
            *(str(by_class.get(key, 0)) for counts in sets for by_class in (counts.class_objects, counts.class_images)),
        ]
        for key, name in classes.items()
    ]
    total = ["all", *(str(number) for counts in sets for number in (len(counts.objects.labels), counts.num_images))]
    return ["Objects to learn, and the images that hold them", *_indented([header, *rows, total])]


def histogram_lines(histogram: Histogram) -> list[str]:
    shares = {name: counts / max(1, counts.sum()) for name, counts in histogram.counts.items()}
    longest = max(share.max() for share in shares.values()) or 1
    rows = [["", *(text for name in shares for text in (name, "", ""))]]
    for number, bin_name in enumerate(histogram.names):
        cells = [bin_name]
        for name, share in shares.items():
            bar = "#" * round(BAR * share[number] / longest)
            cells += [str(histogram.counts[name][number]), f"{share[number]:.1%}", bar.ljust(BAR)]
        rows.append(cells)
    return [histogram.title, *_indented(rows)]


def reach_lines(groups: dict[str, list[Reach]], title: str) -> list[str]:
    """Returns a table of how well the anchors cover each group of objects."""
    rows = []
    for group, reaches in groups.items():
        rows.append([group, "objects", *REACHED])
        rows += [[reach.name, str(reach.num_objects), *_percent(reach)] for reach in reaches]
    return [
        title,
        *_indented(rows),
        f"Matched: an anchor of IoU {FOREGROUND_IOU:g} or more learns to find the object. Of the others, the best",
        f"anchor is ignored or finds a neighbour (IoU {BACKGROUND_IOU:g} or more), or learns background (below).",
        "An object that isn't matched will hardly be found, however long you train.",
    ]


def advice_lines(now: Coverage, reach: Reach, title: str, class_names: list[str]) -> list[str]:
    """Returns lines on the fraction of objects that are matched, and on the classes with many unmatched objects."""
    classes = missed_classes(now, class_names)
    matched, *others = zip(REACHED, _percent(reach), strict=True)
    missed = ", ".join(f"{share} ({name})" for name, share in others)
    return [f"{title}: {matched[1]} matched; not matched: {missed}", *([f"Not matched: {classes}"] if classes else [])]


def alternative_lines(now: Coverage, alternatives: Sequence[Remedy]) -> list[str]:
    """Returns a table of the fraction of objects that would be matched with each of the `alternatives`."""
    rows = [["", "matched", "pixels"], ["current settings", f"{1 - now.missed:.1%}", "x 1.00"]]
    rows += [[remedy.flags, f"{1 - remedy.coverage.missed:.1%}", f"x {remedy.pixels:.2f}"] for remedy in alternatives]
    return [
        "What other sides and anchors would match (flags of train.py; a checkpoint keeps its anchors)",
        *_indented(rows),
    ]


def remedy_block(remedies: Sequence[Remedy]) -> list[str]:
    """Returns lines on the settings that would match considerably more objects, with the cost of each."""
    if not remedies:
        return [f"None of these matches {CLEAR_GAIN:.0%} more of the objects: keep the current settings."]
    return ["Ways to match more of them, most useful first:", *remedy_lines(remedies)]


def tile_lines(measured: Sequence[Remedy], best: Remedy) -> list[str]:
    """Returns a table of the fraction of objects matched with tiles of each size, and a line on the `best` size."""
    rows = [["", "matched", "pixels per epoch"]]
    rows += [[each.flags, f"{1 - each.coverage.missed:.1%}", f"x {each.pixels:.2f}"] for each in measured]
    more = ". An epoch shows many objects in several tiles, so fewer epochs suffice"
    return [
        *_indented(rows),
        f"Recommended: {best.flags}, the cheapest that matches about as many objects as the best"
        f"{more if best.flags != 'no tiles' else ''}",
    ]


def cheaper_lines(now: Coverage, smaller: Sequence[Remedy]) -> list[str]:
    """Returns a line on the smallest image size that would still match as many objects; [] if none is smaller."""
    as_many = [remedy for remedy in smaller if remedy.coverage.missed <= now.missed]
    if not as_many or not len(now.matched):
        return []
    cheap = min(as_many, key=lambda remedy: remedy.pixels)
    return [
        f"{cheap.flags} would match as many with {cheap.pixels:.2f} times the pixels, so training would be about "
        "that much faster, but small objects lose detail"
    ]


def finding_lines(findings: Sequence[Finding], with_all: bool = True) -> list[str]:
    """Returns the findings with examples and fixes.

    Without `with_all`, mistakes have one example each, and notes have neither examples nor fixes. Only the note on
    classes without objects lists the class names, on the same line.
    """
    lines = []
    for finding in findings:
        kind = FINDING_KINDS[finding.kind]
        lines.append(f"- {finding.set_name}: {finding.kind}: {finding.num_found} ({kind.says})")
        if not (with_all or kind.is_mistake):
            more = finding.num_found - len(finding.examples)
            names = f": {', '.join(finding.examples)}{f' and {more} more' if more else ''}"
            lines[-1] += names * kind.shows_names
            continue
        examples = finding.examples if with_all else finding.examples[:1]
        lines += [f"    {example}" for example in examples]
        if finding.num_found > len(examples) > 0:
            lines.append(f"    ... and {finding.num_found - len(examples)} more")
        if kind.fix:
            lines.append(f"    Fix: {kind.fix}")
    return lines


def _percent(reach: Reach) -> list[str]:
    return [f"{share:.1%}" for share in reach.shares] if reach.num_objects else ["-"] * len(reach.shares)


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows)]
