"""The store: state rows, the journal of events, audit, and the outbox, in one SQL database.

Rules kept: what is acknowledged is durable; a transaction writes only what a step changed; each write is checked
against the rollout's revision and the lease's epoch; one writer. `tables` says what is stored, `codec` how values
become JSON, `database` opens and migrates, `executor` says where transactions run, `writing` and `reading` are the
statements. Left out: what the values mean, which is the core's, and when they change, which is the engine's.
"""
