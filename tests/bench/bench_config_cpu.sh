#!/usr/bin/env bash
# Benchmark: config-cpu
# Whole configurations on the CPU (load, quantize, the demo's five evaluations) against the usual loop of transformers on the same
# cores: N_CONFIGS configurations of one checkpoint by one worker, its load and its 16-bit baseline shared among them, against one
# configuration of usual_loop.py in its best batch size. The scores of both must agree, else the benchmark fails.
# Needs a Python with torch and transformers: ISOBIT_PYTHON=/path/to/python3. ISOBIT_BENCH_MODEL names another checkpoint.
set -euo pipefail
bin=$1 python=${ISOBIT_PYTHON:-python3} model=${ISOBIT_BENCH_MODEL:-sweeps/demo/models/pythia-s2} threads=$(nproc)
"$python" -c 'import torch, transformers' 2>/dev/null ||
    { echo "config-cpu: $python has no torch and transformers; set ISOBIT_PYTHON" >&2; exit 4; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
demo=$PWD/sweeps/demo
cat >"$dir/bench.yaml" <<YAML
name: bench
compute: fp32
models: [{family: $(basename "$model" | cut -d- -f1), sizes: [b], path: $(realpath "$model")}]
configurations:
  - {k: 16}
  - {k: [4, 3, 5, 6], dtype: int, block: 64}
evaluations:
  - {name: corpus, task: perplexity, data: $demo/corpus.jsonl, window: 512, max_tokens: 16384}
  - {task: lambada, data: $demo/tasks/lambada.jsonl, limit: 120}
  - {task: winogrande, data: $demo/tasks/winogrande.jsonl, limit: 120}
  - {task: hellaswag, data: $demo/tasks/hellaswag.jsonl, limit: 120}
  - {task: piqa, data: $demo/tasks/piqa.jsonl, limit: 120}
YAML
start=$(date +%s.%N)
"$bin/isobit" run "$dir/bench.yaml" --db "$dir/bench.db" --workers 1 --no-report >"$dir/run.log" 2>&1 || { cat "$dir/run.log" >&2; exit 1; }
ours=$(echo "($(date +%s.%N) - $start) / 5" | bc -l)
best=
for batch in 1 4 16 64; do
    "$python" tests/bench/usual_loop.py --model "$model" --data "$demo" --batch $batch --threads "$threads" >"$dir/usual-$batch.json" 2>"$dir/usual.log" ||
        { cat "$dir/usual.log" >&2; exit 1; }
    total=$(jq .total "$dir/usual-$batch.json")
    printf 'usual loop, batch %-3s %6.1f s   (%s)\n' $batch "$total" "$(jq -c '.seconds | map_values(. * 10 | round / 10)' "$dir/usual-$batch.json")"
    if [ -z "$best" ] || [ "$(echo "$total < $best" | bc)" = 1 ]; then best=$total metrics=$dir/usual-$batch.json; fi
done
printf 'isobit, a configuration %4.1f s   (%s)\n' "$ours" "$(sqlite3 "$dir/bench.db" "SELECT group_concat(evaluation || ' ' || round(s, 1), ', ') FROM (SELECT evaluation, avg(seconds) AS s FROM jobs GROUP BY evaluation)")"
sqlite3 "$dir/bench.db" "SELECT evaluation, value FROM results WHERE k = 4 AND metric = CASE task WHEN 'perplexity' THEN 'perplexity' ELSE 'acc' END" |
    while IFS='|' read -r name value; do
        theirs=$(jq ".metrics[\"${name/corpus/perplexity}\"]" "$metrics")
        printf '%-12s isobit %10.5f   usual loop %10.5f\n' "$name" "$value" "$theirs"
        limit=$([ "$name" = corpus ] && echo "0.0001 * $theirs" || echo 0.0085) # one item of 120
        [ "$(echo "d = $value - $theirs; if (d < 0) d = -d; d <= $limit" | bc -l)" = 1 ] || { echo "config-cpu: scores differ" >&2; exit 1; }
    done
printf '{"name": "config-cpu", "value": %.3f, "unit": "s a configuration", "against": "transformers, best batch", "against_value": %.3f, "ratio": %.2f, "limit": "ratio", "limit_value": 3, "of_limit": %.2f, "machine": "%s cores, %s", "commit": "%s"}\n' \
    "$ours" "$best" "$(echo "$best / $ours" | bc -l)" "$(echo "$best / $ours / 3" | bc -l)" "$threads" "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "${ISOBIT_BENCH_COMMIT:-unknown}"
