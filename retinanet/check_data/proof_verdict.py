"""Decides from a proof and from the findings whether a dataset can be learned and, if not, why."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinanet.check_data.box_texts import JudgedSet, Misfit
from retinanet.check_data.findings import FINDING_KINDS, Findings
from retinanet.check_data.image_checks import Content
from retinanet.check_data.proof import Part, Proof, gains_of, z_classes, z_found, z_found_as_any
from retinanet.data.box_verdict import FEWEST_OBJECTS, FIT, LEAST_STRAIGHTNESS, NO_READING, OTHERWISE, z_of
from retinanet.reports.tables import aligned
from retinanet.runtime.printable import printable

SURE = 3.0  # objects count as found if their z is above this
CHANCE = 1.5  # if z is at most this, nothing is found
MOST_CAUSES = 2
MOSTLY = 0.5  # a fault in at least this fraction of a set's boxes, or of its objects, explains a failure
FEWEST_TRAINED = 60  # images; fewer are often learned by heart, even if all labels are right
FEWEST_OF_CLASS = 3  # objects; classes with fewer are not named
MANY_OF_CLASS = 10  # objects of each class, on average; with fewer, classes are often learned by heart
# Limits of the mean and the standard deviation of the network's input, which are about 0 and 1 for photographs.
FARTHEST_MEAN, LEAST_DEVIATION = 1.5, 0.25

LEARNABLE, WRONG = "learnable", "learnable, but not as intended"
BY_HEART, NOT_AT_ALL, NOT_ON_VAL, UNTOLD = "memorised only", "not at all", "not on val", "can't tell in so short a run"
WORDS = {
    LEARNABLE: "the network finds objects in images that it hasn't seen",
    WRONG: "the network learns these boxes, but they don't lie on the objects",
    BY_HEART: "the network recognises the objects, or their classes, only in the images that it was trained on",
    NOT_AT_ALL: "a network can't find even the objects of the images that it is trained on",
    NOT_ON_VAL: "the network finds objects in unseen images of the training set, but what it finds in the other set "
    "doesn't agree with the labels",
    UNTOLD: "the network has learned too little to say more",
}
EXIT_CODES = {LEARNABLE: 0, UNTOLD: 3}  # 1 for all other verdicts


class Cause(NamedTuple):
    """A likely cause of a bad verdict, and how to fix it."""

    says: str
    fix: str


class Decision(NamedTuple):
    verdict: str
    causes: list[Cause]  # the likeliest first

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.verdict, 1)


def refusal(findings: Findings, contents: Sequence[Content]) -> Cause | None:
    """Returns a cause that alone explains an AP of 0, if any; `contents` describe the training images."""
    digests = [content.digest for content in contents if not content.error]
    if len(digests) > 1 and len({*digests}) == 1:
        return Cause(f"all {len(digests)} images of the training set have the same pixels", "Export the images again.")
    for finding in findings.of(is_mistake=True):
        kind = FINDING_KINDS[finding.kind]
        if kind.is_refused or kind.is_hopeless:
            says = f"{finding.set_name}: {finding.kind}: {finding.num_found} ({kind.says}); {finding.examples[0]}"
            return Cause(says, kind.fix)
    return None


def decide(
    proof: Proof, judged: Sequence[JudgedSet], misfits: Sequence[Misfit], missed: float, remedy: str
) -> Decision:
    """Decides whether the dataset can be learned; the first of the sets `judged` is the training set.

    `missed` is the fraction of the training objects that get no anchor, and `remedy` the flags that help most.
    """
    is_found = z_found(proof.left_out) > SURE
    of_train = _causes_of_set(judged[:1], misfits)
    if is_found:  # so the boxes do belong to these images, and the images show the objects
        of_train = [cause for cause in of_train if cause in _misread(judged[:1], misfits)]
    of_val = _causes_of_val(proof, judged, misfits) if proof.val else []
    fits = bool(judged) and judged[0].verdict.whole.kind == FIT
    verdict = _verdict(proof, is_found, fits, bool(of_train), bool(of_val))
    causes = [*of_train, *of_val]
    if verdict != LEARNABLE:
        causes += _other_causes(proof, missed, remedy)
    if verdict == BY_HEART and is_found:
        causes.append(
            Cause("classes that don't follow from the pictures: unseen objects are detected as any class", LOOK)
        )
    elif verdict == BY_HEART and not causes:
        causes.append(Cause("labels that don't follow from the pictures, such as random ones", LOOK))
    return Decision(verdict, causes[:MOST_CAUSES])


LOOK = "Look at the drawn boxes and crops, and at the script that wrote the labels."


def _verdict(proof: Proof, is_found: bool, fits: bool, is_train_wrong: bool, is_val_wrong: bool) -> str:
    """Returns the verdict.

    If the boxes fit their pictures (`fits`), missing the objects in unseen images doesn't show that labels are wrong.
    """
    trained, left_out, val = proof.trained, proof.left_out, proof.val
    is_learned = z_found(trained) > SURE
    if not is_found:
        if is_train_wrong:
            return BY_HEART if is_learned else NOT_AT_ALL
        nothing = max(z_found(left_out), z_found_as_any(left_out)) <= CHANCE
        enough = proof.num_trained >= FEWEST_TRAINED and len(left_out.labels) >= FEWEST_OBJECTS
        by_heart = is_learned and nothing and enough and not fits and _is_worse(left_out, trained)
        return BY_HEART if by_heart else UNTOLD
    if is_train_wrong:
        return WRONG
    if are_classes_by_heart(proof):
        return BY_HEART
    if val and (is_val_wrong or (z_found(val) <= CHANCE and _is_worse(val, left_out))):
        return NOT_ON_VAL
    has_classes = len(np.unique(left_out.labels)) == 1 or z_classes(left_out) > SURE
    return LEARNABLE if has_classes and (not val or z_found(val) > SURE) else UNTOLD


def are_classes_by_heart(proof: Proof) -> bool:
    """Returns True if the network knows the classes of objects it was trained on, but not those of other objects."""
    trained, left_out = proof.trained, proof.left_out
    num_classes = min(len(np.unique(part.labels)) for part in (trained, left_out))
    enough = min(len(trained.labels), len(left_out.labels)) >= MANY_OF_CLASS * num_classes
    return num_classes > 1 and enough and z_classes(trained) > SURE and z_classes(left_out) <= CHANCE


def _is_worse(part: Part, other: Part) -> bool:
    """Returns True if the network finds objects significantly less well in `part` than in `other`."""
    (z, error), (other_z, other_error) = (
        (float(numbers[0]) for numbers in z_of(gains_of(each)[:, None], each.images)) for each in (part, other)
    )
    return other_z * other_error - z * error > SURE * float(np.hypot(error, other_error))


def _misread(judged: Sequence[JudgedSet], misfits: Sequence[Misfit]) -> list[Cause]:
    names = {each.checked.name for each in judged}
    return [
        Cause(f"{each.set_name}, {each.text}", "")
        for each in misfits
        if each.set_name in names and each.kind == OTHERWISE and each.share >= MOSTLY
    ]


def _causes_of_set(judged: Sequence[JudgedSet], misfits: Sequence[Misfit]) -> list[Cause]:
    """Returns causes that the pixels reveal: misread boxes, pictures without edges, or boxes that fit in no reading."""
    causes = _misread(judged, misfits)
    names = {each.checked.name for each in judged}
    for each in judged:
        if each.scores.straightness < LEAST_STRAIGHTNESS:
            says = (
                f"{each.checked.name}: pictures without edges that boxes could follow, like noise or plain areas "
                f"(straightness {each.scores.straightness:.2f}; photographs have more than {LEAST_STRAIGHTNESS:g})"
            )
            causes.append(Cause(says, "Open some of the image files, and export the pictures again."))
    return causes + [
        Cause(f"{each.set_name}, {each.text}", LOOK)
        for each in misfits
        if each.set_name in names and each.kind == NO_READING and each.share >= MOSTLY
    ]


def _causes_of_val(proof: Proof, judged: Sequence[JudgedSet], misfits: Sequence[Misfit]) -> list[Cause]:
    assert proof.val
    names, path = proof.val.dataset.annotations.class_names, proof.val.dataset.annotations.path
    causes = []
    if swapped := renamed_classes(proof.val):
        shown = ((printable(names[old]), printable(names[new])) for old, new in swapped.items())
        pairs = ", ".join(f"{old} detected as {new}" for old, new in shown)
        causes.append(
            Cause(
                f"the class ids in {path} differ from the training set's, so objects are found, but with the "
                f"wrong classes ({pairs})",
                renaming(swapped, proof.val.dataset.annotations.category_ids),
            )
        )
    is_val = [each for each in judged[1:] if each.checked.annotations.path == path]
    of_pixels = _causes_of_set(is_val, misfits)
    return [*causes, *of_pixels] if z_found(proof.val) <= SURE or causes else _misread(is_val, misfits)


def renaming(swapped: dict[int, int], category_ids: Sequence[int]) -> str:
    """Returns a fix for exchanged classes; it lists the new ids unless two classes are detected as the same class."""
    if len({*swapped.values()}) < len(swapped):
        return "Use the training set's category ids in this file, or export both sets in the same way."
    pairs = ", ".join(f"{category_ids[old]} to {category_ids[new]}" for old, new in swapped.items())
    return (
        f"In the annotations of this file, change each category_id to the training set's ({pairs}; classes.png shows "
        "the classes of both sets), or export both sets in the same way."
    )


def renamed_classes(part: Part) -> dict[int, int]:
    """Returns {class: other class} for the classes whose objects the network consistently detects as another class.

    The mapping that fits one half of the images best is tested on the other half, and vice versa, to rule out chance
    matches.
    """
    gains = part.own - part.others
    num_classes, places = gains.shape[1], np.arange(len(part.labels))
    if num_classes == 1 or not len(places):
        return {}
    halves = np.unique(part.images, return_inverse=True)[1] % 2
    classes = np.zeros(len(places), int)
    for half in (0, 1):
        classes[halves == half] = _best_classes(gains[halves != half], part.labels[halves != half])[
            part.labels[halves == half]
        ]
    better = gains[places, classes] - gains[places, part.labels]
    if z_of(better[:, None], part.images)[0][0] <= SURE:
        return {}
    best = _best_classes(gains, part.labels)
    counts = np.bincount(part.labels, minlength=num_classes)
    return {
        label: int(best[label]) for label in np.flatnonzero(counts >= FEWEST_OF_CLASS).tolist() if best[label] != label
    }


def _best_classes(gains: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each class, sums the `gains` [n, C] of its objects, and returns the class with the largest sum.

    For a class without objects, this is the class itself.
    """
    totals = 1e-9 * np.eye(gains.shape[1])
    np.add.at(totals, labels, gains)
    return totals.argmax(axis=1)


def _other_causes(proof: Proof, missed: float, remedy: str) -> list[Cause]:
    causes = []
    if abs(proof.pixel_mean) > FARTHEST_MEAN or proof.pixel_deviation < LEAST_DEVIATION:
        says = (
            f"pictures unlike those that the weights were trained on: mean {proof.pixel_mean:.1f} and standard "
            f"deviation {proof.pixel_deviation:.2f} after normalisation, instead of about 0 and 1"
        )
        causes.append(Cause(says, "Stretch their brightness (of 16-bit pictures, with --white_level)."))
    if missed > MOSTLY:
        says = f"objects too small or too elongated: {missed:.0%} get no anchor at this --min_side and --max_side"
        causes.append(Cause(says, f"Train with {remedy}" if remedy else ""))
    return causes


def part_lines(proof: Proof) -> list[str]:
    """Returns a table of what the network finds in each part."""
    parts = {f"of the {proof.num_trained} trained on": proof.trained, "unseen, of the same set": proof.left_out}
    if proof.val:
        parts[f"of {proof.val.dataset.annotations.path.name}"] = proof.val
    rows = [["images", "", "objects", "z", "z of classes", "AP50", "AP"]]
    for name, part in parts.items():
        numbers = f"{z_found(part):.1f}", f"{z_classes(part):.1f}", f"{part.ap50:.3f}", f"{part.ap:.3f}"
        rows.append([name, str(len(part.dataset)), str(len(part.labels)), *numbers])
    return [f"  {line}" for line in aligned(rows)]


def decision_lines(decision: Decision) -> list[str]:
    """Returns lines with the verdict and its causes, each with its fix, if there is one."""
    lines = [f"Will it learn? {decision.verdict.capitalize()}: {WORDS[decision.verdict]}"]
    for number, cause in enumerate(decision.causes):
        lines.append(f"{'Likely cause' if number == 0 else 'Or'}: {cause.says}")
        if cause.fix:
            lines.append(f"  Fix: {cause.fix}")
    if not decision.causes and decision.verdict not in (LEARNABLE, UNTOLD):
        lines.append(f"No known cause fits. {LOOK}")
    if decision.verdict == UNTOLD:
        lines.append(
            "Hard sets that need more training may end like this, and so may sets with mistakes: look at the pictures"
        )
    return lines
