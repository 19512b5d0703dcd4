#!/bin/sh
# What judging 10,000 threshold rules costs a collector that takes in 1,000 nodes once a second: the same run without
# rules and with them, by turns. 500 series of each node have 20 rules each, none of which a sample breaches.
#
#   tests/bench/rules-cost.sh [SECONDS] [FOLDER OF OUR PROGRAMS] [TURNS]
#
# Measured from when all nodes are in, per second of data: the samples that came, not the time that passed. A line of
# JSON per run.
set -eu
seconds=${1:-30}
programs=$(cd "${2:-target/release}" && pwd)
turns=${3:-2}
nodes=1000
per_node=561
folder=$(mktemp -d /tmp/pharos-rules-cost.XXXXXX)
cd "$folder"
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

# The model's series (tests/src/telemetry.rs), a bound above what it gives each: counters have none to speak of.
awk 'function rules(selector, bound,    step) {
  if (series++ >= 500) return
  for (step = 0; step < 20; step++) {
    printf "      - alert: A%dx%d\n        expr: \x27%s > %s\x27\n", series, step, selector, bound * (1 + step / 20)
    print "        labels: {severity: warning}"
    print "        annotations: {summary: \x27{{ $labels.instance }} is at {{ $value }}\x27}"
  }
}
BEGIN {
  print "groups:\n  - name: bench\n    interval: 1h\n    rules:"
  split("GPU_UTIL:100 MEM_COPY_UTIL:100 POWER_USAGE:750 GPU_TEMP:85 MEMORY_TEMP:95 SM_CLOCK:2000 MEM_CLOCK:2700 " \
    "FB_USED:75000 FB_FREE:81500 TOTAL_ENERGY_CONSUMPTION:1e15 NVLINK_BANDWIDTH_TOTAL:1e15 PCIE_REPLAY_COUNTER:1 " \
    "XID_ERRORS:1 ENC_UTIL:90 DEC_UTIL:90 VGPU_LICENSE_STATUS:1 UNCORRECTABLE_REMAPPED_ROWS:1 " \
    "CORRECTABLE_REMAPPED_ROWS:1 ROW_REMAP_FAILURE:1 ECC_SBE_VOL_TOTAL:1e6 ECC_DBE_VOL_TOTAL:1 " \
    "POWER_VIOLATION:1e15 THERMAL_VIOLATION:1", fields, " ")
  for (gpu = 0; gpu < 8; gpu++)
    for (at = 1; at in fields; at++) {
      split(fields[at], field, ":")
      rules("DCGM_FI_DEV_" field[1] "{gpu=\"" gpu "\"}", field[2])
    }
  for (at = 0; at < 50; at++) rules("node_memory_field" at "_bytes", 1e12)
  split("1 5 15", minutes, " ")
  for (at = 1; at <= 3; at++) rules("node_load" minutes[at], 64)
  for (at = 0; at < 92; at++) rules("node_netstat_Field" at, 1e15)
  for (disk = 0; disk < 2; disk++)
    for (at = 0; at < 15; at++) rules("node_disk_field" at "_total{device=\"nvme" disk "n1\"}", 1e15)
  for (at = 0; at < 17; at++) rules("node_network_field" at "_total{device=\"ib0\"}", 1e15)
  split("idle user system iowait softirq irq nice steal", modes, " ")
  for (cpu = 0; cpu < 16; cpu++)
    for (at = 1; at <= 8; at++) rules("node_cpu_seconds_total{cpu=\"" cpu "\",mode=\"" modes[at] "\"}", 1e12)
}' > rules.yml
test "$(grep -c 'alert:' rules.yml)" = 10000

# A counter of the collector, all its series together.
counter() {
  curl -sf http://127.0.0.1:19650/metrics |
    awk -v name="$1" '{ split($1, id, "{") } id[1] == name { sum += $2 } END { printf "%.0f", sum }'
}
# Its CPU time: user and system, in hundredths of a second.
cpu() { awk '{ print $14 + $15 }' "/proc/$collector/stat"; }

run() {
  mode=$1
  shift
  rm -rf collector
  "$programs/pharos-collector" --storage.path collector --web.listen-address 127.0.0.1:19650 \
    --rules.shipped=false "$@" 2> collector.log & collector=$!
  pids=$collector
  until curl -sf http://127.0.0.1:19650/-/ready > ready.txt; do sleep 0.2; done
  "$programs/pharos-bench" agents $nodes --seconds $((seconds + 20)) --address 127.0.0.1:19650 --server-pid "$collector" \
    > bench.json 2> bench.log & bench=$!
  pids="$collector $bench"
  # All nodes, and each a few times.
  until [ "$(counter pharos_tsdb_samples_appended_total)" -ge $((nodes * per_node * 10)) ]; do sleep 0.5; done
  before=$(cpu) samples=$(counter pharos_tsdb_samples_appended_total) judged=$(counter pharos_collector_rule_samples_judged_total)
  missed=$(counter pharos_collector_rule_samples_not_judged_total)
  sleep "$seconds"
  samples=$(($(counter pharos_tsdb_samples_appended_total) - samples))
  used=$(($(cpu) - before))
  judged=$(($(counter pharos_collector_rule_samples_judged_total) - judged))
  missed=$(($(counter pharos_collector_rule_samples_not_judged_total) - missed))
  memory=$(awk '/VmHWM/ { print $2 }' "/proc/$collector/status")
  active=$(curl -sf http://127.0.0.1:19650/api/v1/alerts | grep -o activeAt | wc -l)
  wait "$bench"
  whole=$(sed "s/.*\"server_cpu_percent\":\([0-9.]*\).*/\1/" bench.json)
  kill "$collector"
  wait "$collector" || true
  pids=
  awk -v m="$mode" -v s="$samples" -v u="$used" -v j="$judged" -v k="$memory" -v a="$active" -v n="$missed" -v w="$whole" \
    -v per=$((nodes * per_node)) 'BEGIN {
      printf "{\"bench\":\"rules-cost\",\"rules\":\"%s\",\"seconds_of_data\":%.2f,\"cpu_seconds_per_second\":%.4f,", m, s / per, u / 100 / (s / per)
      printf "\"judged_per_second\":%.0f,\"not_judged\":%.0f,\"alerts\":%d,\"memory_mib_max\":%d,\"cpu_percent_of_the_whole_run\":%.1f}\n", j / (s / per), n, a, k / 1024, w
    }'
}

for _ in $(seq "$turns"); do
  run none
  run 10000 --rules.file "$folder/rules.yml"
done
