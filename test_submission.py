"""Check a COCO result file before you submit it; correct and pack it."""

from retinanet.runtime.console import run
from retinanet.settings.submission import submission_settings


def main(argv: list[str] | None = None) -> int:
    settings = submission_settings(argv)
    from retinanet.commands.submission import (
        check_submission,  # after the flags are read: PyTorch takes seconds to import
    )

    return check_submission(settings)


if __name__ == "__main__":
    run(main)
