# Gemini CLI, asked twice.
set -e
export GEMINI_API_KEY=ada GOOGLE_GEMINI_BASE_URL="$MODEL_URL" GEMINI_MODEL=gemini-2.5-pro
export GEMINI_TELEMETRY_ENABLED=true GEMINI_TELEMETRY_TARGET=local GEMINI_TELEMETRY_OTLP_PROTOCOL=http
export GEMINI_TELEMETRY_OTLP_ENDPOINT="$TOLLGATE_URL" OTEL_RESOURCE_ATTRIBUTES=user.id=ada
export GEMINI_CLI_TRUST_WORKSPACE=true
mkdir -p "$HOME/.gemini" work
echo '{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false},"general":{"disableAutoUpdate":true}}' > "$HOME/.gemini/settings.json"
cd work
gemini --prompt 'Say some words.'
gemini --prompt 'Say other words.'
