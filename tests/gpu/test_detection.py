"""Detection on a GPU is the CPU's, and makes the host wait once a batch."""

import pytest
import torch
from support.data_folder import write_set

from gpu.cases import CPU, make_batches, make_network
from gpu.waits import waits_forbidden
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import load_set
from retinanet.data.device_feed import on_device
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import detect, find_candidates, suppress
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Predictions
from retinanet.evaluation import detect_set
from retinanet.evaluation.views import Views, look_with, merged_views

GPU = torch.device("cuda", 0)
VIEWS = Views([(64, 96)] * 2, flip=True)
HOW = {"num_candidates": 50, "precision": torch.float32}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_detections_are_the_cpus(host, precision):
    anchors, sizes = anchors_for(128, 160, CPU), torch.tensor([[128, 155], [120, 160], [128, 160]])
    logits, deltas = torch.randn(3, len(anchors), 5) - 3, torch.randn(3, len(anchors), 4)
    predictions = Predictions(logits.to(precision), deltas.to(precision))
    wanted = detect(predictions, anchors, sizes)
    on_gpu, gpu_sizes = Predictions(*(part.to(GPU) for part in predictions)), sizes.to(GPU)
    anchors = anchors.to(GPU)
    host.waits.clear()
    found = suppress(find_candidates(on_gpu, anchors, gpu_sizes, 1000), gpu_sizes)
    assert host.waits == ["nms"]
    assert all(part.device == GPU for part in found)
    for part, own in zip(found, wanted, strict=True):
        assert torch.equal(part.cpu(), own)
    assert (wanted.labels >= 0).sum() > 50
    assert host.runtime.refused == 0


def test_all_views_wait_once_together(host):
    """Until they are merged nothing waits, so that the GPU has the next view to work on."""
    batches = [*make_batches(1, (64, 96), pinned=True), *make_batches(1, (96, 128), pinned=True)]
    found = {}
    for device in (CPU, GPU):
        network = make_network(device).eval()
        host.waits.clear()
        with waits_forbidden():
            look = look_with(network, device=device, **HOW)
            ((candidates, sizes, _, _),) = merged_views(look, on_device(batches, device), VIEWS)
        found[device] = suppress(candidates, sizes, DetectionSettings(threshold=0.001))
    assert host.waits == ["nms"]
    for part, own in zip(found[GPU], found[CPU], strict=True):
        torch.testing.assert_close(part.cpu(), own, rtol=1e-4, atol=1e-3)


def test_the_next_batch_is_copied_before_a_suppression_waits(host, tmp_path, monkeypatch):
    write_set(tmp_path, "val", 4)
    _, dataset = load_set(tmp_path, "val", min_side=64, max_side=96, max_pixels=10**6)
    copy, suppression, order = detect_set.on_device, detect_set.suppress, []

    def copied(batches, device):
        for batch in copy(batches, device):
            order.append("copy")
            yield batch

    def suppressed(*arguments):
        order.append("suppression")
        return suppression(*arguments)

    monkeypatch.setattr(detect_set, "on_device", copied)
    monkeypatch.setattr(detect_set, "suppress", suppressed)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    loading = LoaderSettings(1, device=GPU)
    detect_set.detect_all(make_network(GPU), dataset, loading, device=GPU)
    assert order == ["copy", *["copy", "suppression"] * 3, "suppression"]
    assert torch.backends.cudnn.benchmark
