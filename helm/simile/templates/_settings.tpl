{{/* Environment variables. A setting has one name: embedder.maxBatchSize is
     SIMILE_EMBEDDER_MAX_BATCH_SIZE; files/settings.yaml, made of Simile's code, knows all of them. */}}

{{/* A value as the environment holds it: no number ever as 1.5e+07. */}}
{{- define "simile.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if or (kindIs "slice" .) (kindIs "map" .) -}}
{{- toJson . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* A text that Kubernetes hands over as it is: in arguments and variables $(NAME) stands for another
     variable, and $$ for $. */}}
{{- define "simile.literal" -}}
{{- . | replace "$" "$$" -}}
{{- end -}}

{{/* The settings of a section that are not null. */}}
{{- define "simile.settings" -}}
{{- $variables := index (.root.Files.Get "files/settings.yaml" | fromYaml) .section -}}
{{- $values := .root.Values -}}
{{- if ne .section "shared" }}{{ $values = index .root.Values .section }}{{ end -}}
{{- range $name, $variable := $variables }}
{{- $value := get $values $name }}
{{- if not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (eq $value ""))) }}
- name: {{ $variable | quote }}
  value: {{ include "simile.literal" (include "simile.text" $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A container's environment: (dict "root" $ "values" <the component's values> "settings" <the section
     of its settings> "own" <a list of its own, as text>). A name that is given again, such as by
     extraEnv, takes the place of the one before: Kubernetes wants each once. */}}
{{- define "simile.env" -}}
{{- $kept := list -}}
{{- $names := dict -}}
{{- range include "simile.env.all" . | fromYamlArray | reverse -}}
{{- if not (hasKey $names .name) -}}
{{- $kept = prepend $kept . -}}
{{- end -}}
{{- $_ := set $names .name true -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end -}}

{{/* What every container of Simile gets: its name, its volume, its broker, its settings. */}}
{{- define "simile.env.all" -}}
- name: SIMILE_REPLICA
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: SIMILE_ADMIN_HOST
  value: 0.0.0.0
- name: SIMILE_ADMIN_PORT
  value: "9090"
- name: SIMILE_ROOT
  value: /data
# Libraries write the files of a home folder to a writable folder.
- name: HOME
  value: /tmp
{{- include "simile.broker.env" .root }}
{{- include "simile.settings" (dict "root" .root "section" "shared") }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{ .own }}
{{- include "simile.settings" (dict "root" .root "section" .settings) }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
