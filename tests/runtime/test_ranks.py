"""Several processes on a CPU train to the numbers of one, and end together when one of them fails."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.accidents import before_each_batch
from support.built import small_losses, small_network, small_run, small_state
from support.length import IS_LONG
from support.rank_runs import assert_same_weights, command, environment, losses, write_script
from support.warm import Process, finished, free_port, started_ranks

from retinanet.commands import train as train_command
from retinanet.data.batches import Batch, Loaded
from retinanet.data.device_feed import BadImages
from retinanet.detector.structures import Losses, Targets
from retinanet.runtime.console import run
from retinanet.runtime.errors import Stopped, UserError
from retinanet.runtime.ranks import Agreement, Ranks, join
from retinanet.runtime.signals import STOP
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training import losses as losses_module
from retinanet.training.box_look import BoxLook
from retinanet.training.engine import progress_of, train_steps
from retinanet.training.run import train_epoch
from retinanet.training.saves import log_bad_images
from retinanet.training.trackers import NO_TRACKERS
from retinanet.training.val_pictures import ValPictures

pytestmark = pytest.mark.waits


def torchrun(num_ranks, *more, launcher="torch.distributed.run"):
    where = ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{free_port()}")
    return ["-m", launcher, "--nproc_per_node", str(num_ranks), *where, *map(str, more)]


def trained(num_ranks, words):
    """What all ranks print together."""
    ranks = started_ranks(num_ranks, words, environment())
    ends = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_ranks, ends
    assert not any("FutureWarning" in err for _, err in ends)
    return "".join(out for out, _ in ends)


def tables(log):
    return [line for line in log.splitlines() if line.startswith(" Average")]


@pytest.mark.parametrize(("num_ranks", "batch_size", "accumulate"), [(2, 3, 1), (3, 2, 1), (1, 2, 3), (2, 1, 3)])
def test_ranks_and_accumulation_train_what_one_large_batch_does(folder, num_ranks, batch_size, accumulate):
    output = f"ranks{num_ranks}_{accumulate}"
    flags = ("--batch_size", batch_size, "--accumulate", accumulate, "--epochs", 2)
    out, alone = trained(num_ranks, command(folder, output, *flags)), (folder / "log").read_text()
    torch.testing.assert_close(losses(out), losses(alone), rtol=1e-4, atol=2e-5)
    assert tables(out) == tables(alone)
    assert out.count("Num training images: 19") == 1  # rank 0 alone prints
    told = f"{num_ranks} with {batch_size * accumulate} images each per step; the remainder of 1 image is shared out"
    assert num_ranks == 1 or told in out
    assert_same_weights(folder, output)


# What Inductor makes of it takes a minute; how ranks share a step that is one graph does not depend on it.
COMPILED = """
import torch
compile = torch.compile
torch.compile = lambda compute, backend, **settings: compile(compute, backend="eager", **settings)
"""


@pytest.mark.skipif(not IS_LONG, reason="three processes trace the network")
def test_ranks_train_compiled_steps(folder):
    """Of one shape, so that each rank compiles once."""
    write_script(folder, "compiled.py", COMPILED)
    flags = ("--compile", "on", "--epochs", 1, "--drop_last", "--min_side", 64, "--max_side", 64)
    out = trained(2, command(folder, "compiled2", "--batch_size", 3, *flags, script="compiled.py"))
    assert ", compiled" in out
    alone = trained(1, command(folder, "compiled1", "--batch_size", 6, *flags, script="compiled.py"))
    assert len(losses(alone)) == 3
    torch.testing.assert_close(losses(out), losses(alone), rtol=1e-4, atol=2e-5)


def test_ranks_may_wait_longer_for_a_step(monkeypatch):
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: (backend, timeout))
    ranks = Ranks(1, 2, "group", "steps")
    assert ranks.waiting(360) == Ranks(1, 2, "group", ("gloo", timedelta(minutes=6)))
    assert Ranks().waiting(360) == Ranks()


@pytest.mark.parametrize(("local_rank", "order"), [(0, ["block", "barrier"]), (1, ["barrier", "block"])])
def test_the_first_rank_of_each_machine_goes_first(monkeypatch, local_rank, order):
    events = []
    monkeypatch.setattr(dist, "barrier", lambda group: events.append("barrier"))
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    with Ranks(8 + local_rank, 16, "group", "steps").first_of_machine_alone():
        events.append("block")
    assert events == order


def test_resumed_with_another_number_of_ranks(folder):
    first = trained(2, command(folder, "other", "--batch_size", 3, "--epochs", 1))
    again = trained(1, command(folder, "other", "--batch_size", 6, "--epochs", 2, "--resume"))
    whole = losses((folder / "log").read_text())
    torch.testing.assert_close(losses(first + again), whole, rtol=1e-4, atol=2e-5)


GRADIENTS = """
import torch
from support.built import small_losses, small_network
from retinanet.detector.structures import Targets
from retinanet.runtime.ranks import join, leave
from retinanet.training.losses import shared
ranks = join(torch.device("cpu"), 60)
torch.manual_seed(0)
network = small_network().train()
compute_losses = shared(network, small_losses(network), ranks)
torch.manual_seed(ranks.rank)
images = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
gradients = []
for _ in range(2):
    network.zero_grad()
    sum(compute_losses(images, Targets(torch.tensor([[[8.0, 8, 40, 40]]]), torch.tensor([[0]])))).backward()
    gradients.append(torch.cat([weights.grad.flatten() for weights in network.parameters() if weights.requires_grad]))
print("equal:", gradients[0].equal(gradients[1]))
leave()
sys.exit()
"""


def test_the_first_step_of_three_ranks_is_rounded_like_later_ones(tmp_path):
    """A resumed run begins with the first step of its processes."""
    out = trained(3, [tmp_path / write_script(tmp_path, "gradients.py", GRADIENTS)])
    assert out.count("equal: True") == 3


DETECTS = """
from retinanet.training import evaluation
detect_all = evaluation.detect_all
def telling(network, *how, **more):
    print("detects with", sum(norm.sum().item() for name, norm in network.named_buffers() if "running" in name))
    return detect_all(network, *how, **more)
evaluation.detect_all = telling
"""


def test_all_ranks_evaluate_with_the_statistics_that_are_saved(folder):
    script = write_script(folder, "detects.py", DETECTS)
    flags = ("--batch_size", 3, "--epochs", 1, "--norm_statistics", "learned", "--ema_decay", 0.9)
    out = trained(2, command(folder, "detects", *flags, script=script))
    saved = torch.load(folder / "detects" / "model_final.pt")
    sums = [
        sum(values.sum().item() for name, values in saved[which].items() if "running" in name)
        for which in ("model", "ema")
    ]
    assert sums[0] != sums[1]
    # Two ranks use the last weights, then the averaged ones.
    assert sorted(re.findall(r"detects with (\S+)", out)) == sorted(map(str, sums * 2))


# Rank 0 is slow to write run.json, and to track the first step.
SLOW = """
from retinanet.training import opening, trackers
write_record, log = opening.write_record, trackers.TensorBoard.log
def slow_record(*how, **more):
    time.sleep(2.5)
    write_record(*how, **more)
def slow_log(tracker, step, numbers):
    time.sleep(2.5 if step == 1 else 0)
    log(tracker, step, numbers)
opening.write_record, trackers.TensorBoard.log = slow_record, slow_log
"""


def test_a_slow_start_or_tracker_ends_no_run(folder):
    pytest.importorskip("tensorboard")
    script = write_script(folder, "slow.py", SLOW)
    flags = ("--batch_size", 3, "--epochs", 1, "--track", "tensorboard", "--timeout", 2)
    assert "Epoch 0 took" in trained(2, command(folder, "slow", *flags, script=script))


def test_all_ranks_train_with_one_random_seed(folder):
    flags = ("--batch_size", 3, "--cache", "ram", "--seed", "random")
    first = trained(2, command(folder, "random", *flags, "--epochs", 1))
    again = trained(2, command(folder, "random", *flags, "--epochs", 2, "--resume"))
    (seed,) = {*re.findall(r"^Seed: (\d+)$", first + again, re.M)}
    assert "GB in each of 2 processes" in first
    # With seeds of their own the ranks would miss some images and train on others twice.
    alone = trained(1, command(folder, "not_random", "--batch_size", 6, "--seed", seed, "--epochs", 2))
    torch.testing.assert_close(losses(first + again), losses(alone), rtol=1e-4, atol=2e-5)


TROUBLES = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "raising": "raise ZeroDivisionError('planted')",
    "hanging": "signal.pause()",
}
# Rank 1 comes to grief in step 5 of its first attempt.
CHANGE = """
def come_to_grief(step):
    first_attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0'
    if step == 5 and os.environ['RANK'] == '1' and first_attempt:
        {trouble}
before_each_batch(come_to_grief)
"""


def script_with(folder, trouble):
    return write_script(folder, f"train_{trouble}.py", CHANGE.format(trouble=TROUBLES[trouble]))


@pytest.mark.parametrize("what", ["killed", "raising", "hanging"])
def test_all_ranks_end_when_one_fails(folder, what):
    script = script_with(folder, what)
    words = command(folder, what, "--batch_size", 3, "--epochs", 2, "--timeout", 5, script=script)
    ranks = started_ranks(2, words, environment())
    try:
        _, err = ranks[0].communicate(timeout=60)
        assert ranks[0].returncode == 4, err
        assert "rank 0 stopped because another rank died, or was not ready within --timeout 5 s" in err
        assert "Traceback" not in err
        if what == "raising":
            assert "ZeroDivisionError: planted" in ranks[1].communicate(timeout=60)[1]
    finally:
        ranks[1].kill()
        ranks[1].communicate()


def test_torchrun_brings_a_dead_rank_back_and_the_run_ends_equal(folder):
    script = script_with(folder, "killed")
    words = command(folder, "restarted", "--batch_size", 3, "--epochs", 2, "--save_every", 3, script=script)
    run = finished([*torchrun(2, "--max-restarts", 2), *words], timeout=120, environment=environment())
    assert run.returncode == 0, run.stderr
    assert f"Resumed from {folder / 'restarted'} after 0 epochs and 3 iterations" in run.stdout
    assert run.stdout.count("Num training images: 19") == 2  # in both attempts rank 0 alone prints
    assert "FutureWarning" not in run.stderr
    alone = (folder / "log").read_text()
    torch.testing.assert_close(losses(run.stdout)[-4:], losses(alone)[-4:], rtol=1e-4, atol=2e-5)
    assert tables(run.stdout) == tables(alone)
    assert_same_weights(folder, "restarted")


@pytest.mark.parametrize(
    ("launcher", "number"), [("torch.distributed.run", signal.SIGTERM), ("retinanet.launch", signal.SIGUSR1)]
)
def test_a_signal_to_torchrun_saves(folder, launcher, number):
    output = f"signalled_{number.name}"
    words = command(folder, output, "--batch_size", 3, "--epochs", 100)
    process = Process([*torchrun(2, launcher=launcher), *words], environment=environment())
    assert any("Epoch: 3" in line for line in process.stdout)  # reads no further
    started = time.monotonic()
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)  # until the ranks have closed them too
    assert time.monotonic() - started < 15
    assert f"Stopped by {number.name}" in rest
    assert (folder / output / "last.pt").exists()
    if launcher == "retinanet.launch":
        assert process.returncode == 128 + number
        assert "Traceback" not in errors


def test_a_launch_ends_with_the_code_of_a_rank(folder):
    words = command(folder, "nowhere", "--train_set", "lacking")
    words = [sys.executable, *torchrun(2, launcher="retinanet.launch"), *words]
    run = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "train.py: error: " in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("code", [4, 143])
def test_a_launch_ends_with_the_code_of_the_rank_that_failed_first(tmp_path, code):
    """Rank 0 only ends because torchrun ends it."""
    lines = ["import os, signal, sys", f"if os.environ['RANK'] == '1': sys.exit({code})"]
    lines += ["signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))", "signal.pause()"]
    (tmp_path / "rank.py").write_text("\n".join(lines))
    words = [*torchrun(2, launcher="retinanet.launch"), tmp_path / "rank.py"]
    assert finished(words, timeout=60, environment=environment()).returncode == code


def test_contradictions(monkeypatch):
    monkeypatch.setattr(train_command, "join", lambda device, timeout: Ranks(0, 2))
    with pytest.raises(UserError, match="--verify_resume runs in one process only"):
        train_command.train(with_values(TrainSettings(), {"verify_resume": 2, "device": "cpu"}))


class OfTwo(Ranks):
    """Rank 0 of two, without the other: there is nobody to wait for."""

    def meet(self):
        pass

    def wait(self):
        pass

    def gathered(self, content):
        return [content]


def batch_of(num_images):
    """Images without an object."""
    images = torch.full((num_images, 3, 64, 64), 99, dtype=torch.uint8)
    targets = Targets(torch.zeros(num_images, 1, 4), torch.full((num_images, 1), -1))
    return Batch(images, targets, torch.full((num_images, 2), 64), torch.ones(num_images, 2), torch.arange(num_images))


@pytest.mark.parametrize("num_images", [0, 3])
def test_a_rank_without_images_counts_nothing(num_images):
    together = num_images + 5

    class BesideFive(OfTwo):
        def summed(self, numbers):  # the other rank has 5 images with losses 1 and 1
            return numbers.add_(5 / together if numbers.ndim else 5)

    state = small_state()
    weight = state.network.classification_head.output.bias
    torch.nn.init.ones_(weight)
    how = {"rates": [0.1], "clip_norm": 1.0, "compute_losses": lambda *_: Losses(2 * weight[0], 3 * weight[0])}
    (rate,) = train_steps(state, [[batch_of(num_images)]], **how, ranks=BesideFive(0, 2))
    progress = progress_of(state, rate)
    assert progress.classification == pytest.approx((2 * num_images + 5) / together)
    assert progress.regression == pytest.approx((3 * num_images + 5) / together)
    assert progress.num_images == together
    # DistributedDataParallel will halve it, as the mean over two ranks.
    assert progress.gradient_norm / 2 == pytest.approx(5 * num_images / together)


def test_a_step_in_which_no_rank_has_images_leaves_the_numbers_alone():
    class BesideNone(OfTwo):
        def summed(self, numbers):
            return numbers

    state = small_state()
    how = {"rates": [0.1] * 2, "clip_norm": 1.0, "compute_losses": small_losses(state.network)}
    steps = train_steps(state, [[batch_of(1)], [batch_of(0)]], **how, ranks=BesideNone(0, 2))
    with_images, without = [progress_of(state, rate) for rate in steps]
    assert without == with_images._replace(iteration=2)


def test_the_limit_of_bad_images_is_for_those_of_all_ranks():
    class BesideThree(OfTwo):
        def gathered(self, content):
            return [content, ["3.png: broken.", "4.png: broken.", "5.png: broken."]]

    bad_images = BadImages(10, skip=True)
    list(bad_images.passing([Loaded(batch_of(1), ["0.png: broken.", "1.png: broken.", "2.png: broken."])]))
    with pytest.raises(UserError, match=r"^5\.png: broken\. This is bad image 6 of 10, .* allows only 5\."):
        log_bad_images(SimpleNamespace(ranks=BesideThree(0, 2), bad_images=bad_images))


def test_a_rank_without_images_measures_no_statistics():
    class BesideOne(OfTwo):
        def summed(self, numbers):  # the other rank has an image too
            return numbers.add_(0 if numbers.ndim else 1)

    ends = []
    for group in ([batch_of(1)], [batch_of(1), batch_of(0)]):
        torch.manual_seed(0)
        state = small_state(small_network(learn_statistics=True), optimizer="sgd")
        losses, ranks = small_losses(state.network), BesideOne(0, 2)
        how = {"rates": [0.1], "clip_norm": 1.0, "compute_losses": losses, "ranks": ranks}
        assert list(train_steps(state, [group], **how)) == [0.1]
        ends.append(state.network.backbone.bn1.running_mean.tolist())
    assert ends[0] == ends[1]
    assert ends[0] != small_network().backbone.bn1.running_mean.tolist()


@pytest.mark.parametrize(("device", "grace"), [("cuda", 300), ("cpu", 0)])
def test_a_late_rank_is_noticed_by_gloo_before_nccl_ends_the_process(monkeypatch, device, grace):
    made, used = [], []

    class Works:
        def wait(self):
            pass

    def reduced(tensor, operation, group, async_op):
        used.append(group)
        return Works()

    monkeypatch.setattr(dist, "TCPStore", lambda *where, **how: dist.HashStore())
    monkeypatch.setattr(dist.HashStore, "wait", lambda self, keys, timeout: None, raising=False)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: made.append((backend, how["timeout"])))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: (backend, timeout))
    monkeypatch.setattr(dist, "all_reduce", reduced)
    monkeypatch.setattr(dist, "barrier", used.append)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    ranks = join(torch.device(device), 40)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    assert made == [(backend, timedelta(seconds=40 + grace))]
    assert (ranks.group, ranks.steps) == (("gloo", timedelta(days=1)), ("gloo", timedelta(seconds=40)))
    agreement = Agreement(ranks)
    agreement.put_forward(15)
    assert agreement.outcome() == 15
    ranks.meet()
    ranks.wait()
    assert used == [ranks.steps, ranks.steps, ranks.group]


def test_ranks_meet_before_each_step():
    """On a GPU a step only fills a queue, which would hold the host up behind a rank that is missing."""
    events = []

    class Watched(OfTwo):
        def meet(self):
            events.append("meet")

        def summed(self, numbers):
            return numbers

    state = small_state()
    compute = small_losses(state.network)

    def losses(*arguments):
        events.append("losses")
        return compute(*arguments)

    how = {"rates": [1.0] * 3, "clip_norm": 1.0, "compute_losses": losses}
    assert list(train_steps(state, [[batch_of(1)] * 2, [batch_of(1)]], **how, ranks=Watched(0, 2))) == [1.0, 1.0]
    assert events == ["meet", "losses", "losses", "meet", "losses"]


@pytest.fixture
def group_of_one():
    """PyTorch's collectives work, without another process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("is_stopped", [False, True])
def test_ranks_meet_before_numbers_are_read(coco_path, tmp_path, capsys, is_stopped):
    """What is read from a GPU would never come if a rank is missing. Each step meets once by itself."""

    class Watched(OfTwo):
        def meet(self):
            print("meet")

    flags = ("--epochs", 1, "--batch_size", 1, "--log_every", 3, "--save_every", 4, "--output_path", tmp_path)
    run = small_run(coco_path, *flags)._replace(ranks=Watched(0, 2))
    saves = SimpleNamespace(save_state=lambda: print("save"), save_state_if_long_ago=lambda: None)
    val_pictures = ValPictures(run.sets.val_set, run.ranks, timeout=1, is_resumed=True)
    box_look = BoxLook(run.sets.training_set, "", is_wanted=False)
    capsys.readouterr()

    def stop(batch):
        if is_stopped and batch == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with before_each_batch(stop), STOP.heeded(), STOP.deferred():
        if is_stopped:
            with pytest.raises(Stopped):
                train_epoch(run, saves, NO_TRACKERS, val_pictures, box_look)
        else:
            train_epoch(run, saves, NO_TRACKERS, val_pictures, box_look)

    words = [
        re.sub(r"^Epoch: 0 \| Iteration: (\d) .*", r"line \1", line) for line in capsys.readouterr().out.splitlines()
    ]
    steps_1_to_4 = "meet meet line 1 meet meet meet line 3 meet meet save"
    # A stop is agreed on while the step after the signal's is launched, and what is saved then is read too.
    rest = "meet meet meet line 6 meet" if is_stopped else "meet meet meet line 6 meet meet meet line 8 save"
    assert " ".join(words).startswith(f"{steps_1_to_4} {rest}")


@pytest.mark.usefixtures("group_of_one")
def test_a_signal_in_the_last_step_of_an_epoch_stops_the_ranks_after_it(coco_path, tmp_path):
    """Even if each epoch has a single step."""
    run = small_run(coco_path, "--batch_size", 8, "--output_path", tmp_path)._replace(ranks=OfTwo(0, 2))
    saves = SimpleNamespace(save_state_if_long_ago=lambda: None)
    val_pictures = ValPictures(run.sets.val_set, run.ranks, timeout=1, is_resumed=True)
    box_look = BoxLook(run.sets.training_set, "", is_wanted=False)
    kill = before_each_batch(lambda batch: os.kill(os.getpid(), signal.SIGTERM))
    with kill, STOP.heeded(), STOP.deferred(), pytest.raises(Stopped):
        train_epoch(run, saves, NO_TRACKERS, val_pictures, box_look)
    assert (run.state.epoch, run.state.iteration) == (1, 0)


@pytest.mark.parametrize("flag", ["broadcast_buffers", "forward_sync_buffers"])
@pytest.mark.parametrize("learns", [True, False])
def test_statistics_are_shared_by_the_flag_that_pytorch_has(monkeypatch, flag, learns):
    given = []

    class Called:
        def __call__(self):
            return torch.zeros((), requires_grad=True)

    class Wrapped(Called):
        def __init__(self, module, *, broadcast_buffers=None):
            given.append(("broadcast_buffers", broadcast_buffers))

    class WrappedLater(Called):
        def __init__(self, module, *, broadcast_buffers=None, forward_sync_buffers=None):
            given.append(("forward_sync_buffers", forward_sync_buffers))

    known = Wrapped if flag == "broadcast_buffers" else WrappedLater
    monkeypatch.setattr(losses_module, "DistributedDataParallel", known)
    losses_module.shared(small_network(learn_statistics=learns).train(), None, Ranks(0, 2))
    assert given == [(flag, learns)]


def test_a_rank_ends_at_once(monkeypatch):
    """At the interpreter's end NCCL's destructors may wait for a rank that is gone."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)

    def main():
        raise Stopped(signal.SIGTERM)

    with pytest.raises(SystemExit):  # where the process would have ended already
        run(main)
    assert ended == [128 + signal.SIGTERM]
