#!/bin/sh
# Copies rules and dashboards into the chart, because Helm reads no file outside it.
#
#   helm/sync.sh           copy
#   helm/sync.sh --check   say what differs, and fail if anything does
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
files=$root/helm/pharos/files

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/rules" "$fresh/dashboards"
cp "$root"/rules/*.yml "$fresh/rules/"
cp "$root"/dashboards/*.json "$fresh/dashboards/"

case "${1-}" in
--check)
    if ! diff -r "$fresh" "$files"; then
        echo "helm/pharos/files is out of date: run helm/sync.sh" >&2
        exit 1
    fi
    ;;
"")
    rm -rf "$files"
    mkdir "$files"
    cp -R "$fresh/." "$files/"
    ;;
*)
    echo "usage: helm/sync.sh [--check]" >&2
    exit 2
    ;;
esac
