"""Lists the commands: python -m retinanet."""

import ast
from pathlib import Path

SCRIPTS = {"train": "train.py", "evaluate": "test.py", "draw": "vis.py", "submission": "test_submission.py"}
ROOT = Path(__file__).parent


def main() -> None:
    for path in (*sorted((ROOT / "commands").glob("*.py")), ROOT / "launch.py"):
        if path.stem == "inputs":
            continue
        command = SCRIPTS.get(path.stem, f"-m retinanet.{path.stem}")
        print(f"python {command:<25} {ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))}")
    print("\nEach has --help.")


if __name__ == "__main__":
    main()
