"""Batches are copied on a stream of their own: no step reads one too early, and none loses its memory too early."""

import pytest
import torch
from torch.cuda._sanitizer import CUDASanitizerErrors, cuda_sanitizer

from gpu.cases import Case, make_batches, make_network, train
from gpu.stream_rules import StreamRules
from retinanet.data.device_feed import on_device
from retinanet.evaluation.views import Views, look_with, merged_views

GPU = torch.device("cuda", 0)


@pytest.fixture
def sanitizer(host):
    """PyTorch's own: it follows events and streams, and raises where two streams race."""
    cuda_sanitizer.enable()
    yield cuda_sanitizer
    cuda_sanitizer.disable()


def look_at_all():
    network = make_network(GPU).eval()
    batches = on_device(make_batches(2, pinned=True), GPU)
    look = look_with(network, num_candidates=9, device=GPU, precision=torch.float32)
    return list(merged_views(look, batches, Views(flip=True)))


def test_no_memory_is_given_back_too_early(host):
    with StreamRules() as rules:
        train(GPU, Case(), num_steps=1)
        look_at_all()
    assert rules.used  # by the steps
    assert rules.unrecorded() == []


def test_a_missing_record_would_be_seen(host, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    with StreamRules() as rules:
        train(GPU, Case(), num_steps=1)
    assert rules.unrecorded()


def test_no_two_streams_race(sanitizer):
    train(GPU, Case(), num_steps=1)
    look_at_all()


def test_a_race_would_be_seen(sanitizer, monkeypatch):
    monkeypatch.setattr(torch.cuda.Stream, "wait_stream", lambda self, other: None)
    with pytest.raises(CUDASanitizerErrors):
        train(GPU, Case(), num_steps=1)
