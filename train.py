"""Train a RetinaNet on a COCO-format data set."""

import argparse
from typing import NamedTuple

import torch
from tqdm import tqdm

from retinanet import model, schedule
from retinanet.annotations import Annotations, has_objects, require_same_classes
from retinanet.backbone import imagenet_state, load_backbone, read_state_file
from retinanet.bad_images import BadImages
from retinanet.checkpoint import Checkpoint, save_checkpoint
from retinanet.command_line import (
    default_workers,
    detect_settings,
    load_set,
    plain_settings,
    run,
    say,
)
from retinanet.compute import STEPS_WORTH_COMPILING, lacking_for_compilation, losses_of
from retinanet.data import CocoDataset, training_loader
from retinanet.engine import RunningLoss, build_optimizer, detect_all, train_epoch
from retinanet.errors import UserError
from retinanet.evaluate import AP, evaluate
from retinanet.image_cache import ImageCache, spare_memory
from retinanet.log_lines import epoch_line, log_line
from retinanet.loss import LossSettings
from retinanet.output import prepare_folder, write_record
from retinanet.precision import choose_precision
from retinanet.train_flags import build_parser
from retinanet.transforms import few_sides


class Job(NamedTuple):
    """All that a run needs, checked before the first file is written."""

    args: argparse.Namespace
    val: Annotations
    training_set: CocoDataset
    val_set: CocoDataset
    network: model.RetinaNet
    precision: torch.dtype


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers is None:
        args.workers = default_workers(args.device)
    job = prepare(parser, args)
    if args.cache == "ram":
        add_cache(job.training_set)
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
    lacking = lacking_for_compilation(args.device)
    if args.compile == "on" and lacking:
        parser.error(f"--compile on needs {lacking}. Install it, or leave the flag away")
    if args.background_iou > args.foreground_iou:
        parser.error(f"--background_iou {args.background_iou} is above --foreground_iou {args.foreground_iou}")
    sides = {"min_side": args.min_side, "max_side": args.max_side, "max_pixels": args.max_pixels}
    train_annotations, training_set = load_set(
        args.coco_path, args.train_set, **sides, require_images=args.bad_images == "stop"
    )
    val, val_set = load_set(args.coco_path, args.val_set, **sides)
    val_set.check_headers()  # or a bad one would end the run at its first evaluation, epochs from now
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
    precision = choose_precision(args.precision, args.device)
    return Job(args, val, training_set, val_set, network.to(args.device), precision)


def load_weights(network: model.RetinaNet, weights: str, depth: int) -> None:
    if weights == "imagenet":
        state, source = imagenet_state(depth), f"torchvision's resnet{depth}"
    else:
        state, source = read_state_file(weights), weights
    report = load_backbone(network.backbone, state, source)
    say(f"Backbone weights: {report.num_loaded} of {report.num_tensors} tensors loaded from {source}")
    say(f"Backbone weights that it lacks, random then: {', '.join(report.missing) or 'none'}")
    say(f"Weights in it without use: {', '.join(report.unused) or 'none'}")


def add_cache(training_set: CocoDataset) -> None:
    training_set.cache = cache = ImageCache(training_set.sizes, spare_memory())
    say(f"Image cache: room for {cache.num_images} of {len(training_set)} images, {cache.num_bytes / 1e9:.2f} GB")


def is_compiled(args: argparse.Namespace, num_steps: int) -> bool:
    """Whether the network is compiled: on a GPU, if the run is long enough to repay it, unless the user says."""
    if args.compile != "auto":
        return args.compile == "on"
    worth = args.device.type == "cuda" and num_steps >= STEPS_WORTH_COMPILING
    return worth and lacking_for_compilation(args.device) is None


def train(job: Job) -> list[float]:
    """Train all epochs; evaluate and save on the way. Returns the epochs' mean losses."""
    args = job.args
    compiled = is_compiled(args, args.epochs * len(job.training_set) // args.batch_size)
    optimizer = build_optimizer(job.network, args.optimizer, args.learning_rate, args.weight_decay)
    loader, sampler = training_loader(
        job.training_set,
        batch_size=args.batch_size,
        seed=args.seed,
        workers=args.workers,
        pin_memory=args.device.type == "cuda",
        drop_last=args.drop_last,
        flip_probability=args.flip,
        sides=few_sides(args.min_side, args.max_side) if compiled else None,
    )
    compute_losses = losses_of(
        job.network,
        len(job.val.class_names),
        args.device,
        precision=job.precision,
        compiled_batch_size=args.batch_size if compiled else None,
        loss_settings=LossSettings(*(getattr(args, name) for name in LossSettings._fields)),
    )
    # float16's small gradients would be lost without it.
    scaler = torch.amp.GradScaler(args.device.type, enabled=job.precision == torch.float16)
    say(f"Precision: {str(job.precision).removeprefix('torch.')}, {'compiled' if compiled else 'not compiled'}")
    bad_images = BadImages(len(job.training_set), skip=args.bad_images == "skip")
    running_loss = RunningLoss(args.device)
    epoch_loss_list: list[float] = []
    best_ap = float("-inf")
    num_images, seconds = 0, 0.0  # of the epochs finished
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
            compute_losses=compute_losses,
            scaler=scaler,
        ):
            report(bad_images)
            pace = (seconds + progress.seconds) / (num_images + progress.num_images)
            images_left = (args.epochs * len(sampler) - first_step - progress.iteration) * args.batch_size
            say(log_line(epoch, progress, images_left * pace, args.device))
        report(bad_images)
        say(epoch_line(epoch, progress))
        num_images, seconds = num_images + progress.num_images, seconds + progress.seconds
        epoch_loss_list.append(progress.epoch_mean)
        finished = epoch + 1
        if finished % args.eval_every == 0 or finished == args.epochs:
            checkpoint = snapshot(job, finished)
            save_checkpoint(checkpoint, args.output_path / f"retinanet_epoch{finished}.pt")
            if finished == args.epochs:
                save_checkpoint(checkpoint, args.output_path / "model_final.pt")
            ap = evaluate_val(job)  # after saving: whatever stops it, the weights are there
            if ap > best_ap:
                best_ap = ap
                save_checkpoint(checkpoint, args.output_path / "best.pt")
    return epoch_loss_list


def report(bad_images: BadImages) -> None:
    for message in bad_images.take_news():
        say(f"Bad image, left out: {message}")


def evaluate_val(job: Job) -> float:
    """Print the table of the val set and return its AP; 0 where there are no objects to compare with."""
    args = job.args
    rows = detect_all(
        job.network,
        job.val_set,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        precision=job.precision,
        detect_settings=detect_settings(args),
    )
    if not has_objects(job.val):
        say(f"{job.val.path} has no objects to compare with, so there is no table")
        return 0.0
    table = evaluate(job.val, rows, args.eval_backend)
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
