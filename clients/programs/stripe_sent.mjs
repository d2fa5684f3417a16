// An application that tells its calls through Stripe's client: v1 and v2, repeated, a wrong key.
import Stripe from 'stripe'

const { MODEL_URL, TOLLGATE_URL, TOLLGATE_KEY } = process.env
const { hostname: host, port } = new URL(TOLLGATE_URL)
const client = (key) => new Stripe(key, { host, port, protocol: 'http', telemetry: false })
const stripe = client(TOLLGATE_KEY)

async function event(user, model = 'gpt-4o-mini') {
  const answer = await fetch(`${MODEL_URL}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, user, messages: [{ role: 'user', content: 'Hi' }] }),
  })
  const { id, usage } = await answer.json()
  const said = {
    value: usage?.total_tokens ?? 0,
    stripe_customer_id: user,
    model,
    status_code: answer.status,
    prompt_tokens: usage?.prompt_tokens ?? 0,
    completion_tokens: usage?.completion_tokens ?? 0,
    cached_tokens: usage?.prompt_tokens_details?.cached_tokens ?? 0,
    reasoning_tokens: usage?.completion_tokens_details?.reasoning_tokens ?? 0,
  }
  const payload = Object.fromEntries(Object.entries(said).map(([name, one]) => [name, String(one)]))
  return { event_name: 'llm_tokens', identifier: id ?? `failed-${user}`, payload }
}

for (const door of [stripe.billing.meterEvents, stripe.v2.billing.meterEvents]) {
  for (const user of ['ada', 'ben', 'ada']) {
    const one = await event(user)
    for (let turn = 0; turn < 2; turn++) {
      const told = await door.create(one)
      if (told.identifier !== one.identifier) throw new Error('answered with another event')
    }
  }
}
const failed = await event('ben', 'no-such-model')
await stripe.v2.billing.meterEvents.create(failed)
const refused = await client('sk_wrong').billing.meterEvents.create(failed).catch((error) => error)
if (refused.statusCode !== 401) throw new Error(`a wrong key was answered with ${refused}`)
