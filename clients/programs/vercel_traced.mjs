// Vercel's AI SDK with its own telemetry: a tool in two turns, streams, embeddings, refusals.
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { OpenTelemetry } from '@ai-sdk/otel'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node'
import { embed, generateText, isStepCount, registerTelemetry, streamText, tool } from 'ai'
import { z } from 'zod'

const { MODEL_URL } = process.env
const provider = new NodeTracerProvider({
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
})
provider.register()
registerTelemetry(new OpenTelemetry({ runtimeContext: true }))

const look_up = tool({
  description: 'Say what a word means.',
  inputSchema: z.object({ word: z.string() }),
  execute: async ({ word }) => `The ${word} is a star.`,
})

async function talk(user) {
  const openai = createOpenAI({ baseURL: `${MODEL_URL}/v1`, apiKey: `sk-${user}` })
  const anthropic = createAnthropic({ baseURL: `${MODEL_URL}/v1`, apiKey: `sk-${user}` })
  const telemetry = { isEnabled: true, includeRuntimeContext: { userId: true } }
  const whose = { maxRetries: 0, runtimeContext: { userId: user }, telemetry }
  const asked = { ...whose, prompt: 'Say some words.' }
  for (const model of [openai.chat('gpt-4o-mini'), openai('gpt-4.1-mini'), anthropic('claude-sonnet-4-5')]) {
    await generateText({ ...asked, model })
    await generateText({ ...asked, model, tools: { look_up }, stopWhen: isStepCount(3) })
    for await (const _ of streamText({ ...asked, model }).textStream);
  }
  for (const name of ['no-such-model', 'busy-model', 'broken-model']) {
    const answer = generateText({ ...asked, model: openai.chat(name) })
    await answer.then(() => { throw new Error('a model that is refused was served') }, () => {})
  }
  const model = openai.embedding('text-embedding-3-small')
  await embed({ ...whose, model, value: 'words' })
}

for (const user of ['ada', 'ben']) await talk(user)
await provider.shutdown()
