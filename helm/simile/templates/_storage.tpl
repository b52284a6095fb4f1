{{/* The two volumes: index versions, which only index builds write, and the images, which nobody does. */}}

{{- define "simile.index.claim" -}}
{{- .Values.storage.index.existingClaim | default (include "simile.componentName" (dict "root" . "component" "index")) -}}
{{- end -}}

{{- define "simile.index.volume" -}}
- name: index
  persistentVolumeClaim:
    claimName: {{ include "simile.index.claim" . | quote }}
{{- end -}}

{{/* Where it is mounted: (dict "root" $ "readOnly" true). The claim itself is not marked, since some
     drivers would attach it read-only for the builds of the same node, too. */}}
{{- define "simile.index.mount" -}}
- name: index
  mountPath: {{ .path | default "/data" | quote }}
  {{- with .root.Values.storage.index.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- if .readOnly }}
  readOnly: true
  {{- end }}
{{- end -}}

{{- define "simile.images.volume" -}}
{{- with .Values.storage.images.existingClaim }}
- name: images
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* At the same place for builds and for upload, since a build notes where it saw an image. */}}
{{- define "simile.images.mount" -}}
{{- with .Values.storage.images }}
{{- if .existingClaim }}
- name: images
  mountPath: /images
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}
