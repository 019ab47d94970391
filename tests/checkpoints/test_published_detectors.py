"""Compares networks that are loaded from published state dicts with twins of the published networks."""

import pytest
import torch
from support.built import small_network
from support.length import IS_LONG
from support.published import Odtk, Torchvision, Yhenon, randomised
from support.scripts import TINY

from retinanet.checkpoints.checkpoint import (
    Checkpoint,
    build_model,
    load_checkpoint,
    save_as_safetensors,
    save_checkpoint,
)
from retinanet.checkpoints.pretrained_detector import architecture_of, categories, load_detector
from retinanet.checkpoints.published_detectors import recognised
from retinanet.checkpoints.start import build_network, with_saved_network
from retinanet.checkpoints.state_dicts import state_in
from retinanet.detector.anchors import DEFAULT_SHAPES, anchors_for
from retinanet.detector.boxes import clip, decode
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.errors import UserError
from retinanet.settings.train import train_settings

DRAWS = 100 if IS_LONG else 1
CPU = torch.device("cpu")
COCO = [name for name in categories() if name not in ("__background__", "N/A")]
ROWS_OF_COCO = [row for row, name in enumerate(categories()) if name in COCO]


def loaded_from(content, names=COCO, shapes=DEFAULT_SHAPES):
    """Builds the network that fits `content`, the content of a file, and fills it."""
    detector = recognised(state_in(content, "file.pth"), content, "file.pth")
    network = RetinaNet(architecture_of(detector, shapes, "file.pth"), len(names)).eval()
    return network, load_detector(network, names, detector, "file.pth")


@torch.no_grad()
def outputs_of(network, images):
    """Returns the scores [A, C] and boxes [A, 4] of a network, in the order of its anchors."""
    logits, deltas = network.double()(images)
    height, width = images.shape[2:]
    boxes = decode(deltas, anchors_for(height, width, CPU, network.architecture.anchors).double())
    return logits[0].sigmoid(), clip(boxes, torch.tensor([[height, width]]))[0]


def in_our_order(values, kinds):
    """Sorts the anchors of each cell by ratio, then by size, as ours are."""
    order = sorted(range(len(kinds)), key=kinds.__getitem__)
    return values.unflatten(0, (-1, len(kinds)))[:, order].flatten(0, 1)


def images_of(seed, height=128, width=256):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=draw)


def compared(twin, content, images, rows=slice(None)):
    """Returns the largest difference of scores, and our boxes and the twin's."""
    network, _ = loaded_from(content)
    scores, boxes = outputs_of(network, images)
    their_scores, their_boxes = (in_our_order(values, twin.kinds) for values in twin.outputs(images))
    assert their_scores.std() > 0.02  # random weights, so that an anchor in another's place would be seen
    assert (their_boxes.diff(dim=0).abs() > 1e-2).any(dim=1).float().mean() > 0.5
    return (scores - their_scores[:, rows]).abs().max().item(), boxes, their_boxes


@pytest.mark.parametrize("seed", range(DRAWS))
def test_yhenons_scores_and_boxes(seed):
    twin = randomised(Yhenon(), seed)
    difference, boxes, wanted = compared(twin, twin.state_dict(), images_of(seed, 64, 160))
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1e-3
    assert not loaded_from(twin.state_dict())[0].architecture.level_code


@pytest.mark.parametrize("seed", range(DRAWS))
@pytest.mark.parametrize("rounded", [False, True])
def test_odtks_scores_and_boxes(seed, rounded):
    twin = randomised(Odtk(rounded=rounded), seed)
    difference, boxes, wanted = compared(twin, twin.checkpoint(), images_of(seed))
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1 + 1e-3
    # In its result files, a box is x2 - x1 + 1 wide. (Boxes beyond an edge are clipped to a pixel there, here to none.)
    wanted[:, 2:] += 1
    inside = (boxes[:, 2:] >= 1).all(dim=1) & (boxes[:, :2] <= torch.tensor([255, 127])).all(dim=1)
    assert inside.sum() > 100
    assert (boxes - wanted)[inside].abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(DRAWS))
@pytest.mark.parametrize(("version", "frozen"), [(1, False), (1, True), (2, False)])
def test_torchvisions_scores_and_boxes(seed, version, frozen):
    twin = randomised(Torchvision(version, frozen=frozen), seed)
    difference, boxes, wanted = compared(twin, twin.state_dict(), images_of(seed), ROWS_OF_COCO)
    assert difference < 1e-6
    assert (boxes - wanted).abs().max() < 1e-3


def test_odtk_files_with_other_anchors():
    twin = randomised(Odtk(), 0)
    twin.ratios, twin.scales = [2.0, 0.25, 1.0], [6.0, 3.0, 4.0]
    twin.kinds = [(ratio, scale) for scale in twin.scales for ratio in twin.ratios]
    shapes = AnchorShapes(3.0, (0.25, 1.0, 2.0), (1.0, 4 / 3, 2.0))
    network, _ = loaded_from(twin.checkpoint(), shapes=shapes)
    images = images_of(0)
    scores, boxes = outputs_of(network, images)
    wanted_scores, wanted = (in_our_order(values, twin.kinds) for values in twin.outputs(images))
    assert (scores - wanted_scores).abs().max() < 1e-6
    assert (boxes - wanted).abs().max() < 1 + 1e-3


def test_anchors_in_another_order_of_ours():
    """--anchor_ratios may be in any order."""
    twin = randomised(Odtk(), 0)
    scores, boxes = outputs_of(loaded_from(twin.checkpoint())[0], images_of(0))
    other, _ = loaded_from(twin.checkpoint(), shapes=DEFAULT_SHAPES._replace(ratios=(2.0, 0.5, 1.0)))
    other_scores, other_boxes = outputs_of(other, images_of(0))
    rows = torch.arange(9).view(3, 3)[[1, 2, 0]].flatten()
    for values, other_values in ((scores, other_scores), (boxes, other_boxes)):
        assert torch.allclose(values, other_values.unflatten(0, (-1, 9))[:, rows].flatten(0, 1), atol=1e-4)


def started(path, *flags, names=("cat", "red")):
    settings = train_settings(["--weights", str(path), "--depth", "18", *map(str, flags)]).network
    return build_network(settings, list(names), None).network


TWINS = {
    "yhenon": (Yhenon, "a RetinaNet from yhenon's pytorch-retinanet", 16),
    "ODTK": (Odtk, "a RetinaNet from NVIDIA's ODTK", 16),
    "torchvision": (lambda: Torchvision(1), "a torchvision RetinaNet", 256),
}


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        *((kind, lambda state: state) for kind in TWINS),
        ("ODTK", lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}),
        ("yhenon", lambda state: {f"model.net.{name}": value for name, value in state.items()}),
    ],
)
def test_a_file_is_recognised_behind_any_prefix(kind, wrap, tmp_path, capsys):
    build, words, channels = TWINS[kind]
    twin = build()
    torch.save(wrap(twin.state_dict()), tmp_path / "detector.pth")
    network = started(tmp_path / "detector.pth", "--channels", channels)
    out = capsys.readouterr().out
    assert f"Detector weights: loaded from {tmp_path / 'detector.pth'}\nClasses that keep their weights: cat\n" in out
    assert f"Recognised as {words}" in out
    assert ("edges that its decoder returns are one pixel smaller" in out) == (kind == "ODTK")
    body = {"yhenon": twin, "ODTK": getattr(twin, "backbones", {"ResNet18FPN": twin})["ResNet18FPN"]}.get(kind)
    body = twin.backbone.body if kind == "torchvision" else getattr(body, "features", body)
    assert torch.equal(network.backbone.layer4[1].conv2.weight, body.layer4[1].conv2.weight)


def test_of_two_detectors_in_a_file_the_teacher_is_loaded():
    twins = {"student": randomised(Yhenon(num_classes=2), 0), "teacher": randomised(Yhenon(num_classes=2), 1)}
    content = {f"{role}.{name}": value for role, twin in twins.items() for name, value in twin.state_dict().items()}
    network, _ = loaded_from(content, ["cat", "red"])
    assert torch.equal(network.backbone.conv1.weight, twins["teacher"].conv1.weight)


def test_a_bare_state_dict_of_this_project_loads(tmp_path, capsys):
    saved = small_network(2, channels=16, random_outputs=True, iou_branch=True).eval()
    torch.save(saved.state_dict(), tmp_path / "bare.pth")
    network = started(tmp_path / "bare.pth", "--channels", 16, "--iou_branch").eval()
    assert all(map(torch.equal, network(images_of(0)), saved(images_of(0))))
    assert "assumed to be in the same order: cat, red" in capsys.readouterr().out
    coded = small_network(2, channels=16, level_code=True)
    coded.level_shift.normal_()
    torch.save(coded.state_dict(), tmp_path / "coded.pth")
    assert torch.equal(started(tmp_path / "coded.pth", "--channels", 16).level_shift, coded.level_shift)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--depth", 34, "--channels", 16), r"is a detector with --depth 18, not 34\. Use --depth 18"),
        ((), r"is a detector with --channels 16, not 256\. Use --channels 16"),
        (("--channels", 32, "--head_norm", "group"), r"not 32\. Use --channels 16 --head_norm none"),
        (("--channels", 16, "--iou_branch"), r"--no_iou_branch, not --iou_branch"),
        (("--channels", 16, "--anchor_octaves", 2), "9 anchors per cell, but the network has 6"),
    ],
)
def test_flags_that_do_not_fit_end_in_the_right_ones(flags, words, tmp_path):
    torch.save(Odtk().checkpoint(), tmp_path / "detector.pth")
    with pytest.raises(UserError, match=rf"detector\.pth.* {words}"):
        started(tmp_path / "detector.pth", *flags)


@pytest.mark.parametrize(
    ("build", "names", "known", "note"),
    [
        (lambda: Yhenon(num_classes=80), ["Zebra", "red"], ["Zebra"], None),
        (lambda: Yhenon(num_classes=80), ["red", *COCO[1:]], COCO[1:], "has 80 classes without names, assumed to be"),
        (
            lambda: Yhenon(num_classes=2),
            ["red", "green"],
            ["red", "green"],
            "the same number as this set, and they are assumed",
        ),
        (lambda: Yhenon(num_classes=3), ["red", "green"], [], "which matches neither COCO nor this set (2)"),
        (
            lambda: Torchvision(2, num_rows=3),
            ["red", "green"],
            ["red", "green"],
            "the same number as this set, and they are assumed",
        ),
        (lambda: Torchvision(2, num_rows=91), ["zebra", "N/A"], ["zebra"], None),
    ],
)
def test_which_classes_are_known(build, names, known, note):
    twin = randomised(build(), 0)
    network, report = loaded_from(twin.state_dict(), names)
    assert (report.kept, report.new) == (known, [name for name in names if name not in known])
    assert [note in text for text in report.notes] == [True] * bool(note)
    weights = network.classification_head.output.weight.reshape(9, len(names), -1)
    assert [bool(weights[:, label].any()) for label in range(len(names))] == [name in known for name in names]
    if names == known:
        theirs = twin.state_dict()[f"{twin.output_names[0]}.weight"].reshape(9, -1, weights.shape[2])[:, -2:]
        assert torch.equal(weights, theirs.float())


def refusal_of(content):
    with pytest.raises(UserError) as refused:
        loaded_from(content)
    return str(refused.value)


def test_odtks_other_networks_are_refused_by_name():
    rotated = Odtk(num_outputs=6)
    assert "rotated boxes" in refusal_of(rotated.state_dict())
    assert "rotated boxes" in refusal_of({**Odtk().checkpoint(), "angles": [0.0]})
    twin = Odtk()
    pyramid = twin.backbones.pop("ResNet18FPN")
    twin.backbones["ResNeXt50_32x4dFPN"] = pyramid
    assert "its backbone is ResNeXt50_32x4dFPN, and only ResNet18FPN, " in refusal_of(twin.state_dict())
    twin.backbones["ResNet18FPN"] = pyramid
    assert "its backbone is ResNeXt50_32x4dFPN and ResNet18FPN, and only" in refusal_of(twin.state_dict())


def test_a_detector_with_another_kind_of_resnet_is_refused_by_name():
    state = Yhenon().state_dict() | {"layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}
    assert "pytorch-retinanet or a project derived from it, but its ResNet has squeeze-and-exc" in refusal_of(state)


def test_an_fcos_is_refused_by_name():
    state = Torchvision(2).state_dict() | {"head.regression_head.bbox_ctrness.weight": torch.zeros(1)}
    assert "it is an FCOS" in refusal_of(state)


def test_a_run_takes_its_network_from_the_file(tmp_path, capsys):
    torch.save(Odtk(34).checkpoint(), tmp_path / "odtk.pth")
    flags = ["--weights", str(tmp_path / "odtk.pth"), "--recipe", "strong", "--epochs", "2"]
    network = build_network(with_saved_network(train_settings(flags), None).network, ["cat"], None).network
    assert network.architecture[:3] == (34, 16, "none")
    assert (network.architecture.level_code, network.architecture.iou_branch) == (True, False)
    assert f"Network: as in {tmp_path / 'odtk.pth'}, --depth 34 --channels 16 " in capsys.readouterr().out
    settings = with_saved_network(train_settings([*flags, "--depth", "50"]), None)
    with pytest.raises(UserError, match=r"is a detector with --depth 34, not 50\. Use --depth 34\."):
        build_network(settings.network, ["cat"], None)


def test_a_detector_with_tensors_missing_is_refused():
    state = {name: value for name, value in Yhenon().state_dict().items() if name != "fpn.P4_2.bias"}
    assert refusal_of(state) == "file.pth: a detector without fpn.P4_2.bias. Use a complete file."
    part = {name: value for name, value in state.items() if not name.startswith("fpn")}
    assert "no complete feature pyramid" in refusal_of(part)
    assert "no ResNet of a known depth" in refusal_of(
        {name: value for name, value in state.items() if not name.startswith("layer")}
    )


def test_older_names_of_torchvisions_first_retinanet():
    twin = randomised(Torchvision(1), 0)
    older = {}
    for name, value in twin.state_dict().items():
        if "_blocks." in name and "fpn." in name:
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        for layer in range(4):
            name = name.replace(f".conv.{layer}.0.", f".conv.{2 * layer}.") if name.startswith("head.") else name
        older[name] = value
    assert "head.regression_head.conv.6.bias" in older
    assert "backbone.fpn.layer_blocks.2.bias" in older
    images = images_of(0)
    for values, wanted in zip(
        outputs_of(loaded_from(older)[0], images), outputs_of(loaded_from(twin.state_dict())[0], images), strict=True
    ):
        assert torch.equal(values, wanted)


def test_frozen_batch_norms_keep_their_values_at_any_variance():
    """The published COCO weights of torchvision's first RetinaNet were trained with an epsilon of 0."""
    twin = randomised(Torchvision(1, frozen=True), 0)
    variance = twin.backbone.body.layer2[0].bn1.running_var
    variance[:8] = torch.tensor([1e-12, 1e-9, 1e-6, 1e-5, 1e-4, 5e-3, 2e-2, 3.0])
    norm = twin.backbone.body.bn1
    norm.running_var[0], norm.weight[0] = 0, 0  # as ResNets have them in channels that never respond
    norm.eps = 1e-45  # so that the twin's channel is 0, and not 0 / 0
    network, report = loaded_from(twin.state_dict())
    assert "their epsilon isn't in the file; it is taken to be 0" in report.notes[0]
    own = network.double().backbone
    for theirs, ours in ((twin.backbone.body.layer2[0].bn1, own.layer2[0].bn1), (norm, own.bn1)):
        scale = theirs.weight * (theirs.running_var + theirs.eps).rsqrt()
        found = ours.weight * (ours.running_var + ours.eps).rsqrt()
        assert torch.allclose(found, scale, rtol=2e-7, atol=0)
    assert loaded_from(randomised(Torchvision(1), 0).state_dict())[1].notes == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_keeps_the_network_of_the_file(suffix, tmp_path):
    network, _ = loaded_from(randomised(Torchvision(1), 0).state_dict(), ["cat", "red"])
    assert network.architecture.p6_from_p5
    checkpoint = Checkpoint(network.state_dict(), network.architecture, ["cat", "red"], [1, 2], 64, 96, 2, 3, {})
    path = tmp_path / f"best{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    (save_as_safetensors if suffix == ".safetensors" else save_checkpoint)(checkpoint, path)
    if suffix == ".pt":  # earlier versions can read other networks, so the files of these stay as they were
        assert torch.load(path)["p6_from_p5"] is True
        other = small_network()
        save_checkpoint(checkpoint._replace(model=other.state_dict(), architecture=other.architecture), tmp_path / "o")
        assert "p6_from_p5" not in torch.load(tmp_path / "o")
    again = build_model(load_checkpoint(path), path).eval()
    images = images_of(0)
    wanted = network(images)
    assert all(map(torch.equal, again(images), wanted))
    tuned = started(path, "--channels", 256, names=["cat", "red"]).eval()
    assert tuned.architecture == network.architecture
    assert all(map(torch.equal, tuned(images), wanted))


@pytest.mark.usefixtures("narrow_network")
def test_a_run_starts_from_a_state_dict_and_resumes(script, coco_path, tmp_path):
    torch.save(small_network(80, channels=16, p6_from_p5=True).state_dict(), tmp_path / "bare.pth")
    flags = ("--coco_path", coco_path, *TINY[6:], "--workers", 0, "--output_path", tmp_path / "run")
    done = script("train", *flags, "--weights", tmp_path / "bare.pth", "--epochs", 1)
    assert done.code == 0, done.err
    assert "Network: as in" in done.out
    resumed = script("train", *flags, "--weights", tmp_path / "bare.pth", "--epochs", 2, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Resumed from" in resumed.out
    final = load_checkpoint(tmp_path / "run" / "model_final.pt")
    assert (final.architecture.p6_from_p5, final.architecture.channels, final.epoch) == (True, 16, 2)
    tested = script("test", "--coco_path", coco_path, "--checkpoint_path", tmp_path / "run" / "model_final.pt")
    assert tested.code == 0, tested.err
