{{/* The variables that come of values. */}}
{{- define "turnstone.env" -}}
{{- $config := include "turnstone.config" . | trim -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- if include "turnstone.hasStore" . }}
- name: TURNSTONE_STORE_NODE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: TURNSTONE_STORE_URL
  {{- with .Values.store.urlSecret }}
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: url
  {{- else }}
  value: {{ .Values.store.url | quote }}
  {{- end }}
{{- if .Values.store.passwordSecret }}
- name: TURNSTONE_STORE_PASSWORD_FILE
  value: /run/secrets/store/password
{{- end }}
{{- if .Values.store.caSecret }}
- name: TURNSTONE_STORE_CA
  value: /run/secrets/store-ca/ca.crt
{{- end }}
{{- end }}
{{- with .Values.fleet }}
{{- if .enabled }}
- name: TURNSTONE_FLEET_LISTEN
  value: {{ .listen | quote }}
# The pods, by the records that the cluster's DNS has of their headless Service.
- name: TURNSTONE_FLEET_NODES
  value: {{ printf "_fleet._tcp.%s-fleet.%s.svc.%s" $.Release.Name $.Release.Namespace .clusterDomain | quote }}
- name: TURNSTONE_FLEET_TOKEN_FILE
  value: /run/secrets/fleet/token
{{- if .caSecret }}
- name: TURNSTONE_FLEET_CA
  value: /run/secrets/fleet-ca/ca.crt
{{- end }}
{{- with .certificateName }}
- name: TURNSTONE_FLEET_CERTIFICATE_NAME
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.credentials }}
{{- if .enabled }}
- name: TURNSTONE_CREDENTIALS_LISTEN
  value: {{ .listen | quote }}
{{- if .plainHttp }}
- name: TURNSTONE_CREDENTIALS_TLS
  value: "false"
- name: TURNSTONE_CREDENTIALS_ALLOW_PLAIN_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- end }}
- name: TURNSTONE_CONFIG
  value: {{ empty $config | ternary "/dev/null" "/etc/turnstone/turnserver.toml" }}
- name: TURNSTONE_LOG_OUTPUT
  value: stdout
{{- with .Values.listeners }}
- name: TURNSTONE_LISTEN
  value: {{ join "," . | quote }}
{{- end }}
{{- if eq (len .Values.secret.keys) 1 }}
- name: TURNSTONE_SECRET_FILE
  value: /run/secrets/turnstone/{{ first .Values.secret.keys }}
{{- end }}
{{- if .Values.nonceKey.secretName }}
- name: TURNSTONE_AUTH_NONCE_KEY_FILE
  value: /run/secrets/nonce-key/{{ .Values.nonceKey.key }}
{{- end }}
# 0440 with fsGroup, as below.
- name: TURNSTONE_SECRET_FILES_READABLE_BY
  value: group
# Files of a Secret change in the running pod.
- name: TURNSTONE_FOLLOW_SECRETS
  value: "true"
{{- if .Values.tls.secretName }}
- name: TURNSTONE_TLS_CERTIFICATE
  value: /run/secrets/tls/tls.crt
- name: TURNSTONE_TLS_KEY
  value: /run/secrets/tls/tls.key
{{- end }}
- name: TURNSTONE_RELAY_PORTS
  value: {{ .Values.relay.ports | quote }}
{{- with .Values.relay.externalIp }}
- name: TURNSTONE_EXTERNAL_IP
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.relay.externalIpSources }}
- name: TURNSTONE_EXTERNAL_IP_SOURCES
  value: {{ join "," . | quote }}
{{- end }}
- name: TURNSTONE_PEERS_MODE
  value: {{ .Values.peers.mode }}
{{- with .Values.peers.allowed }}
- name: TURNSTONE_PEERS_ALLOWED
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.publicHost }}
- name: TURNSTONE_PUBLIC_HOST
  value: {{ . | quote }}
{{- end }}
- name: TURNSTONE_ADMIN_LISTEN
  value: unix:/run/turnstone/admin.sock
- name: TURNSTONE_METRICS_LISTEN
  value: {{ .Values.metrics.listen | quote }}
- name: TURNSTONE_METRICS_ALLOW_REMOTE
  value: "true"
- name: TURNSTONE_DRAIN_DEADLINE
  value: {{ printf "%ds" (int .Values.drain.seconds) }}
{{- end }}

{{- define "turnstone.pod" -}}
{{- include "turnstone.judge" . -}}
{{- $isDaemonSet := eq .Values.kind "DaemonSet" -}}
{{- $config := include "turnstone.config" . | trim -}}
metadata:
  labels:
    {{- include "turnstone.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $config .Values.podAnnotations }}
  annotations:
    {{- if $config }}
    # Another configuration is another pod.
    turnstone/config: {{ sha256sum $config }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  {{- if $isDaemonSet }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add (int .Values.drain.seconds) 60 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    # The group of the files in secrets and of the folder of the admin socket.
    fsGroup: {{ .Values.securityContext.runAsGroup }}
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: turnstone
      image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/usr/bin/turnstone]
      args: [serve]
      env:
        {{- include "turnstone.env" . | nindent 8 }}
        {{- range $name, $value := .Values.env }}
        - name: {{ $name }}
          value: {{ include "turnstone.text" $value | quote }}
        {{- end }}
      ports:
        {{- range include "turnstone.ports" . | fromYamlArray }}
        - name: {{ .name }}
          containerPort: {{ .port }}
          protocol: {{ .protocol }}
        {{- end }}
        - name: metrics
          containerPort: {{ include "turnstone.metricsPort" . }}
          protocol: TCP
        {{- if .Values.fleet.enabled }}
        - name: fleet
          containerPort: {{ include "turnstone.fleetPort" . }}
          protocol: TCP
        {{- end }}
        {{- if .Values.credentials.enabled }}
        - name: credentials
          containerPort: {{ include "turnstone.credentialsPort" . }}
          protocol: TCP
        {{- end }}
      lifecycle:
        preStop:
          exec:
            # Not ready from here on; it returns when the server has ended, with its last call or at the deadline.
            command: [/usr/bin/turnstone, drain, --wait]
      startupProbe:
        httpGet:
          path: /healthz
          port: metrics
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet:
          {{- if $isDaemonSet }}
          # 503 as soon as a drain begins.
          path: /readyz
          {{- else }}
          # Not /readyz: kube-proxy would cut the running calls of a pod that drains. A pod that is stopped gets no new ones in any case.
          path: /healthz
          {{- end }}
          port: metrics
        periodSeconds: 2
        failureThreshold: 1
      livenessProbe:
        httpGet:
          # 200 while it drains, too.
          path: /healthz
          port: metrics
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - name: run
          mountPath: /run/turnstone
        - name: secret
          mountPath: /run/secrets/turnstone
          readOnly: true
        {{- range .Values.secretFiles }}
        - name: {{ include "turnstone.volume" . }}
          mountPath: /run/secrets/more/{{ . }}
          readOnly: true
        {{- end }}
        {{- if .Values.tls.secretName }}
        - name: tls
          mountPath: /run/secrets/tls
          readOnly: true
        {{- end }}
        {{- if .Values.tls.insideSecretName }}
        - name: tls-inside
          mountPath: /run/secrets/tls-inside
          readOnly: true
        {{- end }}
        {{- if .Values.fleet.enabled }}
        - name: fleet
          mountPath: /run/secrets/fleet
          readOnly: true
        {{- end }}
        {{- if .Values.fleet.caSecret }}
        - name: fleet-ca
          mountPath: /run/secrets/fleet-ca
          readOnly: true
        {{- end }}
        {{- if .Values.nonceKey.secretName }}
        - name: nonce-key
          mountPath: /run/secrets/nonce-key
          readOnly: true
        {{- end }}
        {{- if .Values.store.passwordSecret }}
        - name: store
          mountPath: /run/secrets/store
          readOnly: true
        {{- end }}
        {{- if .Values.store.caSecret }}
        - name: store-ca
          mountPath: /run/secrets/store-ca
          readOnly: true
        {{- end }}
        {{- if $config }}
        - name: config
          mountPath: /etc/turnstone
          readOnly: true
        {{- end }}
  volumes:
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    - name: secret
      secret:
        secretName: {{ .Values.secret.name }}
        defaultMode: 0440
        items:
          {{- range .Values.secret.keys }}
          - key: {{ . | quote }}
            path: {{ . | quote }}
          {{- end }}
    {{- range .Values.secretFiles }}
    - name: {{ include "turnstone.volume" . }}
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- range $name, $secretName := dict "tls" .Values.tls.secretName "tls-inside" .Values.tls.insideSecretName }}
    {{- if $secretName }}
    - name: {{ $name }}
      secret:
        secretName: {{ $secretName }}
        defaultMode: 0440
        items:
          - key: tls.crt
            path: tls.crt
          - key: tls.key
            path: tls.key
    {{- end }}
    {{- end }}
    {{- if .Values.nonceKey.secretName }}
    - name: nonce-key
      secret:
        secretName: {{ .Values.nonceKey.secretName }}
        defaultMode: 0440
        items:
          - key: {{ .Values.nonceKey.key | quote }}
            path: {{ .Values.nonceKey.key | quote }}
    {{- end }}
    {{- if .Values.fleet.enabled }}
    - name: fleet
      secret:
        secretName: {{ .Values.fleet.tokenSecret }}
        defaultMode: 0440
        items:
          - key: token
            path: token
    {{- end }}
    {{- with .Values.store.passwordSecret }}
    - name: store
      secret:
        secretName: {{ . }}
        defaultMode: 0440
        items:
          - key: password
            path: password
    {{- end }}
    {{- range $name, $secretName := dict "fleet-ca" .Values.fleet.caSecret "store-ca" .Values.store.caSecret }}
    {{- if $secretName }}
    - name: {{ $name }}
      secret:
        secretName: {{ $secretName }}
        defaultMode: 0440
        # Not the key of that authority, which may be beside it.
        items:
          - key: ca.crt
            path: ca.crt
    {{- end }}
    {{- end }}
    {{- if $config }}
    - name: config
      configMap:
        name: {{ .Release.Name }}
    {{- end }}
{{- end }}
