"""What the keeper refuses, said once for all its rooms."""


class RequestError(Exception):
    """A request that cannot be done; the code is for programs, the message for people.

    Codes: invalid_request, unknown_verb, unknown_instance, unknown_socket, socket_in_use, listen_failed,
    release_outside, command_outside, digest_mismatch, start_failed, instance_conflict, too_many, instance_gone,
    instance_timeout, instance_refused, mark_unknown, mark_conflict, write_failed, verify_failed, stage_failed,
    run_failed, environment_outside, secret_missing, user_unknown.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
