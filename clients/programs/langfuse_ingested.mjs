// An application traced by Langfuse's third JavaScript SDK, which speaks as the second in Python.
import { Langfuse } from 'langfuse'

const { MODEL_URL, TOLLGATE_URL, TOLLGATE_KEY } = process.env
const langfuse = new Langfuse({
  baseUrl: TOLLGATE_URL,
  publicKey: 'anything',
  secretKey: TOLLGATE_KEY,
})

async function asked(user, model, told) {
  const trace = langfuse.trace({ name: 'chat', userId: user, sessionId: 's1' })
  const generation = trace.generation({ name: 'words', model })
  const answer = await fetch(`${MODEL_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, user, messages: [{ role: 'user', content: 'Hi' }] }),
  })
  const said = await answer.json()
  generation.end(answer.ok ? told(said.usage) : { level: 'ERROR', statusMessage: 'refused' })
  trace.score({ name: 'quality', value: 1 })
}

const openais = (usage) => ({ usageDetails: usage })
const parts = (usage) => {
  const { cached_tokens } = usage.prompt_tokens_details
  const { reasoning_tokens } = usage.completion_tokens_details
  return {
    usageDetails: {
      input: usage.prompt_tokens - cached_tokens,
      input_cached_tokens: cached_tokens,
      output: usage.completion_tokens - reasoning_tokens,
      output_reasoning_tokens: reasoning_tokens,
    },
  }
}

for (const user of ['ada', 'ben']) {
  await asked(user, 'gpt-4o-mini', openais)
  await asked(user, 'gpt-4o-mini', parts)
  await asked(user, 'no-such-model', openais)
}
await langfuse.shutdownAsync()
