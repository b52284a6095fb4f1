{{/* Where RabbitMQ is, for the services and for KEDA. */}}

{{- define "simile.broker.name" -}}
{{- include "simile.componentName" (dict "root" . "component" "broker") -}}
{{- end -}}

{{/* For KEDA, which is in another namespace. */}}
{{- define "simile.broker.host" -}}
{{- printf "%s.%s.svc" (include "simile.broker.name" .) (include "simile.namespace" .) -}}
{{- end -}}

{{/* The virtual host as a part of an address. */}}
{{- define "simile.broker.vhost" -}}
{{- .Values.broker.vhost | urlquery | replace "+" "%20" -}}
{{- end -}}

{{- define "simile.broker.env" -}}
{{- $broker := .Values.broker }}
{{- if eq $broker.mode "operator" }}
{{- $secret := printf "%s-default-user" (include "simile.broker.name" .) }}
- name: BROKER_USER
  valueFrom:
    secretKeyRef: {name: {{ $secret | quote }}, key: username}
- name: BROKER_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $secret | quote }}, key: password}
- name: SIMILE_AMQP_URL
  value: {{ printf "amqp://$(BROKER_USER):$(BROKER_PASSWORD)@%s:5672/%s" (include "simile.broker.name" .) (include "simile.broker.vhost" .) | quote }}
{{- else }}
- name: SIMILE_AMQP_URL
  valueFrom:
    secretKeyRef:
      name: {{ eq $broker.mode "dev" | ternary (include "simile.broker.name" .) $broker.external.existingSecret | quote }}
      key: {{ eq $broker.mode "dev" | ternary "url" $broker.external.urlKey | quote }}
{{- end }}
{{- with $broker.tls }}
{{- if .existingSecret }}
- name: SIMILE_AMQP_CA_FILE
  value: {{ printf "/etc/simile/broker-tls/%s" .caKey | quote }}
{{- with .certKey }}
- name: SIMILE_AMQP_CERT_FILE
  value: {{ printf "/etc/simile/broker-tls/%s" . | quote }}
{{- end }}
{{- with .keyKey }}
- name: SIMILE_AMQP_KEY_FILE
  value: {{ printf "/etc/simile/broker-tls/%s" . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "simile.broker.port" -}}
{{- eq .Values.broker.mode "external" | ternary .Values.broker.external.port 5672 -}}
{{- end -}}

{{/* The dev broker's password: the given one, the one of before, or a new one. */}}
{{- define "simile.broker.password" -}}
{{- $known := lookup "v1" "Secret" (include "simile.namespace" .) (include "simile.broker.name" .) -}}
{{- if .Values.broker.dev.password -}}
{{- .Values.broker.dev.password -}}
{{- else if $known -}}
{{- index $known.data "password" | b64dec -}}
{{- else -}}
{{- randAlphaNum 32 -}}
{{- end -}}
{{- end -}}

{{- define "simile.broker.devConfig" -}}
# Blocks publishers well before the container's memory is used up.
vm_memory_high_watermark.absolute = 600MiB
disk_free_limit.absolute = 500MB
default_vhost = {{ .Values.broker.vhost }}
{{- include "simile.broker.messageSize" . }}
{{- end -}}

{{/* RabbitMQ takes 16 MiB by itself; a message is an image and a little more. */}}
{{- define "simile.broker.messageSize" -}}
{{- with .Values.imageMaxBytes }}
{{- if gt (int64 .) 15728640 }}
max_message_size = {{ add (int64 .) 1048576 }}
{{- end }}
{{- end }}
{{- end -}}
