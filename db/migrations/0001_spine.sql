-- The first release: the roster, the log, the outbox and the projections.

create table assignment (
    tenant bigint not null,
    assignment text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    title text COLLATE "C" not null,
    kind text COLLATE "C" default 'ASSIGNMENT' not null,
    due_at timestamp with time zone,
    difficulty text COLLATE "C",
    concepts text[] COLLATE "C" default '{}' not null,
    created_at timestamp with time zone not null,
    primary key (tenant, assignment)
);
create index assignment_by_classroom on assignment (tenant, classroom, assignment);

create table classroom (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    school text COLLATE "C",
    name text COLLATE "C" not null,
    zone text COLLATE "C",
    created_at timestamp with time zone not null,
    primary key (tenant, classroom)
);
create index classroom_by_school on classroom (tenant, school);

create table classroom_policy (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    version integer not null,
    model text COLLATE "C" not null,
    recent_percent integer not null,
    success_threshold integer not null,
    mastery_threshold integer not null,
    min_evidence integer not null,
    inactivity_days integer not null,
    extra_credit boolean default false not null,
    created_at timestamp with time zone not null,
    created_by text COLLATE "C" not null,
    primary key (tenant, classroom, version)
);

create table classroom_state (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    change_no bigint default 0 not null,
    risk_no bigint default 0 not null,
    completion_rate integer,
    average_score integer,
    submission_rate integer,
    active_students integer default 0 not null,
    policy_version integer default 1 not null,
    assessed_at timestamp with time zone,
    reassess_at timestamp with time zone,
    primary key (tenant, classroom)
);
create index classroom_state_by_reassess on classroom_state (tenant, reassess_at);

create table concept (
    tenant bigint not null,
    concept text COLLATE "C" not null,
    subject text COLLATE "C" not null,
    name text COLLATE "C" not null,
    kind text COLLATE "C" default 'CONCEPT' not null,
    is_active boolean default true not null,
    primary key (tenant, concept)
);
create index concept_by_subject on concept (tenant, subject);

create table concept_prerequisite (
    tenant bigint not null,
    concept text COLLATE "C" not null,
    prerequisite text COLLATE "C" not null,
    primary key (tenant, concept, prerequisite)
);

create table conflict (
    tenant bigint not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    sent_hash bytea not null,
    stored_hash bytea not null,
    seq bigint not null,
    times integer default 1 not null,
    first_at timestamp with time zone not null,
    last_at timestamp with time zone not null,
    primary key (tenant, source, event_id, sent_hash)
);

create table correction (
    tenant bigint not null,
    target_source text COLLATE "C" not null,
    target_event_id text COLLATE "C" not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    kind text COLLATE "C" not null,
    seq bigint not null,
    reason text COLLATE "C" not null,
    at timestamp with time zone not null,
    primary key (tenant, target_source, target_event_id, source, event_id)
);

create table dead_letter (
    tenant bigint not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    seq bigint not null,
    student text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    error text COLLATE "C" not null,
    at timestamp with time zone not null,
    primary key (tenant, source, event_id)
);

create table enrollment (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    person text COLLATE "C" not null,
    role text COLLATE "C" not null,
    started date not null,
    ended date,
    primary key (tenant, classroom, person, role, started)
);
create index enrollment_by_person on enrollment (tenant, person, role);

create table event (
    tenant bigint not null,
    seq bigint not null,
    received_at timestamp with time zone not null,
    id uuid not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    kind text COLLATE "C" not null,
    source_type text COLLATE "C",
    occurred_at timestamp with time zone not null,
    revision integer not null,
    student text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    assignment text COLLATE "C",
    quiz text COLLATE "C",
    concepts text[] COLLATE "C" default '{}' not null,
    ratio integer,
    submission text COLLATE "C",
    due_at timestamp with time zone,
    time_spent_ms integer,
    target_source text COLLATE "C",
    target_event_id text COLLATE "C",
    is_late boolean default false not null,
    payload json not null,
    recorded_by text COLLATE "C" not null,
    primary key (tenant, seq, received_at)
)
 partition by range (received_at);
create index event_by_classroom on event (tenant, classroom, seq);
create index event_by_classroom_time on event (tenant, classroom, occurred_at, seq);
create index event_by_student on event (tenant, student, occurred_at, seq);
create index event_by_submission on event (tenant, student, source, submission) where submission is not null;

create table event_key (
    tenant bigint not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    id uuid not null,
    seq bigint not null,
    fingerprint bytea not null,
    received_at timestamp with time zone not null,
    primary key (tenant, source, event_id)
);

create table guardian_link (
    tenant bigint not null,
    guardian text COLLATE "C" not null,
    student text COLLATE "C" not null,
    consent_at timestamp with time zone not null,
    revoked_at timestamp with time zone,
    primary key (tenant, guardian, student)
);
create index guardian_link_by_student on guardian_link (tenant, student);

create table outbox (
    tenant bigint not null,
    shard smallint not null,
    lane smallint not null,
    occurred_at timestamp with time zone not null,
    seq bigint not null,
    kind text COLLATE "C" not null,
    student text COLLATE "C" default '' not null,
    classroom text COLLATE "C" default '' not null,
    received_at timestamp with time zone not null,
    traceparent text COLLATE "C",
    primary key (tenant, shard, lane, occurred_at, seq)
);
create index outbox_by_seq on outbox (tenant, seq);

create table person (
    tenant bigint not null,
    person text COLLATE "C" not null,
    display_name text COLLATE "C" not null,
    primary key (tenant, person)
);

create table risk_change (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    no bigint not null,
    student text COLLATE "C" not null,
    reason text COLLATE "C" not null,
    change text COLLATE "C" not null,
    severity smallint,
    earlier smallint,
    overall smallint,
    notify boolean default false not null,
    evidence json default '{}' not null,
    clears_when text COLLATE "C" default '' not null,
    at timestamp with time zone not null,
    traceparent text COLLATE "C",
    primary key (tenant, classroom, no)
);

create table risk_flag (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    student text COLLATE "C" not null,
    reason text COLLATE "C" not null,
    severity smallint,
    overall smallint,
    raised_at timestamp with time zone,
    cleared_at timestamp with time zone,
    cleared_severity smallint,
    notified_at timestamp with time zone,
    notified_severity smallint,
    is_armed boolean default true not null,
    evidence json default '{}' not null,
    clears_when text COLLATE "C" default '' not null,
    primary key (tenant, classroom, student, reason)
);
create index risk_flag_by_student on risk_flag (tenant, student);

create table school (
    tenant bigint not null,
    school text COLLATE "C" not null,
    name text COLLATE "C" not null,
    zone text COLLATE "C",
    primary key (tenant, school)
);

create table standing (
    tenant bigint not null,
    student text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    concept text COLLATE "C" not null,
    count integer not null,
    earlier_sum bigint not null,
    newest integer,
    successes integer not null,
    quiz_attempts integer not null,
    score integer,
    last_evidence_at timestamp with time zone,
    mastered_at timestamp with time zone,
    rank smallint not null,
    claimed_at timestamp with time zone,
    best integer,
    latest integer,
    time_spent_ms bigint not null,
    last_accessed_at timestamp with time zone,
    policy_version integer not null,
    class_change bigint not null,
    student_change bigint not null,
    primary key (tenant, student, classroom, concept)
);
create index standing_by_class_change on standing (tenant, classroom, class_change, student, concept);
create index standing_by_student_change on standing (tenant, student, student_change, classroom, concept);

create table student (
    tenant bigint not null,
    student text COLLATE "C" not null,
    zone text COLLATE "C",
    created_at timestamp with time zone not null,
    primary key (tenant, student)
);

create table student_state (
    tenant bigint not null,
    student text COLLATE "C" not null,
    change_no bigint default 0 not null,
    primary key (tenant, student)
);

create table subject (
    tenant bigint not null,
    subject text COLLATE "C" not null,
    name text COLLATE "C" not null,
    primary key (tenant, subject)
);

create table tenant (
    tenant bigint not null,
    name text COLLATE "C" not null,
    zone text COLLATE "C" default 'UTC' not null,
    epoch integer default 1 not null,
    settings jsonb default '{}' not null,
    created_at timestamp with time zone not null,
    primary key (tenant)
);

create table tenant_head (
    tenant bigint not null,
    seq bigint default 0 not null,
    primary key (tenant)
);

create table unrostered (
    tenant bigint not null,
    seq bigint not null,
    source text COLLATE "C" not null,
    event_id text COLLATE "C" not null,
    student text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    received_at timestamp with time zone not null,
    primary key (tenant, seq)
);
create index unrostered_by_classroom on unrostered (tenant, classroom);
create index unrostered_by_student on unrostered (tenant, student);

create table view_state (
    tenant bigint not null,
    classroom text COLLATE "C" not null,
    student text COLLATE "C" not null,
    last_occurred_at timestamp with time zone,
    last_revision integer,
    last_source text COLLATE "C",
    last_event_id text COLLATE "C",
    assigned integer default 0 not null,
    graded integer default 0 not null,
    submitted integer default 0 not null,
    score_sum bigint default 0 not null,
    score_count integer default 0 not null,
    last_active_at timestamp with time zone,
    open_items json default '[]' not null,
    recent json default '[]' not null,
    primary key (tenant, classroom, student)
);
create index view_state_by_student on view_state (tenant, student);

create table work (
    tenant bigint not null,
    student text COLLATE "C" not null,
    classroom text COLLATE "C" not null,
    item text COLLATE "C" not null,
    is_assigned boolean default false not null,
    is_excused boolean default false not null,
    due_at timestamp with time zone,
    assigned_source text COLLATE "C",
    assigned_event_id text COLLATE "C",
    submitted_at timestamp with time zone,
    counted integer,
    counted_occurred_at timestamp with time zone,
    counted_revision integer,
    counted_source text COLLATE "C",
    counted_event_id text COLLATE "C",
    primary key (tenant, student, classroom, item)
);

-- Months of the log, made ahead (000-22): one level, no default partition, so that detaching never blocks intake.
create function make_event_partitions(first_day date, months integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    made integer := 0;
    month date;
    part text;
begin
    for i in 0 .. months - 1 loop
        month := (date_trunc('month', first_day::timestamp) + make_interval(months => i))::date;
        part := 'event_' || to_char(month, 'YYYY_MM');
        if to_regclass(part) is null then
            execute format(
                'create table if not exists %I partition of event for values from (%L) to (%L)',
                part, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
            made := made + 1;
        end if;
    end loop;
    return made;
end $$;

-- What the sweep reads across tenants: only where work waits, never what it is.
create function waiting_shards() returns table (tenant bigint, shard smallint)
language sql stable security definer set search_path = public, pg_temp as $$
    with recursive step as (
        (select o.tenant, o.shard from outbox o order by o.tenant, o.shard limit 1)
        union all
        select n.tenant, n.shard
        from step s
        cross join lateral (
            select o.tenant, o.shard from outbox o
            where (o.tenant, o.shard) > (s.tenant, s.shard)
            order by o.tenant, o.shard limit 1
        ) n
    )
    select s.tenant, s.shard from step s
$$;

create function due_classrooms(moment timestamptz, at_most integer) returns table (tenant bigint, classroom text)
language sql stable security definer set search_path = public, pg_temp as $$
    select t.tenant, c.classroom
    from tenant t
    cross join lateral (
        select s.classroom from classroom_state s
        where s.tenant = t.tenant and s.reassess_at <= moment
        order by s.reassess_at limit at_most
    ) c
    limit at_most
$$;

-- The processes' role: it may add to the log, never change it (000-06).
do $$
begin
    if not exists (select from pg_roles where rolname = 'sightline_app') then
        create role sightline_app nologin;
    end if;
exception when duplicate_object or unique_violation then
    null;  -- another database of the same cluster made it at the same moment
end $$;
grant sightline_app to current_user;
grant usage on schema public to sightline_app;
grant execute on function make_event_partitions, waiting_shards, due_classrooms to sightline_app;
