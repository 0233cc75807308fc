{{- define "turnstone.labels" -}}
app.kubernetes.io/name: turnstone
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "turnstone.metricsPort" -}}
{{ regexFind "[0-9]+$" .Values.metrics.listen }}
{{- end }}

{{- define "turnstone.isShared" -}}
{{ if hasPrefix "shared:" .Values.relay.ports }}true{{ end }}
{{- end }}

{{/* The ports that clients come to, as a list of name, port, protocol. */}}
{{- define "turnstone.ports" -}}
{{- $seen := dict }}
{{- range .Values.listeners }}
{{- $scheme := regexFind "^[a-z]+" . }}
{{- $protocol := ternary "UDP" "TCP" (has $scheme (list "udp" "dtls")) }}
{{- $port := regexFind "[0-9]+$" . }}
{{- $name := printf "%s-%s" (lower $protocol) $port }}
{{- if not (hasKey $seen $name) }}
{{- $_ := set $seen $name true }}
- name: {{ $name }}
  port: {{ $port }}
  protocol: {{ $protocol }}
{{- end }}
{{- end }}
{{- if and (eq .Values.kind "Deployment") (include "turnstone.isShared" .) }}
{{- $ends := splitList "-" (trimPrefix "shared:" .Values.relay.ports) }}
{{- range untilStep (int (first $ends)) (int (add1 (last $ends))) 1 }}
- name: relay-{{ . }}
  port: {{ . }}
  protocol: UDP
{{- end }}
{{- end }}
{{- end }}

{{- define "turnstone.hasStore" -}}
{{ if or .Values.store.url .Values.store.urlSecret }}true{{ end }}
{{- end }}

{{- define "turnstone.fleetPort" -}}
{{ regexFind "[0-9]+$" .Values.fleet.listen }}
{{- end }}

{{- define "turnstone.credentialsPort" -}}
{{ regexFind "[0-9]+$" .Values.credentials.listen }}
{{- end }}

{{/* A number as it was written: a large one would be 1e+06. */}}
{{- define "turnstone.text" -}}
{{ if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Of a Secret, whose name may be longer, and have dots. */}}
{{- define "turnstone.volume" -}}
more-{{ sha256sum . | trunc 10 }}
{{- end }}

{{- define "turnstone.hasCertificate" -}}
{{ if or .Values.tls.secretName .Values.tls.insideSecretName }}true{{ end }}
{{- end }}

{{/* turnserver.toml: what values have no variable for. The pod's variables win over it. */}}
{{- define "turnstone.config" -}}
{{ .Values.config }}
{{- if .Values.tls.insideSecretName }}

[[tls.certificates]]
certificate = "/run/secrets/tls-inside/tls.crt"
key = "/run/secrets/tls-inside/tls.key"
{{- end }}
{{- range .Values.credentials.keys }}

[[credentials.keys]]
{{- range $name, $value := . }}
{{ $name }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end }}
{{- if gt (len .Values.secret.keys) 1 }}
{{- range .Values.secret.keys }}

[[auth.secrets]]
id = {{ . | quote }}
file = {{ printf "/run/secrets/turnstone/%s" . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What values say that cannot be, each with what to do about it. */}}
{{- define "turnstone.judge" -}}
{{- $isDaemonSet := eq .Values.kind "DaemonSet" }}
{{- range .Values.listeners }}
{{- if and (or (hasPrefix "tls:" .) (hasPrefix "dtls:" .)) (not $.Values.tls.secretName) }}
{{- fail (printf "listeners: %s needs a certificate: set tls.secretName" .) }}
{{- end }}
{{- end }}
{{- if and .Values.store.url .Values.store.urlSecret }}
{{- fail "store: url and urlSecret say the same thing: set one of them" }}
{{- end }}
{{- if and (or .Values.store.passwordSecret .Values.store.caSecret) (not (include "turnstone.hasStore" .)) }}
{{- fail "store: passwordSecret and caSecret are for a store: set url or urlSecret" }}
{{- end }}
{{- range $own := include "turnstone.env" . | fromYamlArray }}
{{- if hasKey $.Values.env $own.name }}
{{- fail (printf "env: %s comes of a value already, and would be there twice: values.yaml has which" $own.name) }}
{{- end }}
{{- end }}
{{- range list "TURNSTONE_SECRET" "TURNSTONE_USERS" }}
{{- if hasKey $.Values.env . }}
{{- fail (printf "env: %s would stand in a manifest: put it into a Secret, and name that in secret or secretFiles" .) }}
{{- end }}
{{- end }}
{{- if .Values.fleet.enabled }}
{{- if not (include "turnstone.hasCertificate" .) }}
{{- fail "fleet: its pods speak HTTPS: set tls.secretName or tls.insideSecretName" }}
{{- end }}
{{- else if or .Values.fleet.caSecret .Values.fleet.certificateName }}
{{- fail "fleet: caSecret and certificateName are for a fleet: set enabled" }}
{{- end }}
{{- with .Values.credentials }}
{{- if .enabled }}
{{- if not (or .plainHttp (include "turnstone.hasCertificate" $)) }}
{{- fail "credentials: the API speaks HTTPS: set tls.secretName or tls.insideSecretName, or plainHttp where the cluster's network is safe" }}
{{- end }}
{{- if not (or .keys (contains "credentials.keys" $.Values.config)) }}
{{- fail "credentials.keys: nobody could ask: put what \"turnstone credentials key\" prints there" }}
{{- end }}
{{- if not (or $isDaemonSet $.Values.publicHost $.Values.config (hasKey $.Values.env "TURNSTONE_AUTH_URLS")) }}
{{- fail "credentials: clients would be sent the addresses of pods: set publicHost to the load balancer's name or address" }}
{{- end }}
{{- if and $.Values.networkPolicy.enabled (not $.Values.networkPolicy.credentialsFrom) }}
{{- fail "networkPolicy.credentialsFrom: nobody could ask for credentials: say who may" }}
{{- end }}
{{- else if .keys }}
{{- fail "credentials.keys: the API is off: set credentials.enabled" }}
{{- end }}
{{- end }}
{{- if $isDaemonSet }}
{{- if .Values.networkPolicy.enabled }}
{{- fail "networkPolicy: pods on the node's network have none; use the firewall of the nodes, or kind Deployment" }}
{{- end }}
{{- else }}
{{- if not .Values.listeners }}
{{- fail "listeners: a Deployment needs them, for its Service" }}
{{- end }}
{{- if include "turnstone.isShared" . }}
{{- if ne (int .Values.replicas) 1 }}
{{- fail "relay.ports: one pod has the shared port behind a load balancer: set replicas to 1" }}
{{- end }}
{{- if not .Values.relay.externalIp }}
{{- fail "relay.externalIp: clients are sent the address of the load balancer: set it" }}
{{- end }}
{{- else if or (ne .Values.peers.mode "sfu") (not .Values.peers.allowed) }}
{{- fail "peers: only the cluster reaches the relays of a Deployment: set mode to sfu, and allowed to the addresses of the SFU, or relay.ports to shared:3480-3480" }}
{{- end }}
{{- end }}
{{- end }}
