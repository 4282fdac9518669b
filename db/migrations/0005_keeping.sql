-- Releases side by side: which code still works with this schema, and which fold a tenant's numbers need.

alter table alembic_version add column oldest_code text;  -- the oldest revision whose code works with this schema
alter table tenant add column fold_level integer default 1 not null;

-- The mastery index of each student at the end of each day of the tenant, and when a student's days are closed next.
create table daily_index (
    tenant bigint not null,
    student text COLLATE "C" not null,
    day date not null,
    score integer not null,
    coverage integer not null,
    completion integer,
    quiz integer,
    quality integer,
    consistency integer,
    primary key (tenant, student, day)
);
alter table student_state
    add column closed_until timestamp with time zone,
    add column close_at timestamp with time zone default now() + interval '1 minute' not null;
create index student_state_by_close on student_state (tenant, close_at);

-- What a worker reads across tenants: whose days are to be closed, the longest due first.
create function due_students(moment timestamptz, at_most integer) returns table (tenant bigint, student text)
language sql stable security definer set search_path = public, pg_temp as $$
    select t.tenant, d.student
    from tenant t
    cross join lateral (
        select s.student, s.close_at from student_state s
        where s.tenant = t.tenant and s.close_at <= moment
        order by s.close_at limit at_most
    ) d
    order by d.close_at
    limit at_most
$$;
revoke execute on function due_students from public;
grant execute on function due_students to sightline_app;

-- What a worker reads across tenants: the next tenants by number, so that what is kept for a time only is forgotten.
create function tenants_after(last bigint, at_most integer) returns table (tenant bigint)
language sql stable security definer set search_path = public, pg_temp as $$
    select t.tenant from tenant t where t.tenant > last order by t.tenant limit at_most
$$;
revoke execute on function tenants_after from public;
grant execute on function tenants_after to sightline_app;
