"""Detects objects in images and videos; writes results as it goes, and annotation files at the end."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from tqdm import tqdm

from retinanet.checkpoints.output_folder import best_and_final_line
from retinanet.coco.results import Found
from retinanet.convert.prelabels import DistinctNames, labelled_image, prelabels
from retinanet.convert.sets import Labelled, LabelledImage
from retinanet.convert.writers import write
from retinanet.data.transforms import to_tensor
from retinanet.data.unread import reason_unread
from retinanet.predict.detector import Detector
from retinanet.predict.earlier_files import ROWS_CSV, ROWS_JSON, add_to_record, earlier_files, require_no_source
from retinanet.predict.outputs import Outputs, free_path
from retinanet.predict.painting import painted
from retinanet.predict.sources import SourceFile, find_sources
from retinanet.predict.video import VideoReader, VideoWriter
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import size_on_disk, size_text
from retinanet.runtime.printable import counted, printable
from retinanet.runtime.streams import hides_bars
from retinanet.runtime.tree import Tree
from retinanet.settings.predict import CROPS, PICTURES, PRELABELS, PredictSettings

MOST_PIXELS = 60_000_000  # a group of images ends at this many pixels, of three bytes each
READERS, AHEAD = 4, 8  # threads, because decoding releases the GIL; images to read ahead
MOST_NAMED = 10  # the maximum number of classes named in the summary
Item = TypeVar("Item")


class ReadImage(NamedTuple):
    source: SourceFile
    image: Tensor | None  # uint8 [3, h, w]; None if it can't be read
    fault: str = ""


class Unreadable:
    """Counts the files that could not be read, and reports each on stderr."""

    def __init__(self, tree: Tree) -> None:
        self.count = 0
        self._tree = tree

    def add(self, source: SourceFile, message: str) -> None:
        self.count += 1
        self._tree.leave(source.path, "that can't be read")
        tqdm.write(f"skipped: {printable(message)}", file=sys.stderr)


def predict(settings: PredictSettings) -> int:
    """Detects objects in all sources. Returns the exit code: 0 if all files were read, 1 if some could not be read."""
    tree = Tree()
    sources = find_sources(settings.sources, settings.output_path, tree)
    images = [source for source in sources if not source.is_video]
    videos = [source for source in sources if source.is_video]
    earlier = earlier_files(settings.output_path)
    require_no_source(earlier, (source.path for source in sources))
    detector = _detector(settings)
    annotating = Annotating([kind for kind in PRELABELS if kind in settings.save], settings.images, detector)
    annotating.check(images, videos)
    classes = ", ".join(settings.classes or detector.class_names)
    if line := best_and_final_line(settings.checkpoint_path):
        say(line)
    say(f"Detecting {classes} with a score above {detector.threshold_text()}")
    unreadable = Unreadable(tree)
    names, ids = detector.class_names, detector.category_ids
    with Outputs(settings.output_path, settings.save, names, ids, earlier) as outputs:
        if earlier:
            size = size_text(size_on_disk(outputs.before))
            say(
                f"{outputs.folder} holds an earlier run: {counted(len(earlier), 'file')} moved to {outputs.before} "
                f"({size})"
            )
        _detect_in_images(images, detector, outputs, annotating, unreadable)
        for video in videos:
            try:
                reader = VideoReader(video.path)
            except UserError as error:
                unreadable.add(video, str(error))
                continue
            with closing(reader):
                _detect_in_video(video, reader, detector, outputs)
            if reader.fault:
                unreadable.add(video, reader.fault)
    folders_written = annotating.write(outputs.folder)
    _summarise(outputs, folders_written, sources, unreadable.count)
    if folders := [Path(source) for source in settings.sources if Path(source).is_dir()]:
        for source in sources:
            tree.read(source.path)
        say(tree.account(reason_unread).line(folders[0]))
    return 1 if unreadable.count else 0


class Annotating:
    """Collects the detections in images, and writes them in the requested annotation formats at the end."""

    def __init__(self, kinds: Sequence[str], images: str, detector: Detector) -> None:
        self._kinds, self._how, self._detector = kinds, images, detector
        self._formats = ", ".join(kinds)
        self._names = DistinctNames()
        self._renamed: list[str] = []
        self._images: list[LabelledImage] = []

    def check(self, images: Sequence[SourceFile], videos: Sequence[SourceFile]) -> None:
        """Raises UserError, before anything is detected, if a format can't hold the images or classes."""
        if self._kinds and not images:
            raise UserError(f"{videos[0].path}: --save {' '.join(self._kinds)} is for images. Leave it out for videos.")
        if self._kinds and videos:
            say(f"Note: {self._formats} without {counted(len(videos), 'video')}: only images are annotated")
        names = DistinctNames()
        empty = [LabelledImage(path, names.add(name), 1, 1, []) for path, name, _ in images]
        for kind in self._kinds:
            self._labelled(empty, kind)

    def add(self, source: SourceFile, image: Tensor, detections: Found, image_id: int) -> None:
        if self._kinds:
            name, size = self._names.add(source.name), (image.shape[1], image.shape[2])
            self._renamed += [f"{source.path} is {name}"] * (name != source.name)
            self._images.append(labelled_image(source.path, name, size, detections, image_id))

    def write(self, folder: Path) -> list[str]:
        """Writes the annotations in each format to a separate folder in `folder`; returns these folders' names."""
        if self._renamed:
            say(f"Note: images with another name in {self._formats}: {len(self._renamed)}, such as {self._renamed[0]}")
        names = []
        for kind in self._kinds if self._images else ():
            labelled = self._labelled(self._images, kind)
            for note in labelled.notes:
                say(f"Note: in {kind}, {note}")
            place = free_path(folder / kind)
            write(labelled, kind, place, self._how)
            add_to_record(folder, place)
            names.append(place.name)
        return names

    def _labelled(self, images: Sequence[LabelledImage], kind: str) -> Labelled:
        detector = self._detector
        return prelabels(images, kind, detector.class_names, detector.category_ids, detector.path)


def _detector(settings: PredictSettings) -> Detector:
    return Detector(
        settings.checkpoint_path,
        settings.machine.device,
        threshold=settings.detection.by_class(),
        classes=settings.classes,
        tile=settings.looks.tiling.tile,
        overlap=settings.looks.tiling.overlap,
        flip_test=settings.looks.views.flip_test,
        test_sides=settings.looks.views.test_sides,
        precision=settings.machine.precision,
        batch_size=settings.machine.batch_size,
        num_candidates=settings.detection.num_candidates,
        nms_iou=settings.detection.nms_iou,
        max_detections=settings.detection.max_detections,
        max_pixels=settings.machine.max_pixels,
    )


def _detect_in_images(
    sources: list[SourceFile], detector: Detector, outputs: Outputs, annotating: Annotating, unreadable: Unreadable
) -> None:
    with tqdm(total=len(sources), desc="Images", disable=hides_bars(), leave=False) as progress:
        for group in _groups(_read_ahead(sources, detector), detector, lambda read: read.image):
            for read in group:
                if read.image is None:
                    unreadable.add(read.source, read.fault)
            readable = [(read.source, read.image) for read in group if read.image is not None]
            detections = detector.find([image for _, image in readable])
            for index, (source, image) in enumerate(readable):
                of_image = detections.at(detections.images == index)
                outputs.add(str(source.path), of_image)
                outputs.draw(source.name, image, of_image)
                annotating.add(source, image, of_image, outputs.num_images)
            progress.update(len(group))


def _read_ahead(sources: list[SourceFile], detector: Detector) -> Iterator[ReadImage]:
    """Yields the images in order, reading up to AHEAD of them in advance."""

    def read(source: SourceFile) -> ReadImage:
        try:
            return ReadImage(source, to_tensor(detector.read(source.path)))
        except UserError as fault:
            return ReadImage(source, None, str(fault))

    waiting = iter(sources)
    with ThreadPoolExecutor(READERS) as readers:
        futures = deque(readers.submit(read, source) for source in islice(waiting, AHEAD))
        try:
            while futures:
                yield futures.popleft().result()
                futures.extend(readers.submit(read, source) for source in islice(waiting, 1))
        finally:
            readers.shutdown(cancel_futures=True)


def _detect_in_video(source: SourceFile, reader: VideoReader, detector: Detector, outputs: Outputs) -> None:
    """Detects objects in a video; if it ends early, `reader` says why."""
    with ExitStack() as writing:
        is_drawn = PICTURES in outputs.save
        writer = writing.enter_context(VideoWriter(outputs.video_path(source.name), reader)) if is_drawn else None
        progress = tqdm(reader, source.path.name, reader.num_frames or None, disable=hides_bars(), leave=False)
        for group in _groups(enumerate(progress), detector, lambda numbered: numbered[1].image):
            detections = detector.find([frame.image for _, frame in group])
            for index, (number, frame) in enumerate(group):
                of_frame = detections.at(detections.images == index)
                outputs.add(str(source.path), of_frame, number)
                outputs.crop(f"{source.name}/{number:06}.jpg", frame.image, of_frame)
                if writer:
                    writer.add(np.asarray(painted(frame.image, of_frame, detector.class_names)), frame.time)


def _groups(
    items: Iterable[Item], detector: Detector, image_of: Callable[[Item], Tensor | None]
) -> Iterator[list[Item]]:
    """Yields the items in groups that fill two batches, or in smaller groups if the images are large."""
    group: list[Item] = []
    pixels = 0
    for item in items:
        group.append(item)
        image = image_of(item)
        pixels += 0 if image is None else image[0].numel()
        if len(group) == 2 * detector.looks.batch_size or pixels >= MOST_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _summarise(outputs: Outputs, annotated: list[str], sources: list[SourceFile], num_unreadable: int) -> None:
    counts = [f"{outputs.class_names[label]} {count}" for label, count in outputs.by_class.most_common(MOST_NAMED)]
    more = " ..." if len(outputs.by_class) > MOST_NAMED else ""
    images = counted(outputs.num_images, "image")
    if any(source.is_video for source in sources):
        images = counted(outputs.num_images, "image or frame", "images and frames")
    say(f"{counted(outputs.num_rows, 'detection')} in {images}" + (f": {', '.join(counts)}{more}" if counts else ""))
    folders = [name for name in outputs.save if name in (PICTURES, CROPS)] + annotated
    written = [ROWS_JSON, ROWS_CSV, *(f"{name}/" for name in folders)]
    say(f"Written to {outputs.folder}: {', '.join(written)}")
    if num_unreadable:
        say(f"{num_unreadable} of {counted(len(sources), 'file')} could not be read; stderr names them")
