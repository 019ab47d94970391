import json

import pytest
import torch
from support.built import small_network
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from retinanet.checkpoints.start import build_network, with_saved_network
from retinanet.detector.anchors import DEFAULT_SHAPES
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.errors import UserError
from retinanet.settings.train import train_settings

pytestmark = pytest.mark.usefixtures("narrow_network")
IMAGES = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def random_network(num_classes, shapes=DEFAULT_SHAPES, iou_branch=False):
    network = small_network(num_classes, iou_branch=iou_branch, anchors=shapes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.fixture
def saved(tmp_path):
    """Saves a network of some classes, and returns it and its file."""

    def save(names=("red", "Green", "blue"), shapes=DEFAULT_SHAPES, iou_branch=False, **changes):
        network = random_network(len(names), shapes, iou_branch)
        checkpoint = Checkpoint(
            network.state_dict(), network.architecture, list(names), list(range(len(names))), 64, 96, 2, 3, {}
        )
        save_checkpoint(checkpoint._replace(**changes), tmp_path / "earlier.pt")
        return network, tmp_path / "earlier.pt"

    return save


def started(path, names, *flags):
    settings = train_settings(list(map(str, ("--weights", path, *flags))))
    return build_network(with_saved_network(settings, None).network, names, None).network


def test_the_same_classes_predict_the_same(saved, capfd):
    network, path = saved()
    again = started(path, ["red", "Green", "blue"]).eval()
    assert all(torch.equal(one, other) for one, other in zip(network(IMAGES), again(IMAGES), strict=True))
    out = capfd.readouterr().out
    assert f"Checkpoint weights: loaded from {path}" in out
    assert "Classes that keep their weights: red, Green, blue\nClasses that start from scratch: none" in out


def test_classes_of_the_same_name_keep_their_rows_wherever_they_are(saved, capfd):
    network, path = saved()
    again = started(path, ["horse", "green", "red"]).eval()
    old, new = network(IMAGES), again(IMAGES)
    assert torch.equal(old.deltas, new.deltas)
    assert torch.equal(new.logits[..., 1], old.logits[..., 1])
    assert torch.equal(new.logits[..., 2], old.logits[..., 0])
    assert new.logits[..., 0].sigmoid().allclose(torch.tensor(0.01))  # --prior
    out = capfd.readouterr().out
    assert "Classes that keep their weights: green, red\nClasses that start from scratch: horse" in out


def test_the_averaged_weights_are_taken_where_there_are_any(saved):
    average = random_network(1)
    _, path = saved(["red"], ema=average.state_dict())
    assert torch.equal(started(path, ["red"]).eval()(IMAGES).logits, average(IMAGES).logits)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--anchor_scale", 2), r"--anchor_scale 3, not 2\. Use --anchor_scale 3"),
        (("--anchor_scale", 4), r"--anchor_scale 3, not 4\. Use --anchor_scale 3"),  # given, though the default
        (("--anchor_ratios", 1), r"--anchor_ratios 0\.5 2, not 1\. Use --anchor_ratios 0\.5 2"),
        (("--anchor_octaves", 3), r"--anchor_octaves 2, not 3\. Use"),
        (
            ("--depth", 34, "--channels", 16, "--iou_branch", "--anchor_scale", 2),
            r"--depth 18, not 34, and with --channels 8, not 16, and with --anchor_scale 3, not 2, and with "
            r"--no_iou_branch, not --iou_branch\. Use --depth 18 --channels 8 --anchor_scale 3 --no_iou_branch, or",
        ),
        (("--channels", 16), r"--channels 8, not 16\. Use --channels 8"),
        (("--head_norm", "group", "--channels", 32), "--channels 8, not 32"),
        (("--depth", 34), r"--depth 18, not 34\. Use --depth 18, or other --weights"),
    ],
)
def test_another_network_is_refused_with_both_values(saved, flags, words):
    _, path = saved(shapes=AnchorShapes(3, (0.5, 2.0), (1.0, 2**0.5)))
    with pytest.raises(UserError, match=rf"earlier\.pt: was trained with .*{words}"):
        started(path, ["red"], *flags)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--recipe", "strong"),  # its IoU branch is a default
        ("--anchor_scale", 3, "--anchor_ratios", 0.5, 2, "--anchor_octaves", 2, "--depth", 18, "--channels", 8),
    ],
)
def test_the_checkpoints_network_is_kept(saved, capfd, flags):
    network, path = saved(shapes=AnchorShapes(3, (0.5, 2.0), (1.0, 2**0.5)))
    again = started(path, ["red", "Green", "blue"], *flags).eval()
    assert torch.equal(again(IMAGES).logits, network(IMAGES).logits)
    taken = (
        f"Network: as in {path}, --depth 18 --channels 8 --head_norm none --anchor_scale 3 --anchor_ratios 0.5 2 "
        "--anchor_octaves 2 --no_iou_branch\n"
    )
    assert (taken in capfd.readouterr().out) == ("--anchor_scale" not in flags)


def test_anchors_that_no_flag_describes_are_refused(saved):
    _, path = saved(shapes=AnchorShapes(3, (0.5, 2.0), (1.0, 1.3)))
    with pytest.raises(UserError, match=r"trained with --anchor_octaves 2 \(of sizes 1\.0 1\.3\), not 2"):
        started(path, ["red"])


def test_an_iou_branch_is_kept_and_asked_for(saved, tmp_path):
    network, path = saved(iou_branch=True)
    assert load_checkpoint(path).architecture.iou_branch
    again = started(path, ["red", "Green", "blue"]).eval()
    assert network(IMAGES).deltas.shape[2] == 5
    assert torch.equal(network(IMAGES).deltas, again(IMAGES).deltas)
    with pytest.raises(UserError, match=r"was trained with --iou_branch, not --no_iou_branch\. Use --iou_branch"):
        started(path, ["red"], "--no_iou_branch")
    _, path = saved()
    with pytest.raises(UserError, match=r"was trained with --no_iou_branch, not --iou_branch\. Use --no_iou_branch"):
        started(path, ["red"], "--iou_branch")


def test_broken_weights_are_refused(saved, tmp_path):
    network, path = saved()
    weights = network.state_dict() | {"pyramid.lateral3.bias": torch.full((8,), torch.nan)}
    save_checkpoint(load_checkpoint(path)._replace(model=weights), path)
    with pytest.raises(UserError, match=r"earlier\.pt: holds weights that are not finite"):
        started(path, ["red"])


def test_a_training_starts_from_a_checkpoint_and_resumes(script, coco_path, tmp_path):
    flags = ("--coco_path", coco_path, *TINY, "--workers", 0, "--epochs", 1)
    assert script("train", *flags, "--output_path", tmp_path / "first").code == 0
    path = tmp_path / "first" / "model_final.pt"
    tuned = ("--coco_path", coco_path, *TINY[6:], "--workers", 0, "--epochs", 1, "--weights", path)
    tuned = (*tuned, "--freeze_stages", 5, "--output_path", tmp_path / "second")
    done = script("train", *tuned)
    assert done.code == 0, done.err
    assert "Classes that keep their weights: red, green" in done.out
    record = json.loads((tmp_path / "second" / "run.json").read_text())["settings"]
    assert (record["depth"], record["channels"]) == (18, 16)
    first, second = (load_checkpoint(tmp_path / name / "model_final.pt") for name in ("first", "second"))
    backbones = [build_model(one, path).backbone.state_dict() for one in (first, second)]
    assert all(torch.equal(value, backbones[1][name]) for name, value in backbones[0].items())
    assert not torch.equal(*(one.model["regression_head.output.weight"] for one in (first, second)))
    path.unlink()  # a resumed run has its own weights, and its own network
    resumed = script("train", *tuned, "--epochs", 2, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Resumed from" in resumed.out
    refused = script("train", *tuned, "--epochs", 2, "--resume", "--depth", 34, "--channels", 32, "--seed", 1)
    assert refused.code == 2
    both = "its run has --depth 18, this command has 34; its run has --channels 16, this command has 32; its run has"
    assert f"{both} --seed 3407, this command has 1, which changes the numbers" in refused.err
    assert "Use the same values, or start a new run" in refused.err
