"""What keeps the audit log as it is, in the database itself: nothing goes, nothing changes, what comes goes on.

Rules kept: the same on both databases, so that also who writes to it beside the controller leaves a log that can be
verified. An upsert would take a row's place without asking; so what is there already is refused too. Left out: what a
chain is (`controller.core.audit`).
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from controller.store import tables

AUDIT_GUARDS: Mapping[str, str] = {
    "audit_is_kept": "BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted'); END",
    "audit_stays": "BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END",
    "audit_goes_on": """BEFORE INSERT ON audit
        WHEN NEW.epoch < (SELECT max(number) FROM audit_epochs)
        OR EXISTS (SELECT 1 FROM audit WHERE epoch = NEW.epoch AND position = NEW.position)
        OR NEW.previous_hash IS NOT (
            SELECT hash FROM audit WHERE epoch = NEW.epoch AND position = NEW.position - 1
            UNION ALL SELECT hash FROM audit_epochs WHERE number = NEW.epoch AND NEW.position = 1
        )
        BEGIN SELECT RAISE(ABORT, 'an audit row continues the chain of the latest epoch'); END""",
    "audit_epochs_are_kept": """BEFORE DELETE ON audit_epochs
        BEGIN SELECT RAISE(ABORT, 'audit epochs are never deleted'); END""",
    "audit_epochs_stay": """BEFORE UPDATE ON audit_epochs
        BEGIN SELECT RAISE(ABORT, 'audit epochs are never changed'); END""",
    "audit_epochs_go_on": """BEFORE INSERT ON audit_epochs
        WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit_epochs)
        BEGIN SELECT RAISE(ABORT, 'an audit epoch follows the latest one'); END""",
}
# What PostgreSQL's triggers do; each is told by its argument, or by itself, what to say.
POSTGRESQL_FUNCTIONS: Mapping[str, str] = {
    "audit_refuse": """BEGIN
        RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
    END""",
    "audit_continue": """BEGIN
        IF NEW.epoch < (SELECT max(number) FROM audit_epochs)
        OR EXISTS (SELECT 1 FROM audit WHERE epoch = NEW.epoch AND position = NEW.position)
        OR NEW.previous_hash IS DISTINCT FROM (
            SELECT hash FROM audit WHERE epoch = NEW.epoch AND position = NEW.position - 1
            UNION ALL SELECT hash FROM audit_epochs WHERE number = NEW.epoch AND NEW.position = 1
        ) THEN
            RAISE EXCEPTION 'an audit row continues the chain of the latest epoch'
            USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END""",
    "audit_epoch_follow": """BEGIN
        IF NEW.number IS DISTINCT FROM (SELECT coalesce(max(number), 0) + 1 FROM audit_epochs) THEN
            RAISE EXCEPTION 'an audit epoch follows the latest one'
            USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END""",
}
POSTGRESQL_GUARDS: Mapping[str, str] = {
    "audit_is_kept": "BEFORE DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuse('audit rows are never deleted')",
    "audit_stays": "BEFORE UPDATE ON audit EXECUTE FUNCTION audit_refuse('audit rows are never changed')",
    "audit_goes_on": "BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_continue()",
    "audit_epochs_are_kept": """BEFORE DELETE OR TRUNCATE ON audit_epochs
        EXECUTE FUNCTION audit_refuse('audit epochs are never deleted')""",
    "audit_epochs_stay": """BEFORE UPDATE ON audit_epochs
        EXECUTE FUNCTION audit_refuse('audit epochs are never changed')""",
    "audit_epochs_go_on": "BEFORE INSERT ON audit_epochs FOR EACH ROW EXECUTE FUNCTION audit_epoch_follow()",
}


def statements(dialect: str) -> list[str]:
    """The statements that put the guards up, on tables that are there."""
    if dialect == "sqlite":
        return [f"CREATE TRIGGER {name} {rule}" for name, rule in AUDIT_GUARDS.items()]
    functions = [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
        for name, body in POSTGRESQL_FUNCTIONS.items()
    ]
    return [*functions, *(f"CREATE TRIGGER {name} {rule}" for name, rule in POSTGRESQL_GUARDS.items())]


def make(connection: sa.Connection) -> None:
    """Make all tables at once, with their guards: for a store in memory."""
    tables.metadata.create_all(connection)
    for statement in statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
