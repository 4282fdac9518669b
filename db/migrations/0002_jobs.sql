-- Work that takes long, what a check of the numbers found, and the attempts at batches that do not fold.

create table job (
    tenant bigint not null,
    job text COLLATE "C" not null,
    kind text COLLATE "C" not null,
    scope text COLLATE "C" not null,
    student text COLLATE "C" default '' not null,
    classroom text COLLATE "C" default '' not null,
    is_dry_run boolean default false not null,
    state text COLLATE "C" not null,
    done integer default 0 not null,
    total integer,
    checkpoint jsonb default '{}' not null,
    result jsonb,
    error text COLLATE "C",
    is_cancelled boolean default false not null,
    requested_by text COLLATE "C" not null,
    idempotency text COLLATE "C",
    runner text COLLATE "C",
    beat_at timestamp with time zone,
    change_no bigint default 1 not null,
    created_at timestamp with time zone not null,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    primary key (tenant, job)
);
create unique index job_by_idempotency on job (tenant, requested_by, idempotency);
create index job_by_time on job (tenant, created_at, job);
create index job_unfinished on job (tenant, created_at) where state in ('QUEUED', 'RUNNING');

create table drift_report (
    tenant bigint not null,
    report text COLLATE "C" not null,
    job text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    compared integer not null,
    different integer not null,
    skipped integer default 0 not null,
    differences jsonb default '[]' not null,
    first_cause text COLLATE "C",
    at timestamp with time zone not null,
    primary key (tenant, report)
);
create index drift_report_by_time on drift_report (tenant, at, report);

-- Unlogged: it costs no flush, and a crash of Postgres, which blames no event, forgets every attempt.
create unlogged table claim (
    tenant bigint not null,
    shard smallint not null,
    token text COLLATE "C" not null,
    first_seq bigint not null,
    last_seq bigint not null,
    rows integer not null,
    attempts integer not null,
    at timestamp with time zone not null,
    primary key (tenant, shard, token)
);

alter table conflict add column content jsonb;
alter table conflict add column resolution text COLLATE "C";
alter table conflict add column resolved_by text COLLATE "C";
alter table conflict add column resolved_at timestamp with time zone;

-- What a worker reads across tenants: which work nobody does, never what it is about.
create function waiting_jobs(stale_before timestamptz, at_most integer) returns table (tenant bigint, job text)
language sql stable security definer set search_path = public, pg_temp as $$
    select t.tenant, w.job
    from tenant t
    cross join lateral (
        select j.job, j.created_at from job j
        where j.tenant = t.tenant
            and (j.state = 'QUEUED' or (j.state = 'RUNNING' and j.beat_at < stale_before))
        order by j.created_at limit at_most
    ) w
    order by w.created_at
    limit at_most
$$;

-- One class of each tenant that was not sampled this night: the class whose name, hashed with the day, is lowest.
create function unsampled_tenants(night text, at_most integer) returns table (tenant bigint, classroom text)
language sql stable security definer set search_path = public, pg_temp as $$
    select t.tenant, c.classroom
    from tenant t
    cross join lateral (
        select s.classroom from classroom_state s
        where s.tenant = t.tenant and s.assessed_at is not null
        order by hashtextextended(s.classroom, hashtextextended(night, 0)) limit 1
    ) c
    where not exists (
        select from job j
        where j.tenant = t.tenant and j.requested_by = 'sightline' and j.idempotency = 'nightly:' || night
    )
    limit at_most
$$;
grant execute on function waiting_jobs, unsampled_tenants to sightline_app;
