{{/* Name of the chart, or what replaces it. */}}
{{- define "pharos.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every object. 40 characters leave room for the longest suffix: a StatefulSet's pods
     carry its name and a hash in one label of at most 63. */}}
{{- define "pharos.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "pharos.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pharos.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of a component. Call with (dict "root" $ "component" "agent"). */}}
{{- define "pharos.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pharos.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "pharos.labels" -}}
{{ include "pharos.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: pharos
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pharos.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{- define "pharos.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
{{- $account.name | default (printf "%s-%s" (include "pharos.fullname" .root) .component) }}
{{- else }}
{{- $account.name | default "default" }}
{{- end }}
{{- end }}

{{/* Where agents find the collector. */}}
{{- define "pharos.collectorAddress" -}}
{{- if .Values.agent.collectorAddress }}
{{- .Values.agent.collectorAddress }}
{{- else if .Values.collector.enabled }}
{{- printf "%s-collector.%s.svc:%v" (include "pharos.fullname" .) .Release.Namespace .Values.collector.port }}
{{- else }}
{{- fail "agent.collectorAddress must be set when collector.enabled is false" }}
{{- end }}
{{- end }}

{{- define "pharos.alertmanagerConfigSecret" -}}
{{- .Values.alertmanager.existingConfigSecret | default (printf "%s-alertmanager" (include "pharos.fullname" .)) }}
{{- end }}

{{/* Probes of a component on its HTTP port. The start probe allows five minutes, for a journal that a
     crash has left long. */}}
{{- define "pharos.probes" -}}
startupProbe:
  httpGet: {path: /-/healthy, port: http}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /-/healthy, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /-/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{/* Where a pod may run. Call with the component's values. */}}
{{- define "pharos.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The volume claim of a component. */}}
{{- define "pharos.claim" -}}
{{- $persistence := (index .root.Values .component).persistence -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
  labels:
    {{- include "pharos.selectorLabels" . | nindent 4 }}
  {{- with $persistence.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  accessModes:
    {{- toYaml $persistence.accessModes | nindent 4 }}
  {{- with $persistence.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $persistence.size }}
{{- end }}
