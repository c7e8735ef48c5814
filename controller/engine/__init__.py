"""The engine: step purely, commit in one transaction, publish, then act.

`engine.Engine` is what the edges call; its rooms are `agents`, `rollouts`, `approvals`, `triggers`, `fleet`,
`catalogue` and `audits`; `acts` says what acts are called. Behind them, `desk` is the one place where the world
changes, `stepping` feeds an event to a rollout, `reporting` takes a node's word, `standing` tells rollouts what
speaks against nodes, `following` drafts what follows by rule, `planning` makes plans, `queueing` begins what waits,
`judges` has canary waves judged by what `sources` tell, `courses` shows it, `outcomes` counts and learns; `heeding`
says what a node's word means for triggers and `occasions` what others bring about, `firing` feeds them, `triggering`
lets time pass for them and has `actions` done; `tracing` says which spans are owed, `world` is what is known and
stored, `presence` what only lives as long as a session, `watching` wakes who waits, `pressure` measures how late
everything is, `forgetting` lets go of what is old. Left out: what a rollout decides (`controller.core`), how rows are
written (`controller.store`), and the wire (`controller.rpc`).
"""

from controller.engine.commands import AssignCommand, CancelCommand, Command, ProceedCommand, SessionGrant
from controller.engine.engine import Engine
from controller.engine.office import Asked
from controller.engine.pressure import Pressure

__all__ = ["Asked", "AssignCommand", "CancelCommand", "Command", "Engine", "Pressure", "ProceedCommand", "SessionGrant"]
