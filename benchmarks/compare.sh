#!/usr/bin/env bash
# Compare the arms on the domains, with few enough rows that a seed ends in about an hour of one core; eight epochs and one of stage 2.
#   ALTER_DATA=... benchmarks/compare.sh runs/compare "assistant social nlu" "0 1"
# 300 (assistant) or 150 training rows a task, 100 validation rows (generation 50), at most 400 test rows
# (generation 100), which are the same ones for every seed; FULL=1: all rows; social-1000: social with 1,000 rows a task, three epochs and one of stage 2. Arms beside alter's own: benchmarks/compare/*.yaml. Runs go on where they stopped.
set -eu
out=$1; domains=$2; seeds=$3
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
# ARMS="peft-lora taps": these arms, and what they need, instead of those below; ARMS=all: all that say anything about the recipe.
main_arms="majority untrained tfidf single-full multi-full shared-lora stage1 stage1-longer alter-lite"
changed="zeroed-shared uniform-weights random-weights no-task wrong-task"
encoder_arms="$main_arms stage2-alone $changed"
writing_arms="$main_arms alter $changed"
for domain in $domains; do
  case $domain in
    assistant) tasks="banking77 clinc150 hwu64 atis_intent"; cap=300; validation=100; test=400; arms=$encoder_arms; more="" ;;
    social-1000) tasks="emotion hate irony offensive sentiment stance emoji"; cap=1000; validation=200; test=400; arms="majority tfidf single-full multi-full shared-lora stage1 stage1-longer alter-lite zeroed-shared"
      more="stages.stage1.num_train_epochs=3" ;;
    social) tasks="emotion hate irony offensive sentiment stance emoji"; cap=150; validation=100; test=400; arms=$encoder_arms; more="stages.stage1.num_train_epochs=8" ;;
    nlu) tasks="sst2 cola subj trec mrpc rte stsb"; cap=150; validation=100; test=400; arms=$encoder_arms; more="stages.stage1.num_train_epochs=8" ;;
    generation) tasks="e2e_nlg webnlg multi30k_en_de bbc_headline snips_slots atis_slots"; cap=150; validation=50; test=100; arms=$writing_arms
      more="preset=alter mta.num_shared=2 mta.gate.kind=outputs stages.stage1.learning_rates.backbone=5e-4 stages.stage1.learning_rates.adapters=5e-4 stages.stage1.num_train_epochs=8" ;;
    *) echo "unknown domain $domain" >&2; exit 2 ;;
  esac
  set -- recipes/${domain%-*}.yaml train.mixed_precision=auto stages.stage2.num_train_epochs=1 $more
  [ -z "${FULL:-}" ] || { cap=null; validation=null; test=null; }
  for task in $tasks; do
    set -- "$@" tasks.$task.cap=$cap tasks.$task.validation_cap=$validation tasks.$task.test_cap=$test
  done
  own=""
  if [ -f benchmarks/compare/$domain.yaml ]; then
    set -- "$@" --arms-file benchmarks/compare/$domain.yaml
    own="$(sed -n 's/^\([a-z0-9-]*\):.*/\1/p' benchmarks/compare/$domain.yaml)"
  fi
  [ "${ARMS:-}" = all ] || for arm in ${ARMS:-$arms $own}; do set -- "$@" --arm $arm; done
  for seed in $seeds; do
    resume=""; [ -e "$out/$domain" ] && resume=--resume
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$python" -m alter compare "$@" --seed $seed --output-dir "$out/$domain" $resume
  done
done
