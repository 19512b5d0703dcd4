#!/bin/sh
# Disk for one node's host metrics: our agent and collector against node_exporter scraped by VictoriaMetrics, at the
# same time on this host, once a second each.
#
#   tests/bench/node-hour.sh [SECONDS] [FOLDER OF OUR PROGRAMS]
#
# Both sides write everything out before they are measured: a flush here, a flush and a forced merge there.
# Pressure is fixed at 1 s, so that the agent has no series that node_exporter lacks but those about itself.
set -eu
seconds=${1:-900}
programs=$(cd "${2:-target/release}" && pwd)
folder=$(mktemp -d /tmp/pharos-node-hour.XXXXXX)
cd "$folder"
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

cat > scrape.yml <<'YAML'
scrape_configs:
  - job_name: node
    scrape_interval: 1s
    static_configs: [{targets: ['127.0.0.1:19610']}]
    metric_relabel_configs: [{source_labels: [__name__], regex: 'node_.*', action: keep}]
YAML
printf 'samplers:\n  pressure: {fixed: 1s}\n' > agent.yml

"$programs/pharos-collector" --storage.path collector --web.listen-address 127.0.0.1:19620 2> collector.log & collector=$!
prometheus-node-exporter --web.listen-address=127.0.0.1:19610 2> node_exporter.log & exporter=$!
pids="$collector $exporter"
sleep 2
victoria-metrics -storageDataPath=vm -httpListenAddr=127.0.0.1:19630 -promscrape.config=scrape.yml \
  -retentionPeriod=1 -search.latencyOffset=1s 2> vm.log & peer=$!
"$programs/pharos-agent" --collector.address 127.0.0.1:19620 --config.file agent.yml --storage.path agent \
  --node.name n1 --web.listen-address 127.0.0.1:19640 2> agent.log & agent=$!
pids="$pids $peer $agent"
sleep "$seconds"
curl -sf http://127.0.0.1:19640/samplers > samplers.json
kill "$agent" "$exporter"
sleep 3

# How many samples a side has.
count() {
  curl -sf "http://127.0.0.1:$1/api/v1/query" --data-urlencode "query=sum(count_over_time($2[1d]))" |
    sed 's/.*,"\([0-9.e+]*\)"\].*/\1/'
}
ours=$(count 19620 '{__name__=~".+"}')
theirs=$(count 19630 '{__name__=~".+"}')
curl -sf -X POST http://127.0.0.1:19620/api/v1/admin/tsdb/flush > flush.json
curl -sf http://127.0.0.1:19630/internal/force_flush
curl -sf http://127.0.0.1:19630/internal/force_merge
sleep 20
kill "$collector" "$peer"
sleep 3

bytes() { du -sbc "$@" | tail -n 1 | cut -f 1; }
blocks=$(bytes collector/blocks)
all=$(bytes collector)
data=$(bytes vm/data vm/indexdb)
awk -v s="$seconds" -v o="$ours" -v t="$theirs" -v b="$blocks" -v a="$all" -v d="$data" 'BEGIN {
  printf "{\"bench\":\"node-hour\",\"seconds\":%d,", s
  printf "\"pharos\":{\"samples\":%d,\"block_bytes\":%d,\"all_bytes\":%d,\"block_bytes_per_sample\":%.3f},", o, b, a, b / o
  printf "\"victoria-metrics\":{\"samples\":%d,\"data_and_index_bytes\":%d,\"bytes_per_sample\":%.3f},", t, d, d / t
  printf "\"pharos_by_victoria_metrics\":{\"per_node_hour\":%.2f,\"per_sample\":%.2f}}\n", b / d, (b / o) / (d / t)
}'
