import numpy as np
import pytest
import torch

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.image_cache import ImageCache, spare_memory
from retinanet.runtime.ranks import Ranks
from retinanet.training.sets import add_cache

SIZES = np.array([(4, 6), (5, 3), (2, 2)])  # 72, 45 and 12 bytes


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (71, 0), (72, 1), (117, 2), (128, 2), (129, 3), (10**9, 3)])
def test_keeps_what_fits(budget, kept):
    cache = ImageCache(SIZES, budget)
    assert cache.num_images == kept
    assert cache.num_bytes <= budget
    for index, (height, width) in enumerate(SIZES.tolist()):
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        assert cache.get(index) is None
        cache.put(index, image)
        assert (cache.get(index) is None) if index >= kept else torch.equal(cache.get(index), image)


def test_images_don_t_touch_each_other():
    cache = ImageCache(SIZES, 10**6)
    images = [torch.full((3, *size), number, dtype=torch.uint8) for number, size in enumerate(SIZES.tolist())]
    for index in (2, 0, 1):
        cache.put(index, images[index])
    assert all(torch.equal(cache.get(index), image) for index, image in enumerate(images))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("share", [0.5, 1])
def test_the_batches_are_the_same_and_files_are_read_once(coco_path, workers, share, monkeypatch):
    def dataset():
        return CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 64, 96)

    def batches(source):
        loader, sampler = training_loader(source, LoaderSettings(2, workers), seed=1)
        for epoch in range(3):
            sampler.start_at(epoch)
            yield from loader

    cached = dataset()
    cached.cache = ImageCache(cached.sizes, int(share * 3 * cached.sizes.prod(axis=1).sum()))
    seen = []
    for number, (plain, kept) in enumerate(zip(batches(dataset()), batches(cached), strict=True)):
        assert torch.equal(plain.batch.images, kept.batch.images)
        assert torch.equal(plain.batch.targets.boxes, kept.batch.targets.boxes)
        seen.append(number)
    assert len(seen) == 12
    assert cached.cache.is_filled.all()
    if share == 1:
        for file in (coco_path / "images" / "train").iterdir():
            file.unlink()
        assert not any(loaded.bad for loaded in batches(cached))


def test_spare_memory_is_less_than_all():
    assert 0 < spare_memory() < 2**50


@pytest.mark.parametrize(
    ("ranks", "local", "kept", "words"),
    [
        ((0, 1), None, 8, "GB"),
        ((0, 1), "2", 8, "GB"),
        ((1, 2), None, 4, "GB in each of 2 processes"),
        ((3, 4), "2", 4, "GB in each of 2 processes"),  # on two machines
    ],
)
def test_the_ranks_of_a_machine_share_its_memory(coco_path, monkeypatch, capsys, ranks, local, kept, words):
    dataset = CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 64, 64)
    dataset.sizes[:] = 64
    events = []

    class Counting(Ranks):
        def wait(self):
            events.append("all have counted")

    class Cache(ImageCache):
        def __init__(self, *arguments):
            events.append("taken")
            super().__init__(*arguments)

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setattr("retinanet.training.sets.spare_memory", lambda: events.append("counted") or 8 * 3 * 64 * 64)
    monkeypatch.setattr("retinanet.training.sets.ImageCache", Cache)
    add_cache(dataset, Counting(*ranks))
    assert events == ["counted", "all have counted", "taken"]
    assert dataset.cache.num_images == kept
    assert capsys.readouterr().out.rstrip().endswith(words)
