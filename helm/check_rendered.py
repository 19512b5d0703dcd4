"""Checks what `helm template` wrote, as far as that is possible without a cluster.

Every object has what Kubernetes requires of all; selectors select the pods they mean; whatever a pod
refers to by name exists; rules and dashboards arrive unchanged.
"""

import json
import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Names that a values file says exist outside the release.
EXTERNAL = {("Secret", "my-alertmanager"), ("ServiceAccount", "default")}


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def check(path):
    problems = []
    objects = [o for o in yaml.safe_load_all(path.read_text()) if o]

    names = set(EXTERNAL)
    for o in objects:
        name = o.get("metadata", {}).get("name")
        kind = o.get("kind")
        where = f"{kind}/{name}"
        if not (o.get("apiVersion") and kind and name):
            problems.append(f"{where}: apiVersion, kind or metadata.name is missing")
            continue
        key = (kind, o["metadata"].get("namespace"), name)
        if key in names:
            problems.append(f"{where}: defined twice")
        names |= {key, (kind, name)}
        if len(name) > 63:
            problems.append(f"{where}: the name is longer than 63 characters")

    def refer(where, kind, name):
        if (kind, name) not in names:
            problems.append(f"{where}: refers to {kind}/{name}, which does not exist")

    pods = []
    for o in objects:
        kind, name, spec = o["kind"], o["metadata"]["name"], o.get("spec", {})
        where = f"{kind}/{name}"
        if kind not in ("DaemonSet", "StatefulSet", "Deployment"):
            continue
        template = spec["template"]
        labels = template["metadata"]["labels"]
        pods.append(labels)
        if not matches(spec["selector"]["matchLabels"], labels):
            problems.append(f"{where}: the selector does not match the labels of its pods")
        if kind == "StatefulSet":
            refer(where, "Service", spec["serviceName"])
        pod = template["spec"]
        refer(where, "ServiceAccount", pod["serviceAccountName"])
        volumes = {v["name"] for v in pod.get("volumes", [])}
        volumes |= {c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])}
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                refer(where, "ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                refer(where, "Secret", volume["secret"]["secretName"])
        for container in pod["containers"]:
            ports = {p["name"] for p in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if container[probe]["httpGet"]["port"] not in ports:
                    problems.append(f"{where}: {probe} asks a port that is not there")
            paths = [m["mountPath"] for m in container["volumeMounts"]]
            if len(paths) != len(set(paths)):
                problems.append(f"{where}: two volumes are mounted at one path")
            for mount in container["volumeMounts"]:
                if mount["name"] not in volumes:
                    problems.append(f"{where}: mounts volume {mount['name']}, which does not exist")
            if not container["securityContext"].get("readOnlyRootFilesystem"):
                problems.append(f"{where}: the root file system is writable")
            flags = [a.split("=")[0] for a in container["args"]]
            if doubled := {f for f in flags if flags.count(f) > 1} - {"--alertmanager.url"}:
                problems.append(f"{where}: given twice: {doubled}")

    problems += [f"expected nodes: {problem}" for problem in expected_nodes(objects)]

    for o in objects:
        kind, name, spec = o["kind"], o["metadata"]["name"], o.get("spec", {})
        where = f"{kind}/{name}"
        if kind == "Service" and not any(matches(spec["selector"], p) for p in pods):
            problems.append(f"{where}: selects no pod")
        if kind == "PodDisruptionBudget" and not any(matches(spec["selector"]["matchLabels"], p) for p in pods):
            problems.append(f"{where}: selects no pod")
        if kind == "NetworkPolicy" and not any(matches(spec["podSelector"]["matchLabels"], p) for p in pods):
            problems.append(f"{where}: selects no pod")
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"]
            found = [s for s in objects if s["kind"] == "Service" and matches(wanted, s["metadata"]["labels"])]
            if len(found) != 1:
                problems.append(f"{where}: selects {len(found)} services instead of one")
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            refer(where, o["roleRef"]["kind"], o["roleRef"]["name"])
            for subject in o["subjects"]:
                refer(where, subject["kind"], subject["name"])
        for file, text in {**o.get("data", {}), **o.get("stringData", {})}.items():
            if file.endswith(".json"):
                json.loads(text)
            else:
                yaml.safe_load(text)
            if name.endswith("-rules") and (ROOT / "rules" / file).exists():
                same(problems, where, text, ROOT / "rules" / file)
            if "-dashboard-" in name:
                same(problems, where, text, ROOT / "dashboards" / file.removeprefix("pharos-"))

    print(f"{path.name}: {len(objects)} objects, {len(problems)} problems")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    return not problems


def expected_nodes(objects):
    """A collector that asks for nodes has the right and the token to; one that does not has neither."""
    collectors = [o for o in objects if o["kind"] == "StatefulSet" and o["metadata"]["name"].endswith("-collector")]
    if not collectors:
        return []
    config = next(
        yaml.safe_load(o["data"]["collector.yml"])
        for o in objects
        if o["kind"] == "ConfigMap" and "collector.yml" in o.get("data", {})
    )
    wanted = "expected_nodes_kubernetes" in config.get("pharos", {})
    pod = collectors[0]["spec"]["template"]["spec"]
    rules = []
    for binding in objects:
        if binding["kind"] != "ClusterRoleBinding":
            continue
        if not any(s["name"] == pod["serviceAccountName"] for s in binding["subjects"]):
            continue
        role = binding["roleRef"]["name"]
        rules += [
            rule
            for o in objects
            if o["kind"] == "ClusterRole" and o["metadata"]["name"] == role
            for rule in o["rules"]
        ]
    right = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    problems = []
    if rules != ([right] if wanted else []):
        problems.append(f"asks: {wanted}, but may do {rules}")
    if pod["automountServiceAccountToken"] is not wanted:
        problems.append(f"asks: {wanted}, but its token is mounted: {not wanted}")
    return problems


def same(problems, where, text, source):
    if text.rstrip("\n") != source.read_text().rstrip("\n"):
        problems.append(f"{where}: {source.name} differs from the file in the repository")


if __name__ == "__main__":
    results = [check(pathlib.Path(argument)) for argument in sys.argv[1:]]
    sys.exit(0 if results and all(results) else 1)
