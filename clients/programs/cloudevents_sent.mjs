// An application that tells its calls as CloudEvents: structured, binary and repeated.
import { CloudEvent, HTTP } from 'cloudevents'

const { MODEL_URL, TOLLGATE_URL, TOLLGATE_KEY } = process.env

async function event(user, model = 'gpt-4o-mini') {
  const answer = await fetch(`${MODEL_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, user, messages: [{ role: 'user', content: 'Hi' }] }),
  })
  const { id = crypto.randomUUID(), usage = {} } = await answer.json()
  const data = { provider: 'openai', model, status_code: answer.status, usage }
  return new CloudEvent({ type: 'prompt', source: 'chat-service', id, subject: user, data })
}

for (const shaped of [HTTP.structured, HTTP.binary]) {
  for (const [user, model] of [['ada'], ['ben'], ['ada', 'no-such-model']]) {
    const { headers, body } = shaped(await event(user, model))
    for (let turn = 0; turn < 2; turn++) {
      const answer = await fetch(`${TOLLGATE_URL}/api/v1/events`, {
        method: 'POST',
        headers: { ...headers, authorization: `Bearer ${TOLLGATE_KEY}` },
        body,
      })
      if (answer.status !== 204) throw new Error(await answer.text())
    }
  }
}
