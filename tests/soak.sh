#!/usr/bin/env bash
# Property tests with fresh random cases, many more than a test run takes, and the readers of bytes with many
# more changed ones. Run it before a release, or while machines idle:
#
#     tests/soak.sh [ROUNDS]
#
# A failure prints the case and the round's seed; the same seed shows it again:
#
#     PROPTEST_RNG_SEED=SEED PROPTEST_CASES=CASES cargo test -p CRATE NAME
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

rounds=${1:-10}
export PROPTEST_CASES=${PROPTEST_CASES:-4096}
export PHAROS_FUZZ_SECONDS=${PHAROS_FUZZ_SECONDS:-30}

cargo test --workspace --no-run
for round in $(seq "$rounds"); do
    export PROPTEST_RNG_SEED=$((RANDOM * 32768 + RANDOM))
    printf '\n=== Round %s of %s, seed %s (%s)\n' "$round" "$rounds" "$PROPTEST_RNG_SEED" "$(date -u +%H:%M:%S)"
    # Every file that holds a property; those that set their own count of cases get new ones by the seed.
    cargo test --quiet --workspace --lib
    cargo test --quiet -p pharos-tsdb --test model --test summaries --test fuzz
    cargo test --quiet -p pharos-promql --test naive --test parsing --test printing --test steps --test fuzz
    cargo test --quiet -p pharos-collector --test rollups
done
