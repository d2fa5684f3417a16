# Codex CLI, asked twice.
set -e
export CODEX_HOME="$HOME/.codex" MODEL_KEY=sk-ada OTEL_RESOURCE_ATTRIBUTES=user.id=ada
mkdir -p "$CODEX_HOME" work
cat > "$CODEX_HOME/config.toml" <<TOML
model = "gpt-5-codex"
model_provider = "local"
check_for_update_on_startup = false

[model_providers.local]
name = "local"
base_url = "$MODEL_URL/v1"
env_key = "MODEL_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false

[otel]
exporter = { otlp-http = { endpoint = "$TOLLGATE_URL/v1/logs", protocol = "binary", headers = { "Authorization" = "Bearer $TOLLGATE_KEY" } } }
TOML
cd work
codex exec --skip-git-repo-check 'Say some words.'
codex exec --skip-git-repo-check 'Say other words.'
