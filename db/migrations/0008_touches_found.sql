-- A fold asks of each of its classes whether a touch of it waits. Events, nearly all of what waits, are not in the index.
create index outbox_touches on outbox (tenant, classroom) where kind <> 'EVENT';
