"""What travels from one version of a module to the next: exported, copied, changed, imported.

Rules kept here: only data that keeps the declared schema travels, before and after `code_change`; `code_change` works
on a copy and changes nothing by itself, so whatever it raises, and however late it is, the old state is intact; both
ways are looked at before anything is suspended. Left out: suspending (`module_cell`).
"""

from instar_handover import module_cell, module_source, module_versions

REHEARSALS = 3  # after which the pause of a small state is a quarter shorter, and more change nothing


def check_ways(old: module_source.Loaded | None, new: module_source.Loaded) -> None:
    """Check that state can go to the new version, and back where it is not declared to be one-way.

    Raises:
        module_source.ModuleFaultError: state_unknown or no_way_back.
    """
    if old is None:
        return
    was, will_be = old.release.version, new.release.version
    if not new.knows(old):
        message = f"cannot go from {was} to {will_be}: STATE_FROM of {will_be}, {new.known!r}, leaves {was} out"
        raise module_source.ModuleFaultError("state_unknown", message)
    if not (new.is_one_way or old.knows(new)):
        message = f"cannot go to {will_be}: STATE_FROM of {was}, {old.known!r}, has no way back, and ONE_WAY is not set"
        raise module_source.ModuleFaultError("no_way_back", message)


class Carrier:
    """Carries the state from one version to another; everything that can be known before the pause is known.

    Args:
        old: None where nothing serves.
        new: None where nothing shall serve.
    """

    def __init__(self, old: module_source.Loaded | None, new: module_source.Loaded | None) -> None:
        self._copy: object = None
        self._has_state = False
        if old is None or new is None or old.schema is None or new.schema is None:
            return
        self._has_state = True
        self._was, self._will_be = old.release.version, new.release.version
        self._copied, self._check = old.schema.copied, new.schema.check
        self._examples = [old.schema.example()], [new.schema.example()]
        self._export = old.function("export_state")
        self._import = new.function("import_state")
        is_changing = new.known and module_versions.holds(new.known, self._was)
        self._change = new.function("code_change") if is_changing else None

    def rehearse(self) -> None:
        """Do what the pause does, with little; what a processor has just run it runs again in half the time."""
        if not self._has_state:
            return
        for _ in range(REHEARSALS):
            old, new = self._examples
            self._copied(old)
            self._check(new)

    def carry(self, attempt: module_cell.Attempt) -> None:
        """Carry the state over; versions without a schema have none.

        Raises:
            module_source.ModuleFaultError: export_failed, code_change_failed or import_failed, or too late.
        """
        if not self._has_state:
            return
        try:
            attempt.begin("export", self._was)
            [state] = self._copy = self._copied([self._export()])  # kept: freeing it takes time
            if self._change is not None:
                attempt.begin("code_change", self._will_be)
                state = self._change(state, self._was)
                self._check([state])
            attempt.begin("import", self._will_be)
            self._import(state)
        except module_source.ModuleFaultError:
            raise
        except Exception as error:
            message = f"cannot carry the state over in {attempt.doing}: {type(error).__name__}: {error}"
            raise module_source.ModuleFaultError(f"{attempt.part}_failed", message) from error


class Nothing:
    """Leaves each version the state that it has."""

    def rehearse(self) -> None:
        """There is nothing to do."""

    def carry(self, attempt: module_cell.Attempt) -> None:
        """There is nothing to carry over."""
