#!/usr/bin/env bash
# The domain tables of docs/results.md: benchmarks/domains.sh OUTPUT_DIR "DOMAINS" "PRESETS" "SEEDS" [RANDOM_BASE]
# EXTRA="key.path=value ..." in the environment: settings over all of them.
# RANDOM_BASE: a folder of benchmarks/random_base.py, for the control whose base has random weights.
#   ALTER_DATA=... benchmarks/domains.sh runs/domains "social assistant nlu" "alter-lite alter" "0 1 2"
# Runs that have finished are kept; an interrupted one goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 domains=$2 presets=$3 seeds=$4 random=${5:-}
for preset in $presets; do
  for domain in $domains; do
    for seed in $seeds; do
      run="$out/$domain-$preset${random:+-random}-seed$seed"
      resume=$([ -e "$run/recipe.yaml" ] && echo --resume || true)
      # The generation recipe has no second stage of its own, and rates for FFN copies: here it gets its preset's stage, and LoRAs theirs.
      second=""; [ "$domain" != generation ] || { second="mta.num_shared=2 mta.gate.kind=outputs"; [ "$preset" = alter ] || second="mta.num_shared=2 mta.gate.kind=task mta.gate.over=shared stages.stage1.learning_rates.adapters=1e-3"; }
      python -m alter train "recipes/$domain.yaml" "preset=$preset" "seed=$seed" train.mixed_precision=auto stages.stage2.num_train_epochs=1 $second train.test_stages=released \
        ${random:+"model_name_or_path=$random"} ${EXTRA:-} --output-dir "$run" $resume
    done
  done
done
