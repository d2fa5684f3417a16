// An application that tells its calls through OpenMeter's own client: one by one, and as a batch.
import { OpenMeter } from '@openmeter/sdk'

const { MODEL_URL, TOLLGATE_URL, TOLLGATE_KEY } = process.env
const openmeter = new OpenMeter({ baseUrl: TOLLGATE_URL, apiKey: TOLLGATE_KEY })

async function asked(user) {
  const answer = await fetch(`${MODEL_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'gpt-4o-mini', user, messages: [{ role: 'user', content: 'Hi' }] }),
  })
  const { usage, model } = await answer.json()
  return {
    type: 'prompt',
    subject: user,
    data: {
      provider: 'openai',
      model,
      input_tokens: usage.prompt_tokens,
      cached_input_tokens: usage.prompt_tokens_details.cached_tokens,
      output_tokens: usage.completion_tokens,
    },
  }
}

for (const user of ['ada', 'ben']) await openmeter.events.ingest(await asked(user))
const batch = []
for (const user of ['ada', 'ben', 'ada']) batch.push(await asked(user))
await openmeter.events.ingest(batch)
