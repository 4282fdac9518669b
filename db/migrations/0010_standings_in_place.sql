-- A standing stays on its page when its class moves, too: its index by class names no number that each change moves.
-- Each statement commits by itself, so that none holds a lock while the next waits for one, and may be run again.

-- Whoever reads or records goes on while it is built, folds wait.
create index if not exists standing_by_classroom on standing (tenant, classroom, student, concept);

-- The newest change of the class that moved a standing of the view.
alter table view_state add column if not exists class_change bigint not null default 0;

-- From which change on, and up to which, all views have that. Older workers count change_no up alone.
alter table classroom_state add column if not exists stamped_from bigint not null default 0,
    add column if not exists stamped_to bigint not null default 0;

drop index if exists standing_by_class_change;
