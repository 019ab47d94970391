#!/usr/bin/env bash
# Check and measure on a GPU, the most valuable first. A call takes at most 8 minutes; the next one continues where it
# stopped. The result of each part is a file in RESULTS as soon as it is there, and together they are the record:
#
#   bash benchmarks/on_gpu.sh RESULTS [DATA [WEIGHTS]]
#   cat RESULTS/*.md > benchmarks/results/gpu.md
#
# DATA is a data folder with train and val sets (generated where it is missing), WEIGHTS a ResNet-18's state dict. A part
# that failed says so in its file; remove the file to run the part again. To see that the script itself works, TINY=cpu
# runs all in a tiny form on a CPU, and TINY=cuda on a GPU that is not there:
#
#   TINY=cuda PYTHON=tests/gpu/python.sh bash benchmarks/on_gpu.sh RESULTS
set -u
[ $# -ge 1 ] || { echo "on_gpu.sh: name a folder for the results" >&2; exit 2; }
mkdir -p "$1" || exit 2
results=$(cd "$1" && pwd)
data=${2:+$(realpath "$2")}
weights=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seconds_a_call=${SECONDS_A_CALL:-480}
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
number=0 failed=0 left=0

part() {  # part SECONDS TITLE COMMAND...: a part with its limit; one that fails does not stop the others
    local limit=$1 title=$2 started=$SECONDS file status=0
    shift 2
    number=$((number + 1))
    file=$(printf '%s/%02d_%s' "$results" $number "${title//[^a-zA-Z0-9]/_}")
    if [ -e "$file.md" ]; then
        ! grep -q '^\*\*FAILED\*\*' "$file.md" || failed=$((failed + 1))
        return
    fi
    if [ $left -gt 0 ] || [ $((SECONDS + limit)) -gt "$seconds_a_call" ]; then
        left=$((left + 1))  # parts keep their order, so the record does not depend on the calls
        return
    fi
    local command=${*//$work/WORK}
    [ -z "$data" ] || command=${command//$data/DATA}
    [ -z "$weights" ] || command=${command//$weights/WEIGHTS}
    {
        printf '## %s\n\n`%s`\n\n' "$title" "$command"
        timeout "$limit" "$@" 2>"$work/errors" || status=$?
        [ $status = 0 ] || { printf '\n**FAILED** (exit code %d)\n\n' $status; tail -n 15 "$work/errors"; }
        printf '\n(%d s, %s, commit %s)\n\n' $((SECONDS - started)) "$(date +%F)" "$commit"
        [ $status = 0 ]
    } >"$file.part" || failed=$((failed + 1))
    mv "$file.part" "$file.md"
    cat "$file.md"
}

if [ -n "${TINY:-}" ]; then
    device=$TINY
    seconds_a_call=${SECONDS_A_CALL:-3600}
    generated=(--num_train 40 --num_val 20)
    check=(--height 128 --width 128 --batch_size 1)
    compiled=(--no_compile)
    large=(--depth 18 --height 64 --width 96 --batch_size 2 --num_classes 5 --repeats 1 --warm_up 1 --device "$device")
    small=("${large[@]}")
    step=(--matrix_side 256)
    files=(--min_side 64 --max_side 96 --num_batches 2)
    train=(--min_side 64 --max_side 96 --channels 32 --epochs 1)
    sides=(64 96)
    metric=(--num_images 50 --num_classes 5)
    loss=(--height 64 --width 96)
    replayed=(--compile off)
else
    device=cuda
    generated=()
    check=()
    compiled=()
    large=(--depth 50 --height 608 --width 1024 --batch_size 16 --device cuda)
    small=(--depth 50 --height 608 --width 1024 --batch_size 2 --device cuda)
    step=(--compile)
    files=(--max_side 608)  # one padded shape, so one compilation
    train=(--min_side 608 --max_side 1024 --batch_size 16 --epochs 3)
    sides=(480 608 736)
    metric=()
    loss=()
    replayed=(--compile on --batch_size 2 --max_side 608)
fi
if [ -z "$data" ]; then
    data=$work/data
    "$python" -m retinanet.sample_data "$data" "${generated[@]}" >/dev/null || exit 1
fi
first=$device
[ "$device" = cpu ] || first=cuda:0
checks=("$python" -m benchmarks.checks.device_checks --device "$device" "${check[@]}")
training=("$python" train.py --coco_path "$data" --weights "${weights:-none}" --depth 18 "${train[@]}")
strong=(--recipe strong --accumulate 2 --head_norm group --class_loss quality --train_sides "${sides[@]}")

part 130 "Right results" "${checks[@]}" "${compiled[@]}" --recipes defaults --precisions float32 bfloat16
part 120 "Step of a large batch" "$python" -m benchmarks.speed.step "${large[@]}" "${step[@]}"
part 90 "Step of a small batch" "$python" -m benchmarks.speed.step "${small[@]}" "${step[@]}"
part 40 "Detection of a large batch" "$python" -m benchmarks.speed.detect "${large[@]}"
part 30 "Detection of a small batch" "$python" -m benchmarks.speed.detect "${small[@]}"
part 40 "A training from JPEGs, resumed" "${training[@]}" --device "$device" --output_path "$work/verified" \
    --deterministic --verify_resume 10
part 60 "A short training, on the first GPU by name" "${training[@]}" --device "$first" --eval_every 100 \
    --log_every 20 --output_path "$work/output"
part 90 "A training of compiled small batches, resumed" "${training[@]}" "${replayed[@]}" --device "$device" \
    --output_path "$work/replayed" --deterministic --verify_resume 10
part 150 "Steps from JPEGs" "$python" -m benchmarks.speed.step "${large[@]}" "${step[@]}" --data "$data" "${files[@]}"
part 90 "Short trainings with the strong recipe, evaluated with several views" bash -c '
    set -e
    output=$1 python=$2 coco_path=$3 device=$4
    shift 4
    "$@" --device "$device" --output_path "$output" --eval_every 100 --log_every 20 \
        --augment photometric crop zoom_out
    "$python" test.py --coco_path "$coco_path" --set_name val --device "$device" --flip_test \
        --checkpoint_path "$output/model_final.pt" --results_path "$output/results.json" --num_draws 0' \
    strong "$work/strong" "$python" "$data" "$device" "${training[@]}" "${strong[@]}"
part 300 "Right results of other settings" "${checks[@]}" "${compiled[@]}"
part 15 "Loss" "$python" -m benchmarks.speed.loss --device "$device" "${loss[@]}"
part 30 "Metric" "$python" -m benchmarks.speed.evaluate "${metric[@]}"
part 30 "Saving, resuming, determinism" "$python" -m benchmarks.speed.saving "${small[@]}"
part 10 "Predicted beforehand" cat benchmarks/results/gpu_model.md

[ $failed = 0 ] || echo "$failed parts FAILED; their files in $results say how."
[ $left = 0 ] && echo "All parts ran." || echo "$left parts are left: give the same command again."
[ $failed = 0 ]
