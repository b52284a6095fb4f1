{{/* One build: (dict "root" $ "collection" <collection, or null for the sample>). */}}

{{- define "simile.index.collections" -}}
{{- $collections := .Values.index.collections | default list -}}
{{- if .Values.index.sample }}{{ $collections = append $collections (dict "name" "sample" "drawn" true) }}{{ end -}}
{{- toYaml (dict "collections" $collections) -}}
{{- end -}}

{{/* A collection's CronJob: (dict "root" $ "name" <the collection's>). It names jobs by the minute,
     which takes 11 of the 63 characters; what is cut off stays in a hash. */}}
{{- define "simile.index.cronName" -}}
{{- $index := include "simile.componentName" (dict "root" .root "component" "index") -}}
{{- $name := regexReplaceAll "-+$" (printf "%s-%s" $index .name | replace "_" "-") "" -}}
{{- if gt (len $name) 52 -}}
{{- $name = printf "%s-%s" (trunc 43 $name) (sha256sum .name | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "simile.index.env" -}}
- name: SIMILE_INDEX_ADMIN_PORT
  value: "9090"
# Else one for each core of the node, which would wait for each other at the limit.
- name: OPENBLAS_NUM_THREADS
  valueFrom:
    resourceFieldRef: {resource: limits.cpu}
{{- end -}}

{{- define "simile.index.jobSpec" -}}
{{- $values := .root.Values.index -}}
{{- $scope := dict "root" .root "component" "index" "section" "searcher" "values" $values -}}
backoffLimit: {{ int64 $values.backoffLimit }}
# A node that is drained, or taken back, is no failure of the build.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
{{- if not (kindIs "invalid" $values.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int64 $values.ttlSecondsAfterFinished }}
{{- end }}
template:
  metadata:
    {{- include "simile.pod.metadata" $scope | nindent 4 }}
  spec:
    {{- include "simile.pod.place" $scope | nindent 4 }}
    terminationGracePeriodSeconds: {{ include "simile.graceSeconds" .root }}
    # Another pod goes on where a build was; this one keeps its log.
    restartPolicy: Never
    {{- with $values.initContainers }}
    initContainers:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: build
        image: {{ include "simile.image" $scope | quote }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy | quote }}
        {{- if .collection.drawn }}
        args: [index, build]
        {{- else }}
        args:
          - index
          - build
          - {{ include "simile.literal" (printf "/images/%s" (.collection.folder | default .collection.name)) | quote }}
          - --collection
          - {{ .collection.name | quote }}
        {{- end }}
        env:
          {{- include "simile.env" (merge (dict "settings" "index" "own" (include "simile.index.env" .)) $scope) | nindent 10 }}
        {{- include "simile.envFrom" $scope | nindent 8 }}
        ports:
          - name: admin
            containerPort: 9090
        resources:
          {{- toYaml ($values.resources | default dict) | nindent 10 }}
        securityContext:
          {{- include "simile.container.security" .root | nindent 10 }}
        volumeMounts:
          {{- include "simile.scratch.mount" .root | nindent 10 }}
          {{- include "simile.index.mount" (dict "root" .root) | nindent 10 }}
          {{- include "simile.images.mount" .root | nindent 10 }}
          {{- include "simile.brokerTls.mount" .root | nindent 10 }}
          {{- with $values.extraVolumeMounts }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
      {{- with $values.extraContainers }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    volumes:
      {{- include "simile.scratch.volume" .root | nindent 6 }}
      {{- include "simile.index.volume" .root | nindent 6 }}
      {{- include "simile.images.volume" .root | nindent 6 }}
      {{- include "simile.brokerTls.volume" .root | nindent 6 }}
      {{- with $values.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
