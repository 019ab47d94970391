#!/usr/bin/env bash
# Check and measure everything on a GPU, in at most 25 minutes: each part has a limit. The output is the record: keep it
# in benchmarks/results/.
#
#   bash benchmarks/on_gpu.sh [DATA [WEIGHTS]] | tee benchmarks/results/gpu.md
#
# DATA is a data folder with train and val sets (generated where it is missing), WEIGHTS a ResNet-18's state dict. To see
# that the script itself works, TINY=cpu runs all in a tiny form on a CPU, and on a GPU that is not there:
#
#   TINY=cuda PYTHON=tests/gpu/python.sh bash benchmarks/on_gpu.sh
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=${1:-}
weights=${2:-none}
failed=0

part() {  # part SECONDS TITLE COMMAND...: one section of the record; a part that fails does not stop the others
    local limit=$1 title=$2 started=$SECONDS
    shift 2
    [ -z "${TINY:-}" ] || limit=$((3 * limit))  # a CPU takes longer
    local command=${*//$work/WORK}
    command=${command//$data/DATA}
    [ "$weights" = none ] || command=${command//$weights/WEIGHTS}
    printf '\n## %s\n\n`%s`\n\n' "$title" "$command"
    timeout "$limit" "$@" 2>"$work/errors" || { failed=1; printf '\n**FAILED**\n\n'; tail -n 15 "$work/errors"; }
    printf '\n(%d s)\n' $((SECONDS - started))
}

if [ -z "$data" ]; then
    data=$work/data
    "$python" -m retinanet.sample_data "$data" ${TINY:+--num_train 40 --num_val 20} >/dev/null || exit 1
fi
if [ -n "${TINY:-}" ]; then
    device=$TINY
    check=(--height 128 --width 128 --batch_size 1 --no_compile)
    large=(--depth 18 --height 64 --width 96 --batch_size 2 --num_classes 5 --repeats 1 --warm_up 1 --device "$device")
    small=("${large[@]}")
    files=(--data "$data" --min_side 64 --max_side 96 --num_batches 2)
    train=(--min_side 64 --max_side 96 --channels 32 --epochs 1)
    sides=(64 96)
    metric=(--num_images 50 --num_classes 5)
    loss=(--height 64 --width 96)
    steps=(--matrix_side 256)
    replayed=(--compile off)
else
    device=cuda
    check=()
    large=(--depth 50 --height 608 --width 1024 --batch_size 16 --device cuda)
    small=(--depth 50 --height 608 --width 1024 --batch_size 2 --device cuda)
    files=(--data "$data" --max_side 608)  # one padded shape, so one compilation
    train=(--min_side 608 --max_side 1024 --batch_size 16 --epochs 3)
    sides=(480 608 736)
    metric=()
    loss=()
    steps=(--compile)
    replayed=(--compile on --batch_size 2 --max_side 608)
fi

first=$device
[ $device = cpu ] || first=cuda:0

echo "# Checks and measurements, $(date +%F), commit $(git describe --always --dirty 2>/dev/null)"
part 480 "Right results" "$python" -m benchmarks.checks.device_checks --device $device "${check[@]}"
part 60 "A short training, on the first GPU by name" "$python" train.py --coco_path "$data" --weights "$weights" \
    --depth 18 "${train[@]}" --device $first --eval_every 100 --log_every 20 --output_path "$work/output"
part 45 "The same with the strong recipe and more" "$python" train.py --coco_path "$data" --weights "$weights" --depth 18 \
    "${train[@]}" --device $device --recipe strong --accumulate 2 --head_norm group --iou_branch --class_loss quality \
    --train_sides "${sides[@]}" --augment photometric crop zoom_out \
    --eval_every 100 --log_every 20 --output_path "$work/recommended"
part 30 "Its evaluation, with several looks at each image" "$python" test.py --coco_path "$data" --set_name val \
    --device $device --checkpoint_path "$work/recommended/model_final.pt" --results_path "$work/results.json" \
    --flip_test --test_sides "${sides[@]}" --num_draws 0
part 10 "Predicted beforehand" cat benchmarks/results/gpu_model.md
part 300 "Step, large batch, and from JPEGs" "$python" -m benchmarks.speed.step "${large[@]}" "${files[@]}" "${steps[@]}"
part 60 "Step, small batch" "$python" -m benchmarks.speed.step "${small[@]}" "${steps[@]}"
part 35 "Detection, large batch" "$python" -m benchmarks.speed.detect "${large[@]}"
part 15 "Loss" "$python" -m benchmarks.speed.loss --device $device "${loss[@]}"
part 30 "Metric" "$python" -m benchmarks.speed.evaluate "${metric[@]}"
part 35 "A resumed run is the same run" "$python" train.py --coco_path "$data" --weights "$weights" --depth 18 \
    "${train[@]}" --device $device --output_path "$work/verified" --deterministic --verify_resume 10
part 75 "The same compiled, in small batches" "$python" train.py --coco_path "$data" --weights "$weights" --depth 18 \
    "${train[@]}" "${replayed[@]}" --device $device --output_path "$work/replayed" --deterministic --verify_resume 10
part 20 "Saving, resuming, determinism" "$python" -m benchmarks.speed.saving "${small[@]}"
echo
[ $failed = 0 ] && echo "All parts ran." || echo "SOME PARTS FAILED."
exit $failed
