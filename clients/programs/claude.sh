# Claude Code, asked twice.
set -e
export ANTHROPIC_BASE_URL="$MODEL_URL" ANTHROPIC_API_KEY=sk-ada ANTHROPIC_MODEL=claude-sonnet-4-5
export CLAUDE_CODE_ENABLE_TELEMETRY=1 OTEL_LOGS_EXPORTER=otlp OTEL_METRICS_EXPORTER=otlp
export OTEL_RESOURCE_ATTRIBUTES=user.id=ada
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1
claude=$(ls "$PWD"/node_modules/@anthropic-ai/claude-code-*/claude)
mkdir -p work
cd work
"$claude" -p 'Say some words.'
"$claude" -p 'Say other words.'
