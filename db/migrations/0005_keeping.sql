-- Releases side by side: which code still works with this schema, and which fold a tenant's numbers need.

alter table alembic_version add column oldest_code text;  -- the oldest revision whose code works with this schema
alter table tenant add column fold_level integer default 1 not null;
