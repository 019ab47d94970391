import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.data_folder import change_json

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.batches import Loaded, Sample, collate
from retinanet.data.dataloader import LoaderSettings, TrainingBatches, evaluation_loader, training_loader
from retinanet.data.dataset import CocoDataset, load_set
from retinanet.data.device_feed import BadImages, on_device
from retinanet.data.sampler import Draw
from retinanet.detector.structures import CROWD
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import Augmentation


def dataset_of(coco_path, name="train", min_side=64, max_side=96):
    return CocoDataset(load_annotations(coco_path / f"{name}.json"), coco_path / "images" / name, min_side, max_side)


def with_boxes(coco_path, boxes):
    """The first image (64 x 64) gets these (bbox, iscrowd), the others none."""

    def change(content):
        content["annotations"] = [
            {"id": i, "image_id": 1, "category_id": 2, "bbox": box, "iscrowd": crowd}
            for i, (box, crowd) in enumerate(boxes)
        ]

    change_json(coco_path / "train.json", change)
    return dataset_of(coco_path)


def test_boxes_clipped_empty_dropped_crowds_left_out(coco_path):
    dataset = with_boxes(
        coco_path,
        [
            ([10, 10, 20, 20], 0),
            ([-5, 50, 20, 100], 0),  # past the left and the lower border
            ([10, 10, 0, 20], 0),  # no area
            ([10, 10, 20, 0], 0),
            ([70, 10, 20, 20], 0),  # outside of the image: no area once it is clipped
            ([0, 0, 60, 60], 1),
        ],
    )
    sample = dataset.read(0)
    assert sample.boxes.tolist() == [[10, 10, 30, 30], [0, 50, 15, 64]]
    assert sample.labels.tolist() == [1, 1]
    assert (dataset.num_crowds, dataset.num_empty) == (1, 3)
    assert len(dataset.read(1).boxes) == 0  # a background image is a sample too
    assert len(dataset) == 8


def test_crowds_are_kept_with_their_own_label_where_asked_for(coco_path):
    boxes = [
        ([10, 10, 20, 20], 0),
        ([-5, 50, 20, 100], 1),  # past the left and the lower border
        ([10, 10, 0, 20], 0),
        ([70, 10, 20, 20], 1),  # outside of the image
        ([30, 0, 10, 10], 0),
    ]
    plain = with_boxes(coco_path, boxes)
    dataset = CocoDataset(plain.annotations, plain.image_folder, 64, 96, keep_crowds=True)
    sample = dataset.read(0)
    assert sample.boxes.tolist() == [[10, 10, 30, 30], [0, 50, 15, 64], [30, 0, 40, 10]]
    assert sample.labels.tolist() == [1, CROWD, 1]
    batch = collate([sample, dataset.read(1)])
    assert batch.targets.labels.tolist() == [[1, CROWD, 1], [-1, -1, -1]]
    flipped = TrainingBatches(dataset, seed=0, augmentation=Augmentation(flip=1)).sample(0, 0)
    assert flipped.boxes.tolist() == [[34, 10, 54, 30], [49, 50, 64, 64], [24, 0, 34, 10]]
    assert flipped.labels.tolist() == sample.labels.tolist()
    assert plain.read(0).labels.tolist() == [1, 1]
    # What is counted stays.
    assert (dataset.num_crowds, dataset.num_empty) == (plain.num_crowds, plain.num_empty) == (2, 1)
    assert dataset.is_learned.tolist() == plain.is_learned.tolist()
    assert len(dataset.learned(np.arange(5)).labels) == 2


def test_all_objects_at_once_are_those_of_image_by_image(coco_path):
    boxes = [[10, 10, 20, 20], [-5.5, 50, 20, 100], [10, 10, 0, 20], [60.25, 10, 5, 30]]
    dataset = with_boxes(coco_path, [(box, 0) for box in boxes] + [([0, 0, 60, 60], 1)])
    change_json(coco_path / "train.json", lambda content: content["annotations"][3].update(image_id=6))
    dataset = dataset_of(coco_path, min_side=100, max_side=140)
    objects = dataset.learned(np.arange(5))
    samples = [dataset.read(index) for index in range(8)]
    assert objects.images.tolist() == [0, 0, 5]
    assert objects.labels.tolist() == torch.cat([sample.labels for sample in samples]).tolist()
    corners = torch.cat([dataset.objects(index)[0] for index in range(8)])
    torch.testing.assert_close(torch.from_numpy(objects.corners).float(), corners)
    torch.testing.assert_close(torch.from_numpy(objects.boxes).float(), torch.cat([sample.boxes for sample in samples]))
    assert objects.areas.tolist() == [400, 2000, 150]
    assert dataset.learned(np.array([4, 3, 2, 1])).areas.tolist() == [150, 2000]
    assert dataset.overhangs().tolist() == [0, 86, 0, 0, 1.25]  # the last two are of images 1 and 6


def test_boxes_follow_their_square_through_resizing(coco_path):
    dataset = dataset_of(coco_path, min_side=128, max_side=192)
    for index in range(7):
        sample = dataset.read(index)
        x1, y1, x2, y2 = sample.boxes[0].round().int().tolist()
        inside = sample.image[:, y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].float().mean(dim=(1, 2))
        wanted = torch.tensor([[230.0, 20, 20], [20.0, 230, 20]][sample.labels[0]])
        torch.testing.assert_close(inside, wanted, atol=2, rtol=0)


def test_collate_pads_boxes_and_images(coco_path):
    dataset = dataset_of(coco_path)
    batch = collate([dataset.read(0), dataset.read(1), dataset.read(7)])
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[64, 64], [64, 96], [64, 96]]
    assert batch.rows.tolist() == [0, 1, 7]
    assert batch.targets.labels.shape == (3, 1)
    assert batch.targets.labels[2].tolist() == [-1]


def test_a_batch_may_have_no_image_that_can_be_read(coco_path):
    for name in (1, 2):
        (coco_path / "images" / "train" / f"{name}.png").write_bytes(b"no image")
    batch, bad = TrainingBatches(dataset_of(coco_path), seed=0)[Draw(0, [0, 1], (64, 96))]
    assert len(batch.images) == len(batch.targets.boxes) == len(batch.sizes) == len(batch.scales) == 0
    assert batch.images.shape == (0, 3, 64, 96)
    assert [Path(message.split(":")[0]).name for message in bad] == ["1.png", "2.png"]


def test_flips_are_a_function_of_seed_epoch_and_index(coco_path):
    dataset = dataset_of(coco_path)
    flipping = TrainingBatches(dataset, seed=3)
    flipped = np.zeros((6, 7), bool)
    for epoch in range(6):
        for index in range(7):
            plain, sample = dataset.read(index), flipping.sample(epoch, index)
            flipped[epoch, index] = not torch.equal(plain.image, sample.image)
            if flipped[epoch, index]:
                assert torch.equal(sample.image, plain.image.flip(2))
            assert torch.equal(sample.image, TrainingBatches(dataset, seed=3).sample(epoch, index).image)
    assert 0.25 < flipped.mean() < 0.75
    assert len(np.unique(flipped, axis=0)) > 1
    assert all(
        torch.equal(TrainingBatches(dataset, 3, Augmentation(flip=0)).sample(0, i).image, dataset.read(i).image)
        for i in range(7)
    )


def batches_of(dataset, workers, epoch=1):
    loader, sampler = training_loader(dataset, LoaderSettings(3, workers), seed=5)
    sampler.start_at(0)
    list(loader)  # workers stay, and must still see the next epoch
    sampler.start_at(epoch)
    return list(loader)


def test_the_number_of_workers_changes_nothing(coco_path):
    dataset = dataset_of(coco_path)
    alone = batches_of(dataset, 0)
    for workers in (1, 3):
        for one, other in zip(alone, batches_of(dataset, workers), strict=True):
            assert torch.equal(one.batch.images, other.batch.images)
            assert torch.equal(one.batch.targets.boxes, other.batch.targets.boxes)
            assert torch.equal(one.batch.rows, other.batch.rows)


def test_evaluation_sees_every_image_once_without_foreign_padding(coco_path):
    loader = evaluation_loader(dataset_of(coco_path), LoaderSettings(2))
    batches = [batch for ((batch, _),) in loader]
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(8))
    assert all((batch.sizes == torch.tensor(batch.images.shape[2:])).all() for batch in batches)


def test_missing_images_are_named_and_counted(coco_path):
    dataset = dataset_of(coco_path)
    dataset.require_images()
    for name in ("3.png", "5.png"):
        (coco_path / "images" / "train" / name).unlink()
    with pytest.raises(UserError, match=r"3\.png: no such image.*2 of 8 are missing"):
        dataset.require_images()


def test_a_link_to_nowhere_and_a_name_in_other_letters_are_told_as_such(coco_path):
    image = coco_path / "images" / "train" / "3.png"
    content = image.read_bytes()
    image.unlink()
    image.symlink_to("gone.png")
    with pytest.raises(UserError, match=r"3\.png: no such image\. .*3\.png is a link to gone\.png, which can't"):
        load_set(coco_path, "train", min_side=64, max_side=96, max_pixels=10**6)
    image.unlink()
    image.with_suffix(".PNG").write_bytes(content)
    with pytest.raises(UserError, match=r"3\.png: no such image.*1 of 8 are missing\)\. .*3\.PNG is there"):
        load_set(coco_path, "train", min_side=64, max_side=96, max_pixels=10**6)


def test_empty_image_files_are_named_and_counted(coco_path):
    for name in ("3.png", "5.png"):
        (coco_path / "images" / "train" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png: is an empty file of 0 bytes \(2 of 8 images are\)"):
        load_set(coco_path, "train", min_side=64, max_side=96, max_pixels=10**6)


def test_images_in_folders_are_found(coco_path):
    (coco_path / "images" / "train" / "sub").mkdir()
    (coco_path / "images" / "train" / "1.png").rename(coco_path / "images" / "train" / "sub" / "1.png")
    change_json(coco_path / "train.json", lambda content: content["images"][0].update(file_name="sub/1.png"))
    dataset = dataset_of(coco_path)
    dataset.require_images()
    assert isinstance(dataset[0], Sample)
    change_json(coco_path / "train.json", lambda content: content["images"][0].update(file_name="none/1.png"))
    with pytest.raises(UserError, match=r"none/1\.png"):
        dataset_of(coco_path).require_images()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_reaches_the_main_process_as_a_message(coco_path, workers):
    (coco_path / "images" / "train" / "4.png").write_bytes(b"no image")
    loaded = batches_of(dataset_of(coco_path), workers)
    assert [message.split(":")[0].split("/")[-1] for one in loaded for message in one.bad] == ["4.png"]
    assert sum(len(one.batch.images) for one in loaded) == 7
    with pytest.raises(UserError, match=r"4\.png"):
        list(BadImages(8, skip=False).passing(loaded))


@pytest.mark.parametrize(("num_images", "most"), [(1000, 10), (501, 5), (200, 5), (8, 4), (3, 1), (1, 0)])
def test_one_in_a_hundred_or_a_few_may_be_skipped(num_images, most):
    bad = BadImages(num_images, skip=True)
    names = [str(number) for number in range(most)]
    loaded = [Loaded(collate([]), names), Loaded(collate([]), names)]  # each counts once
    assert [len(batch.images) for batch in bad.passing(loaded)] == [0, 0]
    assert bad.take_new_messages() == names
    assert bad.take_new_messages() == []
    with pytest.raises(UserError, match=f"c This is bad image {most + 1} of {num_images}"):
        list(bad.passing([Loaded(collate([]), ["c"])]))


def test_to_device_moves_all_that_the_step_needs(coco_path):
    (batch,) = on_device([collate([dataset_of(coco_path).read(0)])], torch.device("meta"))
    assert {tensor.device.type for tensor in (batch.images, *batch.targets, batch.sizes, batch.scales)} == {"meta"}


def test_annotations_of_the_users_are_never_written(coco_path):
    before = (coco_path / "train.json").read_text()
    batches_of(dataset_of(coco_path), 0)
    assert json.loads((coco_path / "train.json").read_text()) == json.loads(before)


def test_a_repeated_image_is_augmented_each_time_for_itself(coco_path):
    dataset = dataset_of(coco_path)
    batches = TrainingBatches(dataset, seed=0)
    first, again = ([batches.sample(0, index + times * 8) for index in range(8)] for times in (0, 1))
    assert [one.row for one in first] == [one.row for one in again]
    are_alike = [torch.equal(one.image, other.image) for one, other in zip(first, again, strict=True)]
    assert 0 < sum(are_alike) < 8  # some are mirrored
