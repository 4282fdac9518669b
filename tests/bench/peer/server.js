// The peer in Node: mercurius and pg, with the tables of the service. docs/decisions/0019-peers.md says why it is fair.
//
// It is spared what a service cannot leave out: tokens, rights, most of an event's judgement, traces, limits. What it
// does to the store is the same: the key, the log row and the outbox row in one transaction, answered after its commit.
import fastify from 'fastify'
import mercurius from 'mercurius'
import pg from 'pg'

import { boardLoaders, boardResolvers } from './board.js'
import { perRequest, grouped } from './record.js'
import { schema } from './schema.js'

const { DATABASE_URL, PORT, PEER_COMMIT, PEER_JIT, PEER_RECORD, PEER_TENANT } = process.env
const CONNECTIONS = 16

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: CONNECTIONS })
const tenant = PEER_TENANT
const record = PEER_COMMIT === 'group' ? grouped(pool, tenant, PEER_RECORD) : perRequest(pool, tenant)

const app = fastify()
app.register(mercurius, {
  schema,
  resolvers: {
    ...boardResolvers(pool, tenant),
    Mutation: { recordEvent: (_, { input }) => record(input) }
  },
  loaders: boardLoaders(pool, tenant),
  jit: Number(PEER_JIT)
})
app.get('/ready', async () => ({ ready: (await pool.query('select 1')).rowCount === 1 }))
await app.listen({ host: '127.0.0.1', port: Number(PORT) })

process.on('SIGTERM', async () => {
  await app.close()
  await pool.end()
})
