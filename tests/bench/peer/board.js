// The class dashboard of students by concepts, the usual way: a query for the list, and a loader for each field below it
// that reads rows. Concepts come joined with their standings: a loader for them would be asked 900 times an answer.
const CLASSROOM = 'select c.classroom as key, c.name from classroom c where c.tenant = $1 and c.classroom = $2'
const ROSTER = `
select e.person as "personId", e.role from enrollment e
where e.tenant = $1 and e.classroom = $2 and e.started <= current_date and (e.ended is null or e.ended > current_date)
order by e.person, e.role, e.started limit $3
`
const STUDENTS = `
select s.student as key, p.display_name as "displayName" from student s
left join person p on p.tenant = $1 and p.person = s.student
where s.tenant = $1 and s.student = any($2)
`
const STANDINGS = `
select s.student, s.concept, c.name, s.score, s.count from standing s
left join concept c on c.tenant = $1 and c.concept = s.concept
where s.tenant = $1 and s.classroom = $2 and s.student = any($3) order by s.student, s.concept
`
const EVIDENCE_MIN = 3

export function boardResolvers (pool, tenant) {
  return {
    Query: {
      async classroom (_, { id }) {
        const { rows } = await pool.query({ name: 'classroom', text: CLASSROOM, values: [tenant, id] })
        return rows[0]
      }
    },
    Classroom: {
      async roster ({ key }, { first }) {
        const { rows } = await pool.query({ name: 'roster', text: ROSTER, values: [tenant, key, first] })
        return { nodes: rows }
      }
    }
  }
}

export function boardLoaders (pool, tenant) {
  return {
    Enrollment: {
      async student (queries) {
        const keys = queries.map(({ obj }) => obj.personId)
        const { rows } = await pool.query({ name: 'students', text: STUDENTS, values: [tenant, keys] })
        const known = new Map(rows.map((row) => [row.key, row]))
        return queries.map(({ obj }) => (obj.role === 'STUDENT' ? known.get(obj.personId) ?? null : null))
      }
    },
    Student: {
      async mastery (queries) {
        const { classroomId, first } = queries[0].params
        const keys = queries.map(({ obj }) => obj.key)
        const { rows } = await pool.query({ name: 'standings', text: STANDINGS, values: [tenant, classroomId, keys] })
        const of = new Map(keys.map((key) => [key, []]))
        for (const row of rows) {
          const nodes = of.get(row.student)
          if (nodes.length < first) nodes.push(shown(row))
        }
        return keys.map((key) => ({ nodes: of.get(key) }))
      }
    }
  }
}

const shown = ({ concept, name, score, count }) => ({
  concept: { key: concept, name: name ?? concept },
  score: score === null ? null : score / 1000,
  state: count === 0 ? 'NO_DATA' : count < EVIDENCE_MIN ? 'LOW_EVIDENCE' : 'OK',
  evidenceCount: count
})
