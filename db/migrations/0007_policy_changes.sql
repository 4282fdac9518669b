-- What a job is to change of a policy: the parts that were sent, or the dry run that is applied.

alter table job add column change jsonb;
