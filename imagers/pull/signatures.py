"""Find the signatures that a policy asks about, in every place that may have them.

    places = Places(reference=image.reference, repository=source, beside=RegistrySignatures(source))
    pull_image(source, bundle, signatures=signature_finder(places, trust), ...)

Whoever asks a policy finds signatures this way, so that all get the same answer: to a command,
a guest and a library "is not signed" means that everything was looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.sign.find import Finder
from imagers.sign.found import Form

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.digest import Digest
    from imagers.sign.find import Places
    from imagers.sign.found import Found
    from imagers.sign.materials import Trust

__all__ = ["signature_finder"]


def signature_finder(
    places: Places, trust: Trust | None, *, everything: bool = False
) -> Callable[[Digest], Found]:
    """What finds the signatures of a manifest or an index, with what gpg says about them.

    A place that cannot be asked is in the answer as a failure, and no error. gpg runs only where
    simple signatures were found and the policy has keys for them.

    Args:
        trust: of which the forms that it demands are looked for.
        everything: look for all forms, for an explanation.
    """
    from imagers.sign.formats.gpg import read_simple_signatures  # not every guest has gpg

    finder = Finder(places)
    forms = frozenset(Form)
    if trust is not None and not everything:
        forms = trust.forms() | trust.forms(on_index=True)

    def find(digest: Digest) -> Found:
        found = finder.find(digest, forms)
        return found if trust is None else read_simple_signatures(trust, found)

    return find
