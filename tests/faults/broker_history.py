# SPDX-License-Identifier: Apache-2.0
"""What has happened at brokers, by the rows of their audit log, and whether it should have.

The rows are followed one by one, in their order. A release has to be right by the rows before it:

1. the policy that was put in force last allows it;
2. the image that its guest named is not revoked, not older than the floor, and approved as often as
   the policy demands; where that is none of the secret's, each of the secret's is such a one;
3. a version of a secret is released as often as it may be, and no more, whatever is deleted,
   replaced and had again between.

What the store then has is what the rows say.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

APPROVED = "images"  # the repository whose images a policy may want to be approved
_POLICY = re.compile(rf"rules: {APPROVED}-((allow|deny)-\d+-([01])), .*")


@dataclass
class Secret:
    """A version of one."""

    version: int
    most: int
    bound: set = field(default_factory=set)
    uses: int = 0


@dataclass
class Image:
    """What a repository knows of one."""

    number: int
    is_revoked: bool = False
    successor: str | None = None
    approved_by: set = field(default_factory=set)


def repository_of(path):
    return path.partition("/")[0]


class History:
    """The state that rows lead to; AssertionError at the first release that was not right.

    Attributes:
        secrets: by path, those that are served.
        former: by path and version, those that are not.
        images: by repository and digest.
    """

    def __init__(self, rows):
        self.policy = ""
        self.secrets = {}
        self.former = {}
        self.images = {}
        self.floors = Counter()
        self._versions = Counter()
        for number, row in enumerate(rows):
            if row["outcome"] != "ok":
                continue
            told = getattr(self, f"_{row['event']}", None)
            try:
                if told is not None:
                    told(row["path"], row["image"], row)
            except AssertionError as error:
                raise AssertionError(f"row {number}, {row['event']}: {error}: {row}") from None

    def _policy(self, _path, _image, row):
        self.policy = _POLICY.fullmatch(row["detail"])[1]

    def _put(self, path, _image, row):
        self._versions[path] += 1
        uses = re.search(r"uses (\d+)", row["detail"])
        self.secrets[path] = Secret(self._versions[path], int(uses[1]) if uses else 0)

    def _replace(self, path, image, row):
        self._retire(path)
        self._put(path, image, row)

    def _retire(self, path):
        if path in self.secrets:
            old = self.secrets.pop(path)
            self.former.setdefault(path, {})[old.version] = old

    def _delete(self, path, _image, row):
        self._retire(path)
        if row["detail"] == "permanently":
            self.former.pop(path, None)

    def _undelete(self, path, _image, row):
        self._retire(path)
        self.secrets[path] = self.former[path].pop(int(row["detail"].removeprefix("version ")))

    def _bind(self, path, image, _row):
        self.secrets[path].bound.add(image)
        known = self.images.setdefault(repository_of(path), {})
        known.setdefault(image, Image(len(known) + 1))

    def _of(self, row):
        """The repository of a row about an image, and what it says of it."""
        return re.fullmatch(r"repository (\S+): (.*)", row["detail"]).groups()

    def _approve(self, _path, image, row):
        repository, _ = self._of(row)
        self.images[repository][image].approved_by.add(row["admin"])

    def _revoke(self, _path, image, row):
        repository, _ = self._of(row)
        self.images[repository][image].is_revoked = True

    def _supersede(self, _path, image, row):
        repository, told = self._of(row)
        self.images[repository][image].successor = told.removeprefix("by ")

    def _floor(self, _path, image, row):
        repository, _ = self._of(row)
        self.floors[repository] = self.images[repository][image].number if image else 0

    def _release(self, path, image, row):
        secret = self.secrets.get(path)
        assert secret is not None, "it was deleted"
        of, floor = repository_of(path), self.floors[repository_of(path)]
        effect, _, approvals = self.policy.split("-")
        rule = f"{APPROVED}-{self.policy}" if of == APPROVED else self.policy
        assert (effect, row["rule"]) == ("allow", rule), f"{rule} was in force"
        known = self.images.get(of, {})
        if of == APPROVED and approvals == "1":
            assert image in secret.bound, "the image is none of the secret's"
            assert known[image].approved_by, "the image was not approved"
        if image in secret.bound:
            judged = {image}
        else:
            judged = secret.bound | ({image} if image in known or (image and floor) else set())
        for one in judged:
            assert one in known, f"{one} is not known, and there is a floor"
            assert not known[one].is_revoked, f"{one} was revoked"
            assert known[one].number >= floor, f"{one} is older than the floor"
        if secret.most:
            secret.uses += 1
            assert secret.uses <= secret.most, f"released {secret.uses} of {secret.most} times"

    def check_secret(self, path, told):
        """What an admin is told of a path; None: that there is none."""
        secret = self.secrets.get(path)
        if secret is None:
            assert told is None, f"{path} is there, and was deleted"
            return
        assert told is not None, f"{path} is gone"
        found = told["version"], told["uses"], told["max_uses"] or 0, set(told["manifest_digests"])
        wanted = secret.version, secret.uses, secret.most, secret.bound
        assert found == wanted, f"{path} is {found}, by the rows {wanted}"
        for one in told["former"]:
            old = self.former[path][one["version"]]
            assert (one["uses"], set(one["manifest_digests"])) == (old.uses, old.bound), (path, one)

    def check_images(self, repository, told):
        """What an admin is told of a repository's images."""
        known = self.images.get(repository, {})
        found = {
            one["manifest_digest"]: Image(
                number,
                one["state"] == "revoked",
                one["successor"],
                {f"{by['admin']}" for by in one["approvals"]},
            )
            for number, one in enumerate(told["images"], 1)
        }
        assert found.keys() == known.keys(), f"images {found.keys()}, by the rows {known.keys()}"
        for digest, image in found.items():
            wanted = known[digest]
            wanted.approved_by = {name.partition(" ")[0] for name in wanted.approved_by}
            assert image == wanted, f"{digest} is {image}, by the rows {wanted}"
        floor = known[told["floor"]].number if told["floor"] else 0
        assert floor == self.floors[repository], f"the floor is {floor}"
