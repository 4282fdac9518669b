-- What a job is to change of a policy: the parts that were sent, or the dry run that is applied.

alter table job add column change jsonb;

-- Months of the log are attached, not created in place: that would wait for whoever reads the log, a backup for hours,
-- and everybody who records would wait behind it. One process makes them at a time; the others find them made.
create or replace function make_event_partitions(first_day date, months integer) returns integer
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '500ms' as $$
declare
    made integer := 0;
    month date;
    part text;
begin
    perform pg_advisory_xact_lock(hashtextextended('make_event_partitions', 0));
    for i in 0 .. months - 1 loop
        month := (date_trunc('month', first_day::timestamp) + make_interval(months => i))::date;
        part := 'event_' || to_char(month, 'YYYY_MM');
        if to_regclass(part) is null then
            execute format('create table %I (like event including all)', part);
            execute format(
                'alter table event attach partition %I for values from (%L) to (%L)',
                part, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
            made := made + 1;
        end if;
    end loop;
    return made;
end $$;
