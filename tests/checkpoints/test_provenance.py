import hashlib
import subprocess

import pytest

from retinanet.checkpoints import provenance
from retinanet.checkpoints.provenance import uncommitted_changes


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with two committed files, one in a folder."""
    (tmp_path / "code").mkdir()
    for name in ("code/a b.py", "outside.py"):
        (tmp_path / name).write_text("one\n")
    identity = ("-c", "user.name=n", "-c", "user.email=e@x")
    for words in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_changes_are_named_hashed_and_kept_if_they_are_few(checkout, monkeypatch):
    assert uncommitted_changes(checkout / "code") is None
    (checkout / "outside.py").write_text("two\n")
    assert uncommitted_changes(checkout / "code") is None
    (checkout / "code" / "a b.py").write_text("two\n")
    changes = uncommitted_changes(checkout / "code")
    assert changes["files"] == ["a b.py"]
    assert "-one\n+two\n" in changes["diff"]
    assert changes["sha256"] == hashlib.sha256(changes["diff"].encode()).hexdigest()
    monkeypatch.setattr(provenance, "MOST_BYTES_OF_DIFF", 10)
    assert uncommitted_changes(checkout / "code") == {name: changes[name] for name in ("files", "sha256")}


def test_outside_of_a_checkout_nothing_is_known(tmp_path):
    assert uncommitted_changes(tmp_path) is None
