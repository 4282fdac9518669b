with keyed as (
    insert into event_key (tenant, source, event_id, id, seq, fingerprint, received_at)
    values ($1, $2, $3, uuidv7(), nextval('peer_seq'), $4, $5)
    on conflict (tenant, source, event_id) do nothing
    returning id, seq
), logged as (
    insert into event (
        tenant, seq, received_at, id, source, event_id, kind, occurred_at, revision, student, classroom, assignment,
        concepts, ratio, submission, is_late, payload, recorded_by)
    select $1, k.seq, $5, k.id, $2, $3, $6, $7, 0, $8, $9, $10, $11, $12, $13, false, $14, 'peer' from keyed k
), queued as (
    insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, classroom, received_at)
    select $1, $15, 0, $7, k.seq, 'EVENT', $8, $9, $5 from keyed k
)
select id, seq from keyed
