-- Regrades, excuses and reopenings beside voids: what a correction speaks of, other than one event by its id.

alter table correction
    add column target_submission text COLLATE "C",  -- of a regrade: a submission of target_source
    add column student text COLLATE "C" default '' not null,  -- whose item; of a regrade by submission: '' is any
    add column classroom text COLLATE "C" default '' not null,  -- '' is wherever the item is
    add column assignment text COLLATE "C";  -- of an excuse or a reopening
create index correction_by_student on correction (tenant, student, assignment) where assignment is not null;
create index correction_by_submission on correction (tenant, target_source, target_submission)
    where target_submission is not null;

-- The source leads: a regrade names a submission and no student. It serves every look that the old one served.
create index event_by_source_submission on event (tenant, source, submission, student) where submission is not null;
drop index event_by_submission;
