import pytest
import torch
from support.built import small_network, small_run, small_state

from retinanet.checkpoints.checkpoint import build_model, load_checkpoint, save_checkpoint
from retinanet.checkpoints.level_code import LevelCodedRetinaNet
from retinanet.detector.model import RetinaNet
from retinanet.training.saves import snapshot


@pytest.mark.parametrize("kind", [RetinaNet, LevelCodedRetinaNet])
def test_a_checkpoint_rebuilds_the_kind_of_network(kind, coco_path, tmp_path, narrow_network):
    network = small_network(kind=kind)
    if kind is LevelCodedRetinaNet:
        network.level_scale.normal_()
    state = small_state(network)
    state.epoch, state.score_threshold = 3, 0.25
    run = small_run(coco_path, "--channels", 8)._replace(state=state)
    save_checkpoint(snapshot(run), tmp_path / "x.pt")
    again = build_model(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")
    assert type(again) is kind
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
