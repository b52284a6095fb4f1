{{/* What all pods have in common: who they are, what they may do, how they are asked for health. */}}

{{- define "simile.pod.security" -}}
runAsNonRoot: true
{{- with .Values.podSecurity }}
{{- with .runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .fsGroup }}
fsGroup: {{ int64 . }}
# The group of a large volume isn't changed at each start of a pod.
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- with .supplementalGroups }}
supplementalGroups:
  {{- range . }}
  - {{ int64 . }}
  {{- end }}
{{- end }}
{{- with .seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "simile.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Metadata of a pod: (dict "root" $ "component" ... "values" <the component's values>). */}}
{{- define "simile.pod.metadata" -}}
labels:
  {{- include "simile.labelsWith" (dict "text" (include "simile.podLabels" .) "more" .values.podLabels) | nindent 2 }}
{{- $annotations := .values.podAnnotations | default dict }}
{{- if and (eq .root.Values.broker.mode "dev") .root.Values.broker.dev.password }}
{{- $annotations = merge (dict "checksum/broker" (sha256sum .root.Values.broker.dev.password)) $annotations }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "simile.pod.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where and as whom a pod runs. */}}
{{- define "simile.pod.place" -}}
serviceAccountName: {{ include "simile.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
# The first process of a container would miss a SIGTERM that comes before it has a handler; here it is
# not the first process of its namespace. Orphans of killed processes are reaped.
shareProcessNamespace: true
securityContext:
  {{- include "simile.pod.security" .root | nindent 2 }}
{{- include "simile.pod.pullSecrets" .root }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "simile.pod.spread" . }}
{{- with .values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* As the values say; else, for several pods of a kind (`spread`), over zones and nodes as far as it
     goes: a pod on a full node is better than none. */}}
{{- define "simile.pod.spread" -}}
{{- if .alone }}
{{- else if .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else if and .spread (kindIs "invalid" .values.topologySpreadConstraints) (kindIs "invalid" .values.affinity) }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key | quote }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "simile.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The chart's probes, and what the values say differently. */}}
{{- define "simile.probes" -}}
{{- $own := include "simile.probes.own" . | fromYaml -}}
{{- range $probe, $values := dict "startupProbe" .values.startupProbe "readinessProbe" .values.readinessProbe "livenessProbe" .values.livenessProbe -}}
{{- $_ := set $own $probe (merge (dict) ($values | default dict) (get $own $probe)) -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* Until the first answer of /livez; then unready at once, restarted only after half a minute. */}}
{{- define "simile.probes.own" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: {{ div (.startupSeconds | default 120) 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Variables from Secrets and ConfigMaps: (dict "root" $ "values" <the component's values>). */}}
{{- define "simile.envFrom" -}}
{{- with concat (.root.Values.extraEnvFrom | default list) (.values.extraEnvFrom | default list) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations of a workload. */}}
{{- define "simile.annotations" -}}
{{- with .values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Longer than the drain, so that no pod is killed while work is in flight. */}}
{{- define "simile.graceSeconds" -}}
{{- add 10 (ceil .Values.drainTimeoutSeconds) -}}
{{- end -}}

{{/* What must be writable beside a read-only root. */}}
{{- define "simile.scratch.volume" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end -}}

{{- define "simile.scratch.mount" -}}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "simile.brokerTls.volume" -}}
{{- with .Values.broker.tls.existingSecret }}
- name: broker-tls
  secret:
    secretName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "simile.brokerTls.mount" -}}
{{- if .Values.broker.tls.existingSecret }}
- name: broker-tls
  mountPath: /etc/simile/broker-tls
  readOnly: true
{{- end }}
{{- end -}}
