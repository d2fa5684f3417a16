// An application that tells its calls through Lago's client: one by one, as a batch, repeated.
import { Client } from 'lago-javascript-client'

const { MODEL_URL, TOLLGATE_URL, TOLLGATE_KEY } = process.env
const lago = Client(TOLLGATE_KEY, { baseUrl: `${TOLLGATE_URL}/api/v1` })

async function event(user, model = 'gpt-4o-mini') {
  const answer = await fetch(`${MODEL_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, user, messages: [{ role: 'user', content: 'Hi' }] }),
  })
  const { id, usage } = await answer.json()
  return {
    transaction_id: id ?? `failed-${user}`,
    external_subscription_id: user,
    code: 'llm_tokens',
    timestamp: String(Date.now() / 1000),
    properties: {
      model,
      status_code: answer.status,
      prompt_tokens: usage?.prompt_tokens ?? 0,
      completion_tokens: usage?.completion_tokens ?? 0,
      cached_tokens: usage?.prompt_tokens_details?.cached_tokens ?? 0,
      reasoning_tokens: usage?.completion_tokens_details?.reasoning_tokens ?? 0,
    },
  }
}

for (const [user, model] of [['ada'], ['ben'], ['ben', 'no-such-model']]) {
  const one = await event(user, model)
  for (let turn = 0; turn < 2; turn++) await lago.events.createEvent({ event: one })
}
const events = []
for (const user of ['ada', 'ben', 'ada']) events.push(await event(user))
for (let turn = 0; turn < 2; turn++) await lago.events.createBatchEvents({ events })
