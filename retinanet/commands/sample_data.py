"""Writes a small dataset for a first try."""

from retinanet.runtime.console import say
from retinanet.sample_data.scenes import write_sample_data
from retinanet.settings.sample_data import SampleDataSettings


def sample_data(settings: SampleDataSettings) -> int:
    """Writes the sample data. Returns the exit code."""
    counts = {"train": settings.num_train, "val": settings.num_val, "test": settings.num_test}
    write_sample_data(settings.folder, settings.seed, counts)
    say(f"{', '.join(f'{count} {name}' for name, count in counts.items())} images written to {settings.folder}")
    return 0
