"""What becomes of images that could not be read."""

from collections.abc import Iterable, Iterator

from retinanet.errors import UserError
from retinanet.structures import Batch

MAX_BAD_SHARE = 0.01


class BadImages:
    """The images of a data set that could not be read: refused, or with `skip` counted, up to 1 in 100."""

    def __init__(self, num_images: int, skip: bool) -> None:
        self.num_images, self.skip = num_images, skip
        self.messages: set[str] = set()
        self.news: list[str] = []

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, of which some may have no image left. UserError at an image that may not be skipped."""
        for batch in batches:
            for message in batch.bad:
                self._add(message)
            yield batch

    def take_news(self) -> list[str]:
        """The messages since the last call, each image's once."""
        news, self.news = self.news, []
        return news

    def _add(self, message: str) -> None:
        if not self.skip:
            raise UserError(message)
        if message in self.messages:
            return
        self.messages.add(message)
        self.news.append(message)
        if len(self.messages) > MAX_BAD_SHARE * self.num_images:
            raise UserError(
                f"{message} This is bad image {len(self.messages)} of {self.num_images}, and --bad_images skip stops "
                "at more than 1 in 100. Mend the data set."
            )
