"""Lists the commands when run as python -m retinanet."""

import ast
import sys
from pathlib import Path

SCRIPTS = {"train": "train.py", "evaluate": "test.py", "draw": "vis.py", "submission": "test_submission.py"}
ROOT = Path(__file__).parent


def main() -> int:
    for path in (*sorted((ROOT / "commands").glob("*.py")), ROOT / "launch.py"):
        command = SCRIPTS.get(path.stem, f"-m retinanet.{path.stem}")
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"python {command:<26} {about.splitlines()[0]}")
    print("\nEach has --help.")
    if sys.argv[1:]:
        name = sys.argv[1]
        meant = f" Did you mean python -m retinanet.{name}?" if (ROOT / name / "__main__.py").exists() else ""
        print(f"retinanet: error: takes no arguments.{meant}", file=sys.stderr)
    return 2 if sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
