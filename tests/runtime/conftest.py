import pytest
import torch
from support.built import small_network
from support.data_folder import write_set
from support.narrow import narrowed
from support.rank_runs import command, environment, write_script
from support.warm import finished


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder of odd sizes, a train.py of a narrow network with its weights, and the run of one process.

    Its batches have 6 images.
    """
    folder = tmp_path_factory.mktemp("ranks")
    for name, count in (("train", 19), ("val", 5)):
        write_set(folder / "data", name, count)
    write_script(folder, "train.py")
    torch.manual_seed(3)
    with narrowed:
        torch.save(small_network(channels=16).backbone.state_dict(), folder / "backbone.pth")
    run = finished(command(folder, "alone", "--batch_size", 6, "--epochs", 2), environment=environment())
    assert run.returncode == 0, run.stderr
    (folder / "log").write_text(run.stdout)
    return folder
