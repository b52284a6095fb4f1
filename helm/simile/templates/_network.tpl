{{/* What every pod of Simile may reach: names, and the broker. */}}

{{- define "simile.egress.names" -}}
# DNS is allowed to any address: a cluster's DNS may run on the nodes themselves. A policy applies to
# the port of the DNS pod, which is 5353 on OpenShift.
- ports:
    {{- range $port := list 53 5353 }}
    - {port: {{ $port }}, protocol: UDP}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{- define "simile.egress" -}}
{{ include "simile.egress.names" . }}
- ports:
    - {port: {{ include "simile.broker.port" . }}, protocol: TCP}
  {{- if ne .Values.broker.mode "external" }}
  to:
    - podSelector:
        matchLabels:
          {{- include "simile.broker.podLabels" . | nindent 10 }}
  {{- else if .Values.networkPolicy.brokerTo }}
  to:
    {{- toYaml .Values.networkPolicy.brokerTo | nindent 4 }}
  {{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metrics and health, and what the values add; a kubelet's probes need no rule. */}}
{{- define "simile.adminIngress" -}}
{{- with .Values.networkPolicy.extraIngress }}
{{ toYaml . }}
{{- end }}
{{- with .Values.networkPolicy.monitoringFrom }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - {port: admin, protocol: TCP}
{{- end }}
{{- end -}}

{{/* The labels that the operator, or this chart, gives the broker's pods. */}}
{{- define "simile.broker.podLabels" -}}
{{- if eq .Values.broker.mode "operator" -}}
app.kubernetes.io/name: {{ include "simile.broker.name" . | quote }}
{{- else -}}
{{- include "simile.selector" (dict "root" . "component" "broker") }}
{{- end -}}
{{- end -}}
