-- What an operator's metrics read across tenants: numbers and moments, never a key of anybody.

-- Rows that wait: counted up to a bound, beyond it the running estimate of the statistics (which costs nothing).
create function queue_depth(counted_max integer) returns bigint
language sql volatile security definer set search_path = public, pg_temp as $$
    select case when c.counted < counted_max then c.counted
        else greatest(c.counted, pg_stat_get_live_tuples('outbox'::regclass)) end
    from (select count(*) as counted from (select from outbox limit counted_max) o) c
$$;

-- When the row that has waited longest was stored: positions are given in the order of storing, so the lowest of each
-- tenant is its oldest, found by one step in the index per tenant.
-- Analyzed while near-empty, the planner would sort the whole backlog instead: that way is closed.
create function oldest_waiting() returns timestamptz
language sql volatile security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
    with recursive step as (
        (select o.tenant, o.received_at from outbox o order by o.tenant, o.seq limit 1)
        union all
        select n.tenant, n.received_at
        from step s
        cross join lateral (
            select o.tenant, o.received_at from outbox o where o.tenant > s.tenant order by o.tenant, o.seq limit 1
        ) n
    )
    select min(s.received_at) from step s
$$;

-- Whole months after the one of `today` whose partition of the log is there, without a gap.
create function partitions_ahead(today date) returns integer
language plpgsql stable security definer set search_path = public, pg_temp as $$
declare
    months integer := 0;
begin
    while to_regclass('event_' || to_char(today + make_interval(months => months + 1), 'YYYY_MM')) is not null loop
        months := months + 1;
    end loop;
    return months;
end $$;

revoke execute on function queue_depth, oldest_waiting, partitions_ahead from public;
grant execute on function queue_depth, oldest_waiting, partitions_ahead to sightline_app;
