{{/* Names and labels. A component's helpers take (dict "root" $ "component" "upload"). */}}

{{- define "simile.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name, with the chart's behind it where it doesn't say that already. */}}
{{- define "simile.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "simile.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "simile.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "simile.componentName" -}}
{{- printf "%s-%s" (include "simile.fullname" .root) .component -}}
{{- end -}}

{{- define "simile.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* What selectors match by: it can't change as long as a release lives. */}}
{{- define "simile.selector" -}}
app.kubernetes.io/name: {{ include "simile.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{/* The version that a component runs: its image's tag, as far as a label takes it. */}}
{{- define "simile.version" -}}
{{- $section := index .root.Values (eq .component "index" | ternary "searcher" .component) | default dict -}}
{{- $tag := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with $section.image }}{{ $tag = .tag | default $tag }}{{ end -}}
{{- trunc 63 $tag | trimAll "-_." -}}
{{- end -}}

{{/* Labels without any version, for pods that a new release must not restart. */}}
{{- define "simile.lastingLabels" -}}
{{ include "simile.selector" . }}
app.kubernetes.io/part-of: simile
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A pod's labels: without the chart's version, so that a new chart alone restarts nothing. */}}
{{- define "simile.podLabels" -}}
{{ include "simile.lastingLabels" . }}
app.kubernetes.io/version: {{ include "simile.version" . | quote }}
{{- end -}}

{{- define "simile.labels" -}}
{{ include "simile.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* Labels as text, and more of them in place of those of the same name: (dict "text" <labels> "more"
     <a dict, or nothing>). */}}
{{- define "simile.labelsWith" -}}
{{- toYaml (merge (dict) (.more | default dict) (.text | fromYaml)) -}}
{{- end -}}

{{- define "simile.metadata" -}}
name: {{ include "simile.componentName" . | quote }}
namespace: {{ include "simile.namespace" .root | quote }}
labels:
  {{- include "simile.labelsWith" (dict "text" (include "simile.labels" .) "more" .labels) | nindent 2 }}
{{- end -}}

{{/* An image by its digest where one is given, else by its tag. */}}
{{- define "simile.image" -}}
{{- $image := (index .root.Values .section).image -}}
{{- $tag := $image.tag | default (printf "%s%s" (.root.Values.image.tag | default .root.Chart.AppVersion) (.suffix | default "")) -}}
{{- $name := $image.name -}}
{{- with .root.Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name $tag -}}
{{- end -}}
{{- end -}}
