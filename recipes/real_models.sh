#!/usr/bin/env bash
# Measures published models with the benchmarks of this library: one command for whoever has a hub and a GPU.
#
#   recipes/real_models.sh --dry-run          prints the commands and the expected times, and runs nothing
#   recipes/real_models.sh                    runs everything; after a stop, the same command goes on
#   recipes/real_models.sh --model Qwen/Qwen2.5-VL-3B-Instruct --out runs/qwen
#   recipes/real_models.sh --model mini --episodes 4 --run digits-real --run probe      a toy run, without hub and GPU
#
# In the end there is one archive to send back, DIR/results.tar.gz: json files with figures and settings (paths of this
# machine among them), versions, the machine and the logs, and neither pictures nor weights. docs/engines.md says more.
set -euo pipefail

# Model; billions of parameters of its language model; tokens of a picture of 64 x 64 to 500 x 375 as its processor makes
# them by default. The last two are assumptions, from which the expected times are computed.
MODELS="
Qwen/Qwen2.5-VL-3B-Instruct 3.1 64
Qwen/Qwen3-VL-2B-Instruct 1.7 64
OpenGVLab/InternVL3_5-2B-HF 1.7 256
google/gemma-3-4b-it 3.9 256
HuggingFaceTB/SmolVLM2-2.2B-Instruct 1.7 1100
"
# Name; share of --episodes; the arguments. {isekai} is a folder that is drawn first.
RUNS="
world 1 eval --data world:9001 --ways 2 --shots 0 1 2 4 8 16 --scoring both --explain 0
world-5way 1 eval --data world:9001 --ways 5 --shots 0 1 2 4 --scoring both --explain 0
digits 1 eval --data digits --ways 2 --shots 0 1 2 4 8 16 --scoring both --explain 0
digits-real 1 eval --data digits --names real --ways 2 --shots 0 1 4 --scoring both --explain 0
swapped 1 eval --data digits --names swapped --ways 2 --shots 1 4 16 --scoring both --explain 0
isekai all eval --benchmark isekai --data {isekai} --shots 0 1 2 4 8 --scoring both --explain 0
world-icl 1 eval --benchmark world-icl --data scenes:9001 --explain 0
probe 1 probe --data world:9001 --shots 4
"
RATE=100        # operations a second that the GPU reaches, in 1e12: an assumption, a tenth of an H100's bfloat16
HOST=0.1        # seconds of an episode outside of the network: measured, benchmarks/results/scale.json

usage="usage: recipes/real_models.sh [--out DIR] [--model NAME]... [--run NAME]... [--episodes N] [--processes N]
       [--dry-run]"
refuse() { printf 'real_models.sh: %s\n' "$1" >&2; exit 2; }
value() { [ $# -ge 2 ] && [ -n "$2" ] || refuse "$1 needs a value. $usage"; printf '%s' "$2"; }
number() { [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || refuse "$1 $2: not a whole number of 1 or more."; printf '%s' "$2"; }

out=runs/real-models episodes=256 processes="" dry="" chosen=() wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$(value "$@"); shift 2 ;;
    --model) chosen+=("$(value "$@")"); shift 2 ;;
    --run) wanted+=("$(value "$@")"); shift 2 ;;
    --episodes) episodes=$(number --episodes "$(value "$@")"); shift 2 ;;
    --processes) processes=$(number --processes "$(value "$@")"); shift 2 ;;
    --dry-run) dry=1; shift ;;
    --help | -h) sed -n '2,11s/^# \{0,1\}//p' "$0"; printf '%s\n' "$usage"; exit 0 ;;
    *) refuse "$1: no such option. $usage" ;;
  esac
done
if [ ${#chosen[@]} -eq 0 ]; then
  while read -r name _; do [ -z "$name" ] || chosen+=("$name"); done <<<"$MODELS"
fi
for name in "${chosen[@]}"; do
  [[ $name =~ ^[A-Za-z0-9._/:#,@-]+$ && $name != -* ]] || refuse "--model $name: not the name of a model or of a folder."
done
runs=()
while read -r name _; do [ -z "$name" ] || runs+=("$name"); done <<<"$RUNS"
for name in ${wanted[@]+"${wanted[@]}"}; do
  [[ " ${runs[*]} " == *" $name "* ]] || refuse "--run $name: not one of ${runs[*]}."
done
is_wanted() { [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]]; }
[ ! -e "$out" ] || [ -d "$out" ] || refuse "--out $out: there is a file of this name. Choose another folder."

PYTHON=${PYTHON:-python}
if [ -z "$dry" ]; then
  "$PYTHON" -c 'import linkcontext' 2>/dev/null ||
    refuse "$PYTHON cannot import linkcontext. Run pip install 'linkcontext[hub,vision]', or set PYTHON to its Python."
  mkdir -p "$out" || refuse "--out $out: the folder cannot be made."
fi
if [ -z "$processes" ]; then  # one for each GPU
  processes=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
  [ "$processes" -ge 1 ] || processes=1
fi
launch=("$PYTHON" -m linkcontext)
[ "$processes" -eq 1 ] || launch=("$PYTHON" -m torch.distributed.run --nproc_per_node "$processes" -m linkcontext)

# hours MODEL: what the whole list is expected to take; nothing for a model that is not in the table.
hours() {
  awk -v model="$1" -v wanted=" ${wanted[*]-} " -v rate="$RATE" -v host="$HOST" -v episodes="$episodes" -v gpus="$processes" '
    NF == 3 && $1 == model { billions = $2; tokens = $3 }
    NF > 4 && billions && (wanted == "  " || index(wanted, " " $1 " ")) {
      ways = 2; most = 0; count = 0; shots = 0; drawn = episodes
      for (i = 4; i <= NF; i++) {
        if ($i == "--ways") ways = $(i + 1)
        if ($i ~ /^--/) shots = ($i == "--shots")
        else if (shots) { count++; if ($i + 0 > most) most = $i + 0 }
      }
      if ($3 == "probe") drawn = 25 * episodes    # ten probes, some of them with several conditions
      if ($0 ~ /world-icl/) { count = 4; most = 8; drawn = 2 * episodes }
      if ($2 == "all") drawn = 200
      tree = (ways * most + count * (ways + 1)) * (tokens + 20)
      seconds += drawn * (2e9 * billions * tree * 1.5 / (rate * 1e12) + host)   # 1.5: attention and the vision tower
    }
    END { if (seconds) printf "%.1f", seconds / 3600 / gpus }' <<<"$MODELS$RUNS"
}

isekai=$out/data/isekai-10
quoted() { printf '%q ' "$@"; printf '\n'; }
perform() {  # perform LOG COMMAND...: run it with its output in a log, or print it
  local log=$1; shift
  if [ -n "$dry" ]; then quoted "$@"; return 0; fi
  quoted "$@" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null
}

[ -n "$dry" ] || mkdir -p "$out/logs"
if is_wanted isekai && [ ! -d "$isekai" ]; then
  perform "$out/logs/isekai.log" "$PYTHON" -m linkcontext world --isekai 10 --seed 1 --out "$isekai" ||
    refuse "the pictures of isekai could not be drawn; the end of $out/logs/isekai.log says why."
fi

failed=() finished=0
for model in "${chosen[@]}"; do
  short=${model//[^A-Za-z0-9._-]/-} expected=$(hours "$model")
  printf '%s: %s\n' "$model" "${expected:-unknown time}${expected:+ h expected (from assumed rates and token counts, see the script)}"
  while read -r name share command rest; do
    [ -n "$name" ] && is_wanted "$name" || continue
    folder=$out/$short/$name log=$out/logs/$short-$name.log
    if [ -e "$folder/metrics.json" ] || [ -e "$folder/probe.json" ]; then
      printf '  %-12s done before\n' "$name"; finished=$((finished + 1)); continue
    fi
    read -ra arguments <<<"${rest//\{isekai\}/$isekai}"
    [ "$share" = all ] || arguments+=(--episodes "$episodes")
    begun=$SECONDS
    if perform "$log" "${launch[@]}" "$command" --model "$model" "${arguments[@]}" --out "$folder"; then
      [ -n "$dry" ] || { printf '  %-12s %d s\n' "$name" $((SECONDS - begun)); finished=$((finished + 1)); }
    else
      status=$?
      # A stop by the user ends the script; another failure is reported in the end, after the other runs.
      [ $status -ne 130 ] && [ $status -ne 143 ] || { echo "stopped; the same command goes on" >&2; exit $status; }
      printf '  %-12s FAILED: %s\n' "$name" "$(tail -n 1 "$log")"; failed+=("$short/$name")
    fi
  done <<<"$RUNS"
done
[ -z "$dry" ] || exit 0

{
  date -u +%Y-%m-%dT%H:%MZ
  uname -srm
  { nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU"; }
  "$PYTHON" -m pip list 2>/dev/null | grep -Ei '^(linkcontext|torch|torchvision|transformers|accelerate|numpy|pillow) ' || true
  printf 'episodes %s, processes %s\n' "$episodes" "$processes"
} >"$out/machine.txt"
(cd "$out" && find . -name '*.json' -not -path './data/*' -o -path './logs/*.log' -o -name machine.txt | LC_ALL=C sort |
  tar -czf results.tar.gz.part -T - && mv results.tar.gz.part results.tar.gz)
echo "$finished runs finished; send back: $out/results.tar.gz ($(du -k "$out/results.tar.gz" | cut -f1) kB)"
if [ ${#failed[@]} -gt 0 ]; then
  echo "${#failed[@]} runs failed (their logs are in the archive): ${failed[*]}. The same command tries them again." >&2
  exit 1
fi
