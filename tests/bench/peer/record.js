// One idempotent insert, in two ways: a transaction for each request, or one for all requests that arrived meanwhile.
import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'

const SHARDS = 4
const BATCH_MAX = 2000
const GRADED = new Set(['SUBMISSION_GRADED', 'QUIZ_ATTEMPT'])
const KINDS = new Set([...GRADED, 'SUBMISSION_CREATED', 'CONTENT_VIEWED'])
const CORRECTIONS = ['ASSIGNMENT_EXCUSED', 'ASSIGNMENT_REOPENED', 'EVENT_VOIDED', 'SUBMISSION_REGRADED']
const SEPARATOR = '\x1f'

// Positions come from a sequence here: with a row for them, as in the service's own statement, requests of one tenant
// would wait for each other's commits, and the peer would lose by that alone.
const INSERT = readFileSync(new URL('insert.sql', import.meta.url), 'utf8')
const STORED = 'select id, seq, fingerprint from event_key where tenant = $1 and source = $2 and event_id = $3'

/** The event as the log stores it, or what is wrong with it. */
function judged (input) {
  const occurredAt = new Date(input.occurredAt)
  if (Number.isNaN(occurredAt.getTime())) return problem('BAD_TIMESTAMP', 'occurredAt')
  if (!KINDS.has(input.type)) return problem('UNKNOWN_TYPE', 'type')
  if (!input.studentId || !input.source || !input.eventId) return problem('REQUIRED', 'studentId')
  const isGraded = GRADED.has(input.type)
  if (isGraded && !(input.score >= 0 && input.score <= input.maxScore)) return problem('SCORE_OUT_OF_RANGE', 'score')
  return {
    ...input,
    occurredAt,
    classroomId: input.classroomId ?? '',
    conceptIds: input.conceptIds ?? [],
    fingerprint: createHash('md5').update(JSON.stringify(input)).digest(),
    ratio: isGraded ? Math.round(input.score / input.maxScore * 1e6) : null,
    payload: JSON.stringify({ score: input.score, maxScore: input.maxScore, contentId: input.contentId }),
    shard: crc32(input.classroomId || input.studentId) % SHARDS
  }
}

const problem = (code, field) => ({
  rejected: { status: 'REJECTED', event: null, errors: [{ code, field: [field], message: `wrong ${field}` }] }
})
const answer = (status, { id, seq }) => ({ status, event: { id, seq }, errors: [] })

/** What became of an event whose key was there already. */
async function answerOfStored (pool, tenant, event) {
  const { rows: [stored] } = await pool.query({ name: 'stored', text: STORED, values: [tenant, event.source, event.eventId] })
  return answer(stored.fingerprint.equals(event.fingerprint) ? 'DUPLICATE' : 'CONFLICT', stored)
}

/** Insert per request: the statement is the transaction. */
export function perRequest (pool, tenant) {
  return async (input) => {
    const event = judged(input)
    if (event.rejected) return event.rejected
    const { rows } = await pool.query({
      name: 'insert',
      text: INSERT,
      values: [
        tenant, event.source, event.eventId, event.fingerprint, new Date(), event.type, event.occurredAt,
        event.studentId, event.classroomId, event.assignmentId, event.conceptIds, event.ratio, event.submissionId,
        event.payload, event.shard
      ]
    })
    return rows.length ? answer('ACCEPTED', rows[0]) : answerOfStored(pool, tenant, event)
  }
}

/** Group commit with the service's own statement: one batch in flight, the rest gathers behind it. */
export function grouped (pool, tenant, text) {
  const waiting = []
  let isServing = false

  async function serve () {
    isServing = true
    while (waiting.length) {
      const batch = waiting.splice(0, BATCH_MAX)
      try {
        await commit(batch)
      } catch (error) {
        for (const { fail } of batch) fail(error)
      }
    }
    isServing = false
  }

  async function commit (batch) {
    const firsts = new Map() // the first of each key; sorted, so that overlapping batches cannot deadlock
    batch.forEach((call, place) => {
      if (!firsts.has(call.key)) firsts.set(call.key, { ...call, place: place + 1, id: randomUUID() })
    })
    const sent = [...firsts.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
    const values = [tenant, batch.length, new Date(), ...columns(sent), null, CORRECTIONS]
    const { rows } = await pool.query({ name: 'record', text, values })
    const stored = new Map(rows.map(({ seq, place }) => [Number(place), seq]))
    for (const call of batch) {
      const first = firsts.get(call.key)
      const isNew = stored.has(first.place) && first.done === call.done
      if (isNew) call.done(answer('ACCEPTED', { id: first.id, seq: stored.get(first.place) }))
      else answerOfStored(pool, tenant, call.event).then(call.done, call.fail)
    }
  }

  return (input) => {
    const event = judged(input)
    if (event.rejected) return event.rejected
    return new Promise((resolve, reject) => {
      waiting.push({ event, key: event.source + SEPARATOR + event.eventId, done: resolve, fail: reject })
      if (!isServing) serve()
    })
  }
}

/** $4 to $28 of the service's statement: one list for each column. */
function columns (sent) {
  const of = (read) => sent.map(({ event }) => read(event))
  const none = sent.map(() => null)
  return [
    sent.map(({ id }) => id), of((e) => e.source), of((e) => e.eventId), of((e) => e.fingerprint), sent.map(({ place }) => place),
    of((e) => e.type), none, of((e) => e.occurredAt), sent.map(() => 0), of((e) => e.studentId),
    of((e) => e.classroomId), of((e) => e.assignmentId ?? null), none, of((e) => e.conceptIds.join(SEPARATOR)),
    of((e) => e.ratio), of((e) => e.submissionId ?? null), none, none, none, none, sent.map(() => false),
    of((e) => e.payload), sent.map(() => 'peer'), of((e) => e.shard), sent.map(() => 0)
  ]
}
