import json
import os
import resource
import time
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.built import small_network

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, checkpoint_line, load_checkpoint, save_checkpoint
from retinanet.coco.results import rows_of
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import load_set
from retinanet.detector.anchors import AnchorShapes, anchors_for
from retinanet.detector.detect import detect
from retinanet.detector.settings import Architecture, DetectionSettings
from retinanet.evaluation.detect_set import detect_all
from retinanet.runtime.errors import UserError
from retinanet.runtime.log_file import name_of_run
from retinanet.settings.train import settings_line

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(1)
    model = small_network()
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return Checkpoint(
        model=model.state_dict(),
        architecture=model.architecture,
        class_names=["cat", "dog"],
        category_ids=[1, 2],
        min_side=64,
        max_side=96,
        batch_size=2,
        epoch=3,
        settings={"learning_rate": 1e-4},
    )


def test_rebuilds_its_model(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert loaded._replace(model={}) == checkpoint._replace(model={})
    model = small_network()
    model.load_state_dict(checkpoint.model)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        again = build_model(loaded, tmp_path / "x.pt").eval()(images)
        for one, other in zip(model.eval()(images), again, strict=True):
            assert torch.equal(one, other)


def test_rebuilds_a_model_of_other_heads(checkpoint, tmp_path):
    model = small_network(level_code=True, channels=32, head_norm="group").eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value += 0.01 * torch.rand_like(value)
    other = checkpoint._replace(model=model.state_dict(), architecture=model.architecture)
    save_checkpoint(other, tmp_path / "x.pt")
    again = build_model(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    anchors, sizes = anchors_for(64, 64, torch.device("cpu")), torch.tensor([[64, 64]] * 2)
    with torch.no_grad():
        found, wanted = (
            detect(one(images), anchors, sizes, DetectionSettings(threshold=0.0)) for one in (again, model)
        )
    assert all(map(torch.equal, found, wanted))
    for broken in ({"head_norm": "none"}, {"level_code": False}):
        with pytest.raises(UserError, match="its weights don't fit"):
            build_model(other._replace(architecture=model.architecture._replace(**broken)), tmp_path / "x.pt")


def test_files_from_before_there_were_other_heads_load(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    content = torch.load(tmp_path / "x.pt")
    for name in Checkpoint._field_defaults:
        del content[name]
    torch.save(content, tmp_path / "older.pt")
    loaded = load_checkpoint(tmp_path / "older.pt")
    assert loaded._replace(model={}) == checkpoint._replace(model={})
    build_model(loaded, tmp_path / "older.pt")
    torch.save({**content, "unknown": 1}, tmp_path / "newer.pt")
    with pytest.raises(UserError, match=r"newer\.pt: a checkpoint with parts missing or broken"):
        load_checkpoint(tmp_path / "newer.pt")


def test_a_place_that_can_not_be_written_to(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"none/x\.pt: can't be written"):
        save_checkpoint(checkpoint, tmp_path / "none" / "x.pt")


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"format": "retinanet 1"}, {"format": "other", "model": {}}])
def test_other_files_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: "):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": torch.tensor([18, 18])},
        {"depth": 19},
        {"channels": "x"},
        {"channels": 16.0},
        {"class_names": 5},
        {"class_names": ["red"]},
        {"category_ids": None},
        {"category_ids": [[1], [2]]},
        {"category_ids": [1, 1]},
        {"min_side": None},
        {"min_side": 0},
        {"min_side": 97},
        {"batch_size": -1},
        {"head_norm": "batch"},
        {"head_norm": ["none"]},
        {"head_norm": "group"},
        {"level_code": 1},
        {"model": [1]},
        {"model": {"a": 1}},
    ],
    ids=str,
)
def test_parts_of_another_kind_are_refused(checkpoint, tmp_path, changes):
    saved(checkpoint, tmp_path / "x.pt", **changes)
    with pytest.raises(UserError, match=r"x\.pt: a checkpoint with parts missing or broken"):
        load_checkpoint(tmp_path / "x.pt")


def test_weights_that_do_not_fit_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"x\.pt: its weights don't fit its depth 34"):
        build_model(checkpoint._replace(architecture=Architecture(34, 8)), tmp_path / "x.pt")


def test_weights_that_are_not_finite_are_refused(checkpoint, tmp_path):
    broken = {name: value.clone() for name, value in checkpoint.model.items()}
    broken["backbone.conv1.weight"][0, 0, 0, 0] = float("inf")
    with pytest.raises(UserError, match=r"x\.pt: holds weights that are not finite"):
        build_model(checkpoint._replace(model=broken), tmp_path / "x.pt")


def saved(checkpoint, path, **changes):
    """A file of `checkpoint` in which some parts are exchanged for whatever."""
    save_checkpoint(checkpoint, path)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


@pytest.mark.parametrize(
    "anchors",
    [
        None,
        {},
        [4, [1.0], [1.0]],
        {"side": 4, "ratios": [1.0]},
        {"side": 4, "ratios": [1.0], "scales": []},
        {"side": "4", "ratios": [1.0], "scales": [1.0]},
        {"side": True, "ratios": [1.0], "scales": [1.0]},
        {"side": 4, "ratios": 1.0, "scales": [1.0]},
        {"side": 0, "ratios": [1.0], "scales": [1.0]},
        {"side": 4, "ratios": [-1.0], "scales": [1.0]},
        {"side": 4, "ratios": [float("nan")], "scales": [1.0]},
        {"side": 4, "ratios": [1.0], "scales": [float("inf")]},
        {"side": 4, "ratios": [[1.0]], "scales": [1.0]},
        {"side": 10**400, "ratios": [1.0], "scales": [1.0]},
        {"side": 4, "ratios": [1.0] * 10**4, "scales": [1.0] * 10**4},
    ],
    ids=lambda anchors: str(anchors)[:60],
)
def test_anchors_that_no_network_has_are_refused(checkpoint, tmp_path, anchors):
    with pytest.raises(UserError, match=r"x\.pt: a checkpoint with parts missing or broken \(anchors\)"):
        load_checkpoint(saved(checkpoint, tmp_path / "x.pt", anchors=anchors))


def test_anchors_of_another_number_do_not_fit_the_weights(checkpoint, tmp_path):
    path = saved(checkpoint, tmp_path / "x.pt", anchors={"side": 4, "ratios": [1.0], "scales": [1.0]})
    with pytest.raises(UserError, match=r"x\.pt: its weights don't fit its .* 2 classes and 1 anchor per cell"):
        build_model(load_checkpoint(path), path)


@pytest.mark.parametrize("shapes", [AnchorShapes(3), AnchorShapes(5, (0.4, 1.0), (1.0, 1.5))], ids=str)
def test_a_checkpoint_of_other_anchors_tests_with_its_own(checkpoint, script, coco_path, tmp_path, shapes):
    torch.manual_seed(2)
    model = small_network(anchors=shapes)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    kept = checkpoint._replace(model=model.state_dict(), class_names=["red", "green"], architecture=model.architecture)
    save_checkpoint(kept, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").architecture.anchors == shapes
    _, dataset = load_set(coco_path, "test", min_side=64, max_side=96, max_pixels=10**6)
    plan = {"loading": LoaderSettings(2), "device": torch.device("cpu"), "detection": DetectionSettings(threshold=0.0)}
    wanted = rows_of(detect_all(model.eval(), dataset, **plan), dataset.annotations)
    assert len(wanted) > 20
    flags = ("--coco_path", coco_path, "--checkpoint_path", tmp_path / "x.pt", "--results_path", tmp_path / "rows.json")
    done = script("test", *flags, "--threshold", 0, "--workers", 0, "--device", "cpu")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "rows.json").read_text()) == wanted
    model.architecture = model.architecture._replace(anchors=AnchorShapes(shapes.side + 1, *shapes[1:]))
    assert rows_of(detect_all(model, dataset, **plan), dataset.annotations) != wanted


def laughs():
    content = [1] * 10
    for _ in range(5):
        content = [content] * 10
    return content


HOSTILE = {
    "6000 channels": {"channels": 6000},
    "10^9 channels": {"channels": 10**9},
    "10^9 channels of nothing": {
        "channels": 10**9,
        "model": {"pyramid.output7.weight": torch.zeros(10**9, 0, 1, 1)},
    },
    "2^62 channels": {"channels": 2**62},
    "10^400 channels": {"channels": 10**400},
    "many classes": {"class_names": ["cat"] * 10**5, "category_ids": list(range(10**5))},
    "one long name": {"class_names": ["cat" * 10**5] * 1000, "category_ids": list(range(1000))},
    "no text": {"class_names": ["cat", "\ud800"]},
    "depth 152": {"depth": 152},
    "min_side 10^6": {"min_side": 10**6, "max_side": 10**6},
    "max_side 10^400": {"max_side": 10**400},
    "batch_size 10^400": {"batch_size": 10**400},
    "epoch 10^5000": {"epoch": 10**5000},
    "id 10^5000": {"category_ids": [1, 10**5000]},
    "settings that nest": {"settings": {"milestones": laughs()}},
    "settings of a dict": {"settings": {"a": {"b": 1}}},
    "settings of long texts": {"settings": {str(number): "x" * 10**6 for number in range(100)}},
    "settings of a long number": {"settings": {"seed": 10**5000}},
    "settings by number": {"settings": {1: 2}},
    "weights by number": {"model": {1: torch.zeros(1)}},
    "no weights": {"model": {}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_checkpoint_states_is_not_believed(checkpoint, tmp_path, kind):
    changes = dict(HOSTILE[kind])
    path = saved(checkpoint, tmp_path / "x.pt", **changes)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=r"x\.pt: ") as refused:
        build_model(load_checkpoint(path), path)
    assert len(str(refused.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.process_time() - started < 10


ODD = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 10**9, 2**64, -(10**30), 0.5, float("nan"), float("inf"), "", "x", "\ud800"),
        *([], {}, (), [1], ["a"], [[1]], {"a": 1}, {1: "a"}, torch.zeros(1), torch.zeros(0, 10**9)),
    ]
)


def names_the_file(refused, path):
    assert str(path) in str(refused)


@settings(
    max_examples=int(os.environ.get("MUTATIONS", 20)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_damage_ends_in_a_message_or_a_model(checkpoint, tmp_path, data):
    save_checkpoint(checkpoint, tmp_path / "x.pt")
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(content)))
        holder = content
        while isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
            holder = holder[key]
            key = data.draw(st.sampled_from(sorted(holder, key=str)))
        if data.draw(st.booleans()):  # copies, because the next round may change what this one put in
            holder[key] = deepcopy(data.draw(ODD))
        elif data.draw(st.booleans()):
            holder[data.draw(st.sampled_from(["x", *content]))] = deepcopy(data.draw(ODD))
        else:
            del holder[key]
        if not content:
            break
    torch.save(content, tmp_path / "x.pt")
    try:
        loaded = load_checkpoint(tmp_path / "x.pt")
        settings_line(loaded.settings)
        checkpoint_line(loaded, tmp_path / "x.pt", averaged=True)
        name_of_run("test", loaded.settings)
        model = build_model(loaded, tmp_path / "x.pt", averaged=True)
    except UserError as refused:
        names_the_file(refused, tmp_path / "x.pt")
    else:
        images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        assert model.eval()(images).logits.shape[2] == len(loaded.class_names)
