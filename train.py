"""Train a RetinaNet on a COCO-format data set."""

import argparse
import secrets
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from retinanet import loss, matching, model, schedule, transforms
from retinanet.annotations import Annotations, has_objects, require_same_classes
from retinanet.backbone import DEPTHS, imagenet_state, load_backbone, read_state_file
from retinanet.checkpoint import Checkpoint, save_checkpoint
from retinanet.command_line import (
    HelpFormatter,
    add_detection_flags,
    add_machine_flags,
    default_workers,
    detect_settings,
    load_set,
    memory_in_use,
    number_above,
    number_from,
    plain_settings,
    run,
    say,
    whole_number,
)
from retinanet.data import FLIP_PROBABILITY, BadImages, CocoDataset, evaluation_loader, training_loader
from retinanet.engine import Progress, RunningLoss, build_optimizer, detect_all, train_epoch
from retinanet.errors import UserError
from retinanet.evaluate import AP, evaluate
from retinanet.output import prepare_folder, write_record


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--coco_path", type=Path, default=Path("data"), help="the data folder; data/README.md")
    data.add_argument("--train_set", default="train", help="name of the set to train on")
    data.add_argument("--val_set", default="val", help="name of the set to evaluate on")
    data.add_argument("--min_side", type=whole_number(32), default=transforms.MIN_SIDE, help="shorter side, pixels")
    data.add_argument("--max_side", type=whole_number(32), default=transforms.MAX_SIDE, help="longer side, at most")
    data.add_argument("--flip", type=number_from(0, 1), default=FLIP_PROBABILITY, help="probability of mirroring")
    data.add_argument("--batch_size", type=whole_number(1), default=2, help="images of a step")
    data.add_argument("--drop_last", action="store_true", help="leave out the images that don't fill a batch")
    data.add_argument(
        "--bad_images",
        choices=("stop", "skip"),
        default="stop",
        help="at an image that can't be read: stop, or train without it (up to 1 in 100)",
    )

    network = parser.add_argument_group("network")
    network.add_argument("--depth", type=int, choices=DEPTHS, default=50, help="layers of the ResNet")
    network.add_argument("--channels", type=whole_number(1), default=model.CHANNELS, help="width of pyramid and heads")
    network.add_argument(
        "--weights",
        default="imagenet",
        help="start of the ResNet: imagenet (downloaded once), none, or a state dict FILE, which may hold a part of it",
    )
    network.add_argument("--prior", type=number_above(0, 0.999), default=model.PRIOR, help="score that all start with")

    losses = parser.add_argument_group("loss")
    losses.add_argument("--alpha", type=number_from(0, 1), default=loss.ALPHA, help="focal loss: weight of objects")
    losses.add_argument("--gamma", type=number_from(0), default=loss.GAMMA, help="focal loss: focus on hard anchors")
    losses.add_argument("--beta", type=number_above(0), default=loss.BETA, help="smooth L1: where it turns linear")
    losses.add_argument(
        "--foreground_iou",
        type=number_above(0, 1),
        default=matching.FOREGROUND_IOU,
        help="anchors that overlap an object so much must find it",
    )
    losses.add_argument(
        "--background_iou",
        type=number_from(0, 1),
        default=matching.BACKGROUND_IOU,
        help="anchors that overlap all objects less must find nothing",
    )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--epochs", type=whole_number(1), default=72)
    optimisation.add_argument("--optimizer", choices=("adam", "adamw", "sgd"), default="adam")
    optimisation.add_argument("--learning_rate", type=number_above(0), default=1e-4)
    optimisation.add_argument("--weight_decay", type=number_from(0), default=0.0)
    optimisation.add_argument(
        "--milestones", type=whole_number(0), nargs="*", default=[48, 64], help="epochs that divide the rate by 10"
    )
    optimisation.add_argument("--clip_norm", type=number_above(0), default=0.1, help="largest norm of the gradient")
    optimisation.add_argument("--seed", type=seed, default=3407, help="a whole number, or random: drawn and printed")

    output = parser.add_argument_group("output")
    output.add_argument("--output_path", type=Path, default=Path("output"), help="folder of checkpoints and run.json")
    output.add_argument("--eval_every", type=whole_number(1), default=10, help="epochs between evaluations")
    output.add_argument("--log_every", type=whole_number(1), default=100, help="iterations between lines of the log")
    add_detection_flags(parser)
    add_machine_flags(parser)
    return parser


def seed(text: str) -> int:
    return secrets.randbelow(2**31) if text == "random" else whole_number(0)(text)


class Job(NamedTuple):
    """All that a run needs, checked before the first file is written."""

    args: argparse.Namespace
    val: Annotations
    training_set: CocoDataset
    val_set: CocoDataset
    network: model.RetinaNet


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers is None:
        args.workers = default_workers(args.device)
    job = prepare(parser, args)
    moved = prepare_folder(args.output_path)
    if moved:
        say(f"{args.output_path} holds an earlier run: its {moved[1]} files are now in {moved[0]}")
    write_record(args.output_path, plain_settings(args), job.val.class_names, args.device)
    say(f"Seed: {args.seed}")
    say(f"Num training images: {len(job.training_set)}")
    say(f"Not trained on: {job.training_set.num_crowds} crowds, {job.training_set.num_empty} boxes without area")
    try:
        epoch_loss_list = train(job)
    except FloatingPointError as fault:
        raise UserError(
            f"{args.output_path}: training diverged: {fault}. Its checkpoints are from before. Lower --learning_rate."
        ) from None
    say("epoch_loss_list:")
    say(str(epoch_loss_list))
    return 0


def prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Job:
    """Check the flags against each other, the data and the weights, and build the network."""
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is below --min_side {args.min_side}")
    if args.background_iou > args.foreground_iou:
        parser.error(f"--background_iou {args.background_iou} is above --foreground_iou {args.foreground_iou}")
    if args.output_path.exists() and not args.output_path.is_dir():
        parser.error(f"--output_path {args.output_path} is a file, not a folder")
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": args.max_pixels}
    train_annotations, training_set = load_set(
        args.coco_path, args.train_set, **sides, require_images=args.bad_images == "stop"
    )
    val, val_set = load_set(args.coco_path, args.val_set, **sides)
    require_same_classes(val, train_annotations.class_names, train_annotations.category_ids, train_annotations.path)
    if args.drop_last and len(training_set) < args.batch_size:
        raise UserError(
            f"{train_annotations.path}: its {len(training_set)} images don't fill one batch of {args.batch_size}, and "
            "--drop_last leaves them all out. Lower --batch_size, or leave --drop_last away."
        )
    torch.manual_seed(args.seed)
    network = model.RetinaNet(
        len(val.class_names), args.depth, args.channels, args.prior, learn_statistics=args.weights == "none"
    )
    if args.weights != "none":
        load_weights(network, args.weights, args.depth)
    return Job(args, val, training_set, val_set, network.to(args.device))


def load_weights(network: model.RetinaNet, weights: str, depth: int) -> None:
    if weights == "imagenet":
        state, source = imagenet_state(depth), f"torchvision's resnet{depth}"
    else:
        state, source = read_state_file(weights), weights
    report = load_backbone(network.backbone, state, source)
    say(f"Backbone weights: {report.num_loaded} of {report.num_tensors} tensors loaded from {source}")
    say(f"Backbone weights that it lacks, random then: {', '.join(report.missing) or 'none'}")
    say(f"Weights in it without use: {', '.join(report.unused) or 'none'}")


def train(job: Job) -> list[float]:
    """Train all epochs; evaluate and save on the way. Returns the epochs' mean losses."""
    args = job.args
    optimizer = build_optimizer(job.network, args.optimizer, args.learning_rate, args.weight_decay)
    loader, sampler = training_loader(
        job.training_set,
        batch_size=args.batch_size,
        seed=args.seed,
        workers=args.workers,
        pin_memory=args.device.type == "cuda",
        drop_last=args.drop_last,
        flip_probability=args.flip,
    )
    bad_images = BadImages(len(job.training_set), skip=args.bad_images == "skip")
    running_loss = RunningLoss(args.device)
    loss_flags = ("alpha", "gamma", "beta", "foreground_iou", "background_iou")
    epoch_loss_list: list[float] = []
    best_ap = float("-inf")
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        first_step = epoch * len(sampler)
        for progress in train_epoch(
            job.network,
            bad_images.passing(tqdm(loader, f"Epoch {epoch}", leave=False, disable=None)),
            optimizer,
            running_loss,
            device=args.device,
            rates=[
                schedule.learning_rate(step, args.learning_rate, len(sampler), args.milestones)
                for step in range(first_step, first_step + len(sampler))
            ],
            clip_norm=args.clip_norm,
            log_every=args.log_every,
            loss_settings={name: getattr(args, name) for name in loss_flags},
        ):
            for message in bad_images.take_news():
                say(f"Bad image {len(bad_images.messages)}, left out: {message}")
            steps_left = args.epochs * len(sampler) - first_step - progress.iteration
            say(log_line(epoch, progress, steps_left * args.batch_size, args.device))
        epoch_loss_list.append(progress.epoch_mean)
        finished = epoch + 1
        if finished % args.eval_every == 0 or finished == args.epochs:
            ap = evaluate_val(job)
            checkpoint = snapshot(job, finished)
            save_checkpoint(checkpoint, args.output_path / f"retinanet_epoch{finished}.pt")
            if ap > best_ap:
                best_ap = ap
                save_checkpoint(checkpoint, args.output_path / "best.pt")
    save_checkpoint(snapshot(job, args.epochs), args.output_path / "model_final.pt")
    return epoch_loss_list


def log_line(epoch: int, progress: Progress, images_left: int, device: torch.device) -> str:
    fields = {
        "Epoch": epoch,
        "Iteration": progress.iteration,
        "Classification loss": f"{progress.classification:.5f}",
        "Regression loss": f"{progress.regression:.5f}",
        "Running loss": f"{progress.running:.5f}",
        "Learning rate": f"{progress.learning_rate:g}",
        "Images/s": f"{progress.images_per_second:.1f}",
        "Memory": f"{memory_in_use(device) / 1e9:.2f} GB",
        "Time left": timedelta(seconds=round(images_left / progress.images_per_second)),
    }
    return " | ".join(f"{name}: {value}" for name, value in fields.items())


def evaluate_val(job: Job) -> float:
    """Print the table of the val set and return its AP; 0 where there are no objects to compare with."""
    args = job.args
    loader = evaluation_loader(
        job.val_set, batch_size=args.batch_size, workers=args.workers, pin_memory=args.device.type == "cuda"
    )
    batches = BadImages(len(job.val_set), skip=False).passing(tqdm(loader, "Evaluation", leave=False, disable=None))
    rows = detect_all(
        job.network, batches, job.val.category_ids, device=args.device, detect_settings=detect_settings(args)
    )
    if not has_objects(job.val):
        say(f"{job.val.path} has no objects, so there is no table")
        return 0.0
    table = evaluate(job.val, rows)
    say(table.text)
    return table.numbers[AP]


def snapshot(job: Job, finished: int) -> Checkpoint:
    args = job.args
    return Checkpoint(
        model=job.network.state_dict(),
        depth=args.depth,
        channels=args.channels,
        class_names=job.val.class_names,
        category_ids=job.val.category_ids,
        min_side=args.min_side,
        max_side=args.max_side,
        batch_size=args.batch_size,
        epoch=finished,
        settings=plain_settings(args),
    )


if __name__ == "__main__":
    run(main)
