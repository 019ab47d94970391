import pytest
import torch

from retinanet.anchors import anchors_for
from retinanet.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from retinanet.detect import detect
from retinanet.errors import UserError
from retinanet.model import RetinaNet


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(1)
    model = RetinaNet(2, 18, channels=8)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return Checkpoint(
        model=model.state_dict(),
        depth=18,
        channels=8,
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
    model = RetinaNet(2, 18, channels=8)
    model.load_state_dict(checkpoint.model)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        again = build_model(loaded, tmp_path / "x.pt").eval()(images)
        for one, other in zip(model.eval()(images), again, strict=True):
            assert torch.equal(one, other)


def test_rebuilds_a_model_of_other_heads(checkpoint, tmp_path):
    model = RetinaNet(2, 18, channels=32, head_norm="group", level_code=True).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value += 0.01 * torch.rand_like(value)
    facts = {"channels": 32, "head_norm": "group", "level_code": True}
    save_checkpoint(checkpoint._replace(model=model.state_dict(), **facts), tmp_path / "x.pt")
    again = build_model(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    anchors, sizes = anchors_for(64, 64, torch.device("cpu")), torch.tensor([[64, 64]] * 2)
    with torch.no_grad():
        found, wanted = (detect(one(images), anchors, sizes, threshold=0.0) for one in (again, model))
    assert all(map(torch.equal, found, wanted))
    for broken in ({"head_norm": "none"}, {"level_code": False}):
        with pytest.raises(UserError, match="its weights don't fit"):
            build_model(checkpoint._replace(model=model.state_dict(), **{**facts, **broken}), tmp_path / "x.pt")


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
    save_checkpoint(checkpoint._replace(**changes), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: a checkpoint with parts missing or broken"):
        load_checkpoint(tmp_path / "x.pt")


def test_weights_that_do_not_fit_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"x\.pt: its weights don't fit its depth 34"):
        build_model(checkpoint._replace(depth=34), tmp_path / "x.pt")


def test_weights_that_are_not_finite_are_refused(checkpoint, tmp_path):
    broken = {name: value.clone() for name, value in checkpoint.model.items()}
    broken["backbone.conv1.weight"][0, 0, 0, 0] = float("inf")
    with pytest.raises(UserError, match=r"x\.pt: holds weights that are not finite"):
        build_model(checkpoint._replace(model=broken), tmp_path / "x.pt")
