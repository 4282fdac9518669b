-- What a fold needs of an event rides in its outbox row. Null in rows of older code, and of all that is no new event.
alter table outbox add column packed bytea;
