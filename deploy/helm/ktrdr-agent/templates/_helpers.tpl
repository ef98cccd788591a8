{{- define "ktrdr-agent.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ktrdr-agent.labels" -}}
{{ include "ktrdr-agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "ktrdr-agent.selector" -}}
app.kubernetes.io/name: ktrdr-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ktrdr-agent.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ktrdr-agent.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
