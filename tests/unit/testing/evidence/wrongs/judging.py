# SPDX-License-Identifier: Apache-2.0
"""How evidence of a world is judged: by the verifier of the house, at the world's time."""

from imagers.errors import ImagersError
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.testing.evidence.wrongs.wrong import BOUND, REPORT_DATA


def judge(world, *, binds_init_data=True, **fields):
    """Evidence that is good, or was signed with these fields."""
    bound = BOUND if binds_init_data else Bound(REPORT_DATA)
    body = world.evidence(report_data=REPORT_DATA, init_data=bound.init_data or b"", **fields)
    verifier = load_verifier(world.tee, roots=world.roots)
    read = world.collateral().get
    return judge_evidence(verifier, body, bound=bound, read=read, now=world.now)


def refuses(world, wrong):
    """What went otherwise than it has to; "" if it is refused where it has to be."""
    verifier = load_verifier(world.tee, roots=wrong.roots)
    read = wrong.collateral.get
    try:
        judge_evidence(verifier, wrong.body, bound=wrong.bound, read=read, now=world.now)
    except ImagersError as error:
        found = (type(error), getattr(error, "step", ""), str(error))
        if found[0] is wrong.error and (not wrong.step or found[1] == wrong.step):
            return ""
        return f"{wrong.name}: expected {wrong.error.__name__} at {wrong.step!r}, got {found}"
    return f"{wrong.name}: it was taken"
