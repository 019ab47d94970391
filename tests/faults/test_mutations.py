"""Random damage to any file that is read leads to a clear error or a sound result, never to anything else."""

import io
import json
import os
import re
import zipfile
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import logs
from support.exports import cvats_xml, labelme
from support.length import IS_LONG

from retinanet.check_data.annotation_checks import check_set
from retinanet.check_data.counts import count, histograms, reach
from retinanet.check_data.findings import FINDING_KINDS, Findings
from retinanet.check_data.text import histogram_lines, reach_lines
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import read_annotations
from retinanet.coco.results import load_results
from retinanet.commands.convert import convert
from retinanet.data.anchor_coverage import AnchorSetup, coverage
from retinanet.data.anchor_remedies import remedies
from retinanet.data.batches import Sample
from retinanet.data.dataset import CocoDataset
from retinanet.data.images import read_image
from retinanet.detector.anchors import DEFAULT_SHAPES
from retinanet.detector.settings import DEFAULT_LOSS
from retinanet.reports.log_reader import read_log
from retinanet.runtime.errors import UserError
from retinanet.settings.convert import WRITTEN, ConvertSettings
from retinanet.settings.options import flat
from retinanet.settings.shared import TrainTiles
from retinanet.settings.train import TrainSettings, recorded_values

CASES = settings(
    max_examples=int(os.environ.get("MUTATIONS", 3000 if IS_LONG else 100)),
    deadline=10_000,  # ms: a hang is a failure
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.sampled_from(
    [
        *(
            None,
            True,
            -1,
            0,
            1e308,
            float("nan"),
            float("inf"),
            2**63,
            -(2**70),
            "",
            "x",
            "1",
            "../../x",
            "/etc/passwd",
        ),
        *("a\0b", [], {}, [1], {"id": 1}, [1e400, 1, 1, 1], [0, 0, -5, 5], [1, 2, 3], ["1", "2", "3", "4"]),
    ]
)


def content():
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2, 3)]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0} for i in (1, 2)
    ]
    return {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def places(value, path=()):
    """Yields the path of each value in nested JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def damaged_json(draw):
    """Draws the text of an annotation file with up to 3 values exchanged, removed or doubled, or with bytes changed."""
    damaged = content()
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from([path for path in places(damaged) if path]))
        holder = damaged
        for step in path:
            holder = holder[step]
        match draw(st.sampled_from(["exchange", "remove", "double"])):
            case "exchange":
                holder[key] = deepcopy(draw(ODD))  # a later change may be inside it
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(deepcopy(holder[key]))
    text = json.dumps(damaged).encode()
    if draw(st.integers(0, 3)) == 0:
        text = draw(damaged_bytes(text))
    return text


@st.composite
def damaged_bytes(draw, original):
    damaged = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(damaged) - 1, 0)))
        match draw(st.sampled_from(["flip", "cut", "zero", "insert"])):
            case "flip" if damaged:
                damaged[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del damaged[place:]
            case "zero":
                damaged[place : place + 16] = bytes(len(damaged[place : place + 16]))
            case "insert":
                damaged[place:place] = draw(st.binary(max_size=8))
    return bytes(damaged)


ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "gb18030", "cp932", "utf-7")
ODD_WORDS = (
    *("", "-1", "0", "1e308", "1e-320", "nan", "inf", "NaN", "Infinity", "1" * 400, "0x10", "1_0", "\u0663", "1 2 3 4"),
    *("null", "true", "\0", "\ud800", "\u2028", "猫", "../../x", "/x", '"', "'", "<", "&", "&b;", "]]>", "{", "["),
    *(
        "<!DOCTYPE a>",
        "<?xml encoding='hex'?>",
        "*a",
        "&a 1",
        "!!int x",
        "- ",
        ": ",
        ",",
        ",,,,,",
        "\n",
        "\r",
        "\t",
        "#",
    ),
)


@st.composite
def damaged_text(draw, text):
    """Draws the bytes of a text file with words exchanged or replaced, in another encoding, or with bytes changed."""
    for _ in range(draw(st.integers(0, 3))):
        words = [match.span() for match in re.finditer(r"[\w.+-]+", text)]
        if words:
            start, end = draw(st.sampled_from(words))
            first, last = draw(st.sampled_from(words))
            new = draw(st.one_of(st.just(text[first:last]), st.sampled_from(ODD_WORDS)))
            text = text[:start] + new + text[end:]
    content = text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", *ENCODINGS))), errors="replace")
    return draw(damaged_bytes(content)) if draw(st.booleans()) else content


def caught(read):
    """Returns the UserError that `read` raises, or None."""
    try:
        read()
    except UserError as refused:
        return refused


def names_the_file(refused, path):
    assert str(path) in str(refused)


@CASES
@given(text=damaged_json())
def test_damaged_annotation_files(tmp_path, text):
    folder = tmp_path / "images"
    if not folder.exists():
        folder.mkdir()
        for number in (1, 2, 3):
            Image.new("RGB", (40, 30)).save(folder / f"{number}.png")
    path = tmp_path / "train.json"
    path.write_bytes(text)
    try:
        dataset = CocoDataset(load_annotations(path), folder, 64, 96)
        samples = [dataset[index] for index in range(len(dataset))]
    except UserError as refused:
        names_the_file(refused, path)
        return
    for index, sample in enumerate(samples):
        assert Path(os.path.abspath(dataset.path(index))).is_relative_to(folder)
        if isinstance(sample, Sample):
            boxes = sample.boxes
            assert boxes.isfinite().all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert ((sample.labels >= 0) & (sample.labels < len(dataset.annotations.class_names))).all()


@CASES
@given(text=damaged_json())
def test_a_check_of_damaged_files_finds_what_training_refuses_first(tmp_path, text):
    path, findings = tmp_path / "train.json", Findings()
    path.write_bytes(text)
    flags = {"min_side": 64, "max_side": 96, "max_pixels": 10_000, "anchor_shapes": DEFAULT_SHAPES}
    flags |= {"tiling": TrainTiles(), "exif": "upright", "white_level": 65535}
    refusal = caught(lambda: read_annotations(path))
    try:
        checked = check_set("train", path, tmp_path, is_trained_on=True, findings=findings, **flags)
    except UserError as refused:  # there is nothing to check
        names_the_file(refused, refusal.args[0])
        return
    first, examples = {}, []
    for finding in findings.of(is_mistake=True):
        first[finding.kind] = finding.examples[0]
        examples += [f"{path}: {example}" for example in finding.examples]
    if refusal is None:
        refused = {kind for kind in first if "training refuses" in FINDING_KINDS[kind].says}
        assert refused <= {"nothing_to_learn", "nothing_reached"}  # of the whole set, which reading doesn't check
    else:
        assert str(refusal) in examples
        assert refusal.kind in first
    counts = count("train", checked.dataset)
    assert sum(counts.class_objects.values()) == checked.dataset.is_learned.sum()
    assert sum(len(lines) for lines in map(histogram_lines, histograms([counts]))) > 3
    setup = AnchorSetup(64, 96)
    now = coverage(checked.dataset, setup)
    assert reach_lines(reach(now, checked.dataset, setup), "train")
    assert all(remedy.coverage.missed < 1 for remedy in remedies(checked.dataset, setup, DEFAULT_LOSS, now))


def picture(kind):
    file = io.BytesIO()
    image = Image.effect_noise((40, 30), 60).convert("P" if kind == "GIF" else "RGB")
    image.save(file, kind)
    return file.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@CASES
@given(data=st.data(), kind=st.sampled_from(sorted(PICTURES)))
@pytest.mark.filterwarnings("ignore")
def test_damaged_images(tmp_path, data, kind):
    path = tmp_path / "image"
    path.write_bytes(data.draw(damaged_bytes(PICTURES[kind])))
    try:
        image = read_image(path, (30, 40), max_pixels=10_000)
    except UserError as refused:
        names_the_file(refused, path)
    else:
        assert (image.dtype, image.shape) == (np.uint8, (30, 40, 3))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(UserError, match="not a regular file"):
        read_image(tmp_path / "image.png", (30, 40))


XML = """<?xml version="1.0" encoding="UTF-8"?>
<annotation>
<filename>1.png</filename>
<size><width>40</width><height>30</height></size>
<object>
<name>cat</name>
<difficult>0</difficult>
<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
</object>
</annotation>
"""
SETS = {
    "yolo": {
        "data.yaml": "path: .\ntrain: images/train\nval: val.txt\nnc: 2\nnames:\n  0: cat\n  1: dög\n",
        "val.txt": "images/train/1.png\n",
        "labels/train/1.txt": "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.2\n",
    },
    "voc": {
        "Annotations/1.xml": XML,
        "ImageSets/Main/train.txt": "1\n",
        "labels.txt": "cat\ndög\n",
    },
    "csv": {
        "train.csv": "1.png,2,3,20,30,cat\n1.png,5,5,9,9,dög\n",
        "val.csv": 'image_id,width,height,bbox,class\n1,40,30,"[2, 3, 18, 27]",cat\n',
        "classes.csv": "cat,0\ndög,1\n",
    },
    "cvat": {"annotations.xml": cvats_xml("1.png").replace("64", "40").replace("48", "30")},
    "labelme": {"1.json": labelme("1.png").replace("64", "40").replace("48", "30")},
    "coco": {"train.json": json.dumps({**content(), "images": content()["images"][:1], "annotations": []})},
}
FILES = [(kind, name) for kind, files in SETS.items() for name in files]
IMAGES = {"yolo": "images/train/1.png", "voc": "JPEGImages/1.png", "coco": "images/train/1.png"}


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@CASES
@given(data=st.data(), file=st.sampled_from(FILES), target=st.sampled_from(WRITTEN))
def test_converting_damaged_files(data, file, target):
    kind, damaged = file
    with TemporaryDirectory() as name:
        source, output = Path(name) / "source", Path(name) / "output"
        for path, text in SETS[kind].items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            content = data.draw(damaged_text(text)) if path == damaged else text.encode()
            (source / path).write_bytes(content)
        image = source / IMAGES.get(kind, "1.png")
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(PICTURES["PNG"])
        before = files_in(source)
        with redirect_stdout(io.StringIO()):
            refused = caught(lambda: convert(ConvertSettings(source, output, read=kind, write=target)))
        assert files_in(source) == before
        assert not list(output.rglob("*.part"))
        if refused:
            names_the_file(refused, source)
            assert not output.exists()


@CASES
@given(data=st.data(), is_zipped=st.booleans())
def test_damaged_result_files(tmp_path, data, is_zipped):
    path, set_path = tmp_path / f"rows.{'zip' if is_zipped else 'json'}", tmp_path / "val.json"
    set_path.write_text(json.dumps(content()))
    rows = [{"image_id": number, "category_id": 1, "bbox": [1, 2, 3.5, 4], "score": 0.5} for number in (1, 2)]
    damaged = data.draw(damaged_text(json.dumps(rows)))
    if is_zipped:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.json", damaged)
        damaged = data.draw(damaged_bytes(file.getvalue()))
    path.write_bytes(damaged)
    annotations = read_annotations(set_path)
    try:
        detections = load_results(path, annotations)
    except UserError as refused:
        names_the_file(refused, path)
    else:
        assert np.isfinite(detections.boxes).all()
        assert ((detections.scores >= 0) & (detections.scores <= 1)).all()


@CASES
@given(data=st.data())
def test_damaged_logs(tmp_path, data):
    path = tmp_path / "train_depth18.log"
    path.write_bytes(data.draw(damaged_text(logs.todays())))
    refused = caught(lambda: read_log(path))
    if refused:
        names_the_file(refused, path)


RECORD = json.dumps({"settings": json.loads(json.dumps(flat(TrainSettings()), default=str))}, indent=1)


@CASES
@given(data=st.data())
def test_damaged_records_of_runs(tmp_path, data):
    path = tmp_path / "run.json"
    path.write_bytes(data.draw(damaged_text(RECORD)))
    refused = caught(lambda: recorded_values(path))
    if refused:
        names_the_file(refused, path)
