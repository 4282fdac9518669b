"""Everything that outlives a process: Postgres tables and statements, Redis wake and live."""
