{{/* Objects that every component has, each but for its name the same: (dict "root" $ "component"
     "upload" "values" <the component's values>). */}}

{{- define "simile.serviceAccount" -}}
{{- if .values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "simile.serviceAccountName" . | quote }}
  namespace: {{ include "simile.namespace" .root | quote }}
  labels:
    {{- include "simile.labels" . | nindent 4 }}
  {{- with merge (dict) (.values.serviceAccount.annotations | default dict) (.values.serviceAccountAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
# Simile never calls the Kubernetes API.
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{- define "simile.serviceAccountName" -}}
{{- with .values.serviceAccount -}}
{{- .name | default (.create | ternary (include "simile.componentName" $) "default") -}}
{{- end -}}
{{- end -}}

{{/* A number, or a percentage as text. */}}
{{- define "simile.numberOrPercent" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{- define "simile.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "simile.metadata" . | nindent 2 }}
spec:
  {{- with .values.pdb }}
  {{- if kindIs "invalid" .minAvailable }}
  # Not minAvailable: with one pod that would keep a node from ever being drained.
  maxUnavailable: {{ include "simile.numberOrPercent" .maxUnavailable }}
  {{- else }}
  minAvailable: {{ include "simile.numberOrPercent" .minAvailable }}
  {{- end }}
  {{- end }}
  # An unready pod serves no caller, and must not block a node's drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "simile.selector" . | nindent 6 }}
{{- end -}}

{{/* Of those that nobody calls but who reads their metrics. */}}
{{- define "simile.workerPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "simile.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "simile.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- include "simile.adminIngress" .root | default "[]" | nindent 4 }}
  egress:
    {{- include "simile.egress" .root | nindent 4 }}
{{- end -}}
