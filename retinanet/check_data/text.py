"""The report on a data set as lines of text."""

from collections.abc import Sequence

from retinanet.check_data.counts import Counts, Histogram, Reach
from retinanet.check_data.findings import FINDING_KINDS, Finding
from retinanet.data.anchor_coverage import Coverage
from retinanet.data.anchor_remedies import CLEAR_GAIN, Remedy, missed_classes, remedy_lines
from retinanet.detector.settings import BACKGROUND_IOU, FOREGROUND_IOU
from retinanet.reports.tables import aligned

BAR = 20  # letters of a histogram's longest bar
# An object of the second or third kind has no anchor; its best one has such an IoU.
REACHED = ("matched", f"IoU from {BACKGROUND_IOU:g}", f"below {BACKGROUND_IOU:g}")


def class_lines(sets: Sequence[Counts], classes: dict[int, str]) -> list[str]:
    """The numbers of objects and images of each of `classes` (names by category id) in each set."""
    header = ["", *(text for one in sets for text in (f"{one.name} objects", "images"))]
    rows = [
        [name, *(str(by.get(key, 0)) for one in sets for by in (one.class_objects, one.class_images))]
        for key, name in classes.items()
    ]
    total = ["all", *(str(number) for one in sets for number in (len(one.objects.labels), one.num_images))]
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
    """How well the anchors cover each group of objects."""
    rows = []
    for group, reaches in groups.items():
        rows.append([group, "objects", *REACHED])
        rows += [[reach.name, str(reach.num_objects), *_percent(reach)] for reach in reaches]
    return [
        title,
        *_indented(rows),
        f"Matched: an anchor of IoU {FOREGROUND_IOU:g} or more learns to find the object. Of the others, the best",
        f"anchor is ignored (IoU from {BACKGROUND_IOU:g}), finds a neighbour, or learns that nothing is there (below).",
        "An object that isn't matched will hardly be found, however long the training.",
    ]


def advice_lines(now: Coverage, reach: Reach, title: str, class_names: list[str]) -> list[str]:
    """Returns the share of objects that get an anchor, and the classes in which many don't."""
    of_classes = missed_classes(now, class_names)
    shares = ", ".join(f"{name} {share}" for name, share in zip(REACHED, _percent(reach), strict=True))
    return [f"{title}: {shares}", *([f"Not matched: {of_classes}"] if of_classes else [])]


def alternative_lines(now: Coverage, alternatives: Sequence[Remedy]) -> list[str]:
    """Returns a table of the shares of objects that other sides and anchors would match."""
    rows = [["", "matched", "pixels"], ["present", f"{1 - now.missed:.1%}", "x 1.00"]]
    rows += [[one.flags, f"{1 - one.coverage.missed:.1%}", f"x {one.pixels:.2f}"] for one in alternatives]
    return [
        "What other sides and anchors would match (flags of train.py; a checkpoint keeps its anchors)",
        *_indented(rows),
    ]


def remedy_block(found: Sequence[Remedy]) -> list[str]:
    """Returns lines on the settings that match clearly more objects, with their cost."""
    if not found:
        return [f"None of these matches {CLEAR_GAIN:.0%} more of the objects: keep the present settings."]
    return ["What would match more of them, the most useful first:", *remedy_lines(found)]


def cheaper_lines(now: Coverage, smaller: Sequence[Remedy]) -> list[str]:
    """Returns a line on the smallest sides that match as many objects; none if no sides do."""
    as_many = [one for one in smaller if one.coverage.missed <= now.missed]
    if not as_many or not len(now.matched):
        return []
    cheap = min(as_many, key=lambda one: one.pixels)
    return [
        f"{cheap.flags} would match as many with {cheap.pixels:.2f} times the pixels, so train that much faster; but "
        "small objects lose detail"
    ]


def finding_lines(findings: Sequence[Finding], with_all: bool = True) -> list[str]:
    """The findings with examples and fixes; without `with_all` one example each, and none of what is no mistake."""
    lines = []
    for finding in findings:
        kind = FINDING_KINDS[finding.kind]
        lines.append(f"- {finding.set_name}: {finding.kind}: {finding.num_found} ({kind.says})")
        if not (with_all or kind.is_mistake):
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
