"""What to do next about a letter, by the code of its error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.ports import LetterState

if TYPE_CHECKING:
    from linkspan.ports import Letter

__all__ = ["advice"]

_BY_CODE = {
    "unavailable": "Something that the handler needs did not answer. See whether it answers now, then redrive the whole group.",
    "deadline_exceeded": "It took too long. See what was slow; give it more time with Limits(timeout=...), or redrive when it is fast.",
    "resource_exhausted": "Something had no room: a quota, a disk, a pool. Make room, then redrive slowly with --rate.",
    "aborted": "It lost a race again and again. Look for what writes the same rows, then redrive.",
    "canceled": "It was cancelled. Redrive it; when it comes back, look for what cancels it.",
    "unknown": "The handler raised something unexpected: the place is below, the text in the service's log. Mend the code, try it with "
    "`dead dry-run`, deploy, then redrive the group.",
    "internal": "The code or its SQL is wrong: the place is below. Mend it, try it with `dead dry-run`, deploy, then redrive the group.",
    "unimplemented": "Nobody here handles this type. Deploy the service that has the handler, then redrive.",
    "invalid_argument": "The content cannot be read, or breaks a rule of the contract. Mend the sender; correct this one with `dead edit`, "
    "or discard it.",
    "not_found": "Something that the message names is not there. When it should be: create it, then redrive. When not: discard.",
    "already_exists": "It collides with what is there. When the effect is there already: discard. When not: find the collision first.",
    "failed_precondition": "The handler refused it as things stand. Bring things in order, then redrive; or correct it with `dead edit`.",
    "out_of_range": "A value lies outside of what is accepted. Correct it with `dead edit`, or widen the rule, deploy and redrive.",
    "permission_denied": "The service may not do it. Give it the right, then redrive.",
    "unauthenticated": "A credential of the service is missing or old. Renew it, then redrive the group.",
    "data_loss": "Something stored cannot be read any more. Restore it before you redrive.",
}
_KILLED = (
    "Its process ended while it was handled: memory, a native library, os._exit. Try it alone with `dead dry-run`; "
    "mend, deploy, then redrive."
)


def advice(letter: Letter) -> str:
    """Say what to do next."""
    if letter.state is LetterState.PARKED:
        return "It will be tried again by itself. Wait, or mend the cause now."
    if letter.state is LetterState.WAITING:
        return "It waits for an earlier message of its key: deal with that one."
    if letter.state is LetterState.REDRIVE:
        return "It is about to be tried again by the running service."
    if letter.error.startswith("Its process ended"):
        return _KILLED
    return _BY_CODE.get(letter.code, "Find the cause by the code and the place below, mend it, then redrive or discard.")
