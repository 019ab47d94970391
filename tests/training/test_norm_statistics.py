import numpy as np
import pytest
import torch
from support.built import small_network, small_run
from support.data_folder import write_set

from retinanet.data.batches import loaded_from
from retinanet.data.dataset import load_set
from retinanet.training import norm_statistics
from retinanet.training.norm_statistics import measure_statistics

CPU = torch.device("cpu")
LACKING = [f"layer4.{block}.{norm}" for block in (0, 1) for norm in ("bn1", "bn2")] + ["layer4.0.downsample.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder, and weights of a ResNet-18 of which `part.pth` lacks layer4."""
    folder = tmp_path_factory.mktemp("statistics")
    for name in ("train", "val"):
        write_set(folder, name, 20)
    torch.manual_seed(0)
    state = small_network().backbone.state_dict()
    state = {name: 3 * tensor if name == "conv1.weight" else tensor for name, tensor in state.items()}
    torch.save(state, folder / "whole.pth")
    torch.save({name: value for name, value in state.items() if "layer4" not in name}, folder / "part.pth")
    return folder


def run_of(folder, weights, *flags):
    return small_run(folder, "--weights", folder / weights, *flags)


def statistics(network):
    return {name: value.clone() for name, value in network.backbone.state_dict().items() if "running" in name}


def test_equal_to_a_literal_twin(folder):
    _, dataset = load_set(folder, "train", min_side=64, max_side=96, max_pixels=10**6)
    torch.manual_seed(1)
    network = small_network()
    before = statistics(network)
    measure_statistics(network, LACKING, dataset, CPU)
    after = statistics(network)
    assert {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])} == set(LACKING)

    # 20 images by height / width, in batches of at most 8. The first norm sees layer3's features, convolved.
    order = np.argsort([height / width for height, width in dataset.sizes], kind="stable")
    body, seen = network.eval().backbone, []
    for rows in np.array_split(order, 3):
        images = loaded_from([dataset[row] for row in rows.tolist()]).batch.images
        with torch.no_grad():
            c4 = body((images - network.mean) / network.deviation)[1]
            seen.append(body.layer4[0].conv1(c4))
    means = torch.stack([features.mean(dim=(0, 2, 3)) for features in seen]).mean(dim=0)
    variances = torch.stack([features.var(dim=(0, 2, 3)) for features in seen]).mean(dim=0)
    torch.testing.assert_close(after["layer4.0.bn1.running_mean"], means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["layer4.0.bn1.running_var"], variances, rtol=1e-4, atol=1e-5)
    assert all(norm.momentum == 0.1 for norm in body.modules() if hasattr(norm, "momentum"))


def test_of_many_images_some_are_spread_over_the_set(folder, monkeypatch):
    _, dataset = load_set(folder, "train", min_side=64, max_side=96, max_pixels=10**6)
    monkeypatch.setattr(norm_statistics, "NUM_IMAGES", 3)
    read = []
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, index: read.append(index) or self.read(index))
    measure_statistics(small_network(), LACKING, dataset, CPU)
    assert sorted(read) == [0, 10, 19]  # 9.5 is rounded to even


def test_what_a_file_lacks_is_measured_once_then_frozen(folder, capfd):
    runs = [run_of(folder, "part.pth", "--norm_statistics", "auto", "--flip", 0.2 * number) for number in range(2)]
    assert "measured on training images, then frozen: layer4" in capfd.readouterr().out
    first, again = (statistics(run.state.network) for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first["layer4.0.bn1.running_var"].allclose(torch.ones(1))
    assert torch.equal(first["layer3.0.bn1.running_var"], torch.ones_like(first["layer3.0.bn1.running_var"]))
    assert not runs[0].state.statistics()  # none that a step would change


def test_statistics_that_are_not_measured_stay_with_a_hint(folder, capfd):
    run = run_of(folder, "part.pth")
    assert "Hint: the file has no batch-norm statistics for layer4" in capfd.readouterr().out
    assert torch.equal(statistics(run.state.network)["layer4.0.bn1.running_var"], torch.ones(512))


def test_a_complete_file_is_unchanged(folder, capfd):
    run = run_of(folder, "whole.pth", "--norm_statistics", "auto")
    out = capfd.readouterr().out
    assert "measured" not in out
    assert "Hint" not in out
    loaded = torch.load(folder / "whole.pth", weights_only=True)
    assert all(torch.equal(value, loaded[name]) for name, value in statistics(run.state.network).items())


def test_learned_ones_are_those_that_a_step_changes(folder):
    state = run_of(folder, "whole.pth", "--norm_statistics", "learned").state
    state.network.train()
    assert len(state.statistics()) == 2 * 20
    state = run_of(folder, "whole.pth", "--norm_statistics", "learned", "--freeze_stages", 1).state
    state.network.train()
    assert len(state.statistics()) == 2 * 19
