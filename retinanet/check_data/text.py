"""The report on a data set as lines of text."""

from collections.abc import Sequence

from retinanet.check_data.counts import Alternative, Counts, Histogram, Reach
from retinanet.check_data.findings import FINDING_KINDS, Finding
from retinanet.detector.settings import BACKGROUND_IOU, FOREGROUND_IOU
from retinanet.reports.tables import aligned

BAR = 20  # letters of a histogram's longest bar
MOST_REMEDIES = 4  # named without --all
CLEAR_GAIN = 0.01  # share of the objects that other anchors or sides must gain to be recommended
REACHED = (
    f"IoU from {FOREGROUND_IOU:g}",
    f"{BACKGROUND_IOU:g} to {FOREGROUND_IOU:g}",
    f"below {BACKGROUND_IOU:g}",
)


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
        f"From {FOREGROUND_IOU:g} on, anchors learn to find the object. From {BACKGROUND_IOU:g} they are ignored, and "
        "below they learn that",
        "nothing is there: an object that no anchor reaches will hardly be found, however long the training.",
    ]


def alternative_lines(now: Reach, alternatives: Sequence[Alternative]) -> list[str]:
    """How well other sides and anchors would cover the objects, and which of them are worth it."""
    rows = [["", *REACHED, "pixels"], ["present", *_percent(now), "x 1.00"]]
    rows += [[one.name, *_percent(one.reach), f"x {one.pixels:.2f}"] for one in alternatives]
    gains = [(one.reach.shares[0] - now.shares[0], one.name) for one in alternatives]
    worth = [name for gain, name in sorted(gains, reverse=True) if gain >= CLEAR_GAIN]
    if worth:
        verdict = [f"These would gain {CLEAR_GAIN:.0%} of the objects or more (the best first):"]
        verdict += [f"  {name}" for name in worth]
    else:
        verdict = [f"None of these gains {CLEAR_GAIN:.0%} of the objects: keep the present settings."]
    return [
        "What other sides and anchors would reach (flags of train.py; a checkpoint keeps its anchors)",
        *_indented(rows),
        *verdict,
    ]


def advice_lines(now: Reach, alternatives: Sequence[Alternative], title: str) -> list[str]:
    """How many objects the anchors reach, and the remedies that are worth it, by what they cost."""
    lines = [f"{title}: IoU {', '.join(f'{name} for {share}' for name, share in _shares_by_name(now))}"]
    gains = [one for one in alternatives if one.reach.shares[0] - now.shares[0] >= CLEAR_GAIN]
    as_many = [one for one in alternatives if one.pixels < 1 and one.reach.shares[0] >= now.shares[0]]
    if gains:
        lines.append("What would reach more of them, the cheapest first:")
        best = sorted(gains, key=lambda one: (one.pixels, -one.reach.shares[0]))[:MOST_REMEDIES]
        lines += _indented([[one.name, f"{one.reach.shares[0]:.1%}", f"x {one.pixels:.2f} pixels"] for one in best])
    elif as_many:
        cheap = min(as_many, key=lambda one: one.pixels)
        lines.append(
            f"{cheap.name} would reach as many with x {cheap.pixels:.2f} of the pixels, so train that much faster; but "
            "small objects lose detail"
        )
    return lines


def _shares_by_name(reach: Reach) -> list[tuple[str, str]]:
    return list(zip((name.removeprefix("IoU ") for name in REACHED), _percent(reach), strict=True))


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
