# SPDX-License-Identifier: Apache-2.0
"""Those who use brokers that are killed: admins and guests. See `brokers`."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

from imagers.evidence.plugins import load_attester
from imagers.kbs.images import sign_approval
from imagers.kbs.jwe import open_answer
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey
from imagers.kbs.wire import OUR_PREFIX, PREFIX
from imagers.model.base64 import encode_base64
from imagers.model.digest import parse_digest
from tests.faults.broker_history import APPROVED

PATHS = tuple(f"default/fault/{number}" for number in range(3))
COUNTED = tuple(f"counted/fault/{number}" for number in range(2))
IMAGED = tuple(f"{APPROVED}/fault/{number}" for number in range(3))
OURS = f"{PREFIX}/imagers"
UNTIL = 4_000_000_000  # of each approval
ONCE = ("bind", "revoke")  # to do it again is no fault, and has no row
REFUSED = {  # what else an admin may be told
    "approve": (403, 404),
    "bind": (404,),
    "delete": (404,),
    "floor": (404,),
    "revoke": (404,),
    "supersede": (400, 403, 404),
    "undelete": (404,),
}


class _Admin:
    """Does one thing after the other.

    Attributes:
        steps: by what was changed, each change: its value, when it began and ended, and whether it
            is known to be done.
        done: how often he was told that it is done, by event, path and image.
        unknown: how often he was told nothing.
    """

    def __init__(self, world, seed):
        self._world, self._random = world, Random(seed)
        self.steps = {}
        self.done = Counter()
        self.unknown = Counter()

    def run(self):
        while not self._world.stopping.is_set():
            self.step()

    def _change(self, what, *request, event, path="", image="", by=None):
        """Whether it is known to be done; `what`: its name, and what it is then."""
        began = time.monotonic()
        answer = self._world.ask_as_admin(self._random, *request, key=by)
        status = None if answer is None else answer[0]
        if status is None:
            self.unknown[event, path, image] += 1
        elif status == 200:
            self.done[event, path, image] += 1
        else:
            assert status in REFUSED.get(event, ()), (request[:2], answer)
        # A secret that is not there is as gone as one that was deleted.
        if status in (None, 200) or (status, event) == (404, "delete"):
            name, value = what
            step = value, began, time.monotonic(), status is not None
            self.steps.setdefault(name, []).append(step)
        return status == 200

    def may_be(self, name, since=None, until=None):
        """The values that something may have had at a time."""
        steps = self.steps.get(name, [])
        last = -1
        for number, (_, _, ended, known) in enumerate(steps):
            if known and (since is None or ended <= since):
                last = number
        values = [None] if last < 0 else []
        return values + [
            value for value, began, _, _ in steps[max(last, 0) :] if until is None or began <= until
        ]


class Admin(_Admin):
    """Changes secrets and the policy.

    Attributes:
        most: by the value of a secret, how often it may be released.
    """

    def __init__(self, world, seed):
        super().__init__(world, seed)
        self.most = {}
        self._number = 0

    def begin(self):
        assert self.set_policy("allow")

    def step(self):
        chance = self._random.random()
        if chance < 0.15:
            self.set_policy("allow" if self._random.random() < 0.75 else "deny")
        elif chance < 0.6:
            path = self._random.choice(PATHS)
            self._delete(path) if self._random.random() < 0.2 else self._put(path)
        elif chance < 0.8:
            self._put(self._random.choice(COUNTED), self._random.randrange(1, 5))
        else:
            path = self._random.choice(COUNTED)
            if self._random.random() < 0.6:
                self._delete(path, "?permanently=true" if self._random.random() < 0.2 else "")
            self._change(
                (path, "again"), "POST", f"{OURS}/undelete/{path}", event="undelete", path=path
            )

    def set_policy(self, effect):
        self._number += 1
        wants = effect == "allow" and self._random.random() < 0.5
        name = f"{effect}-{self._number}-{wants:d}"
        rules = [
            {
                "name": f"{APPROVED}-{name}",
                "effect": effect,
                "resource": f"{APPROVED}/*/*",
                **({"image": "bound", "approvals": 1} if wants else {"image": "any"}),
            },
            {"name": "no-image", "effect": "deny", "resource": f"{APPROVED}/*/*", "image": "any"},
            {"name": name, "effect": effect, "resource": "*/*/*", "image": "any"},
        ]
        text = json.dumps({"rules": rules})
        return self._change(("policy", name), "POST", f"{OURS}/policy", text, event="policy")

    def _put(self, path, most=0):
        self._number += 1
        value = f"{path}#{self._number}"
        if most:
            self.most[value] = most
        url = f"{PREFIX}/resource/{path}" + (f"?max-uses={most}" if most else "")
        self._change((path, value), "PUT", url, value.encode(), event="put", path=path)

    def _delete(self, path, query=""):
        url = f"{PREFIX}/resource/{path}{query}"
        self._change((path, None), "DELETE", url, event="delete", path=path)


class ImageAdmin(_Admin):
    """Binds secrets to images, and says of images what may be done with them.

    Attributes:
        images: the digests of all that he ever named.
    """

    def __init__(self, world, seed):
        super().__init__(world, seed)
        self.images = []

    def begin(self):
        for path in IMAGED:
            self._put(path)

    def step(self):
        chance = self._random.random()
        if chance < 0.4 or len(self.images) < 3:
            self._bind()
        elif chance < 0.6:
            self._approve()
        elif chance < 0.7:
            self._tell("revoke", "revocation", {"reason": "a test"})
        elif chance < 0.8:
            successor = self._random.choice(self.images)
            self._tell("supersede", "successor", {"successor": successor})
        elif chance < 0.92:
            self._set_floor()
        else:
            self._put(self._random.choice(IMAGED))

    def _put(self, path):
        value = f"{path}#{self._random.randbytes(4).hex()}"
        url = f"{PREFIX}/resource/{path}"
        self._change((path, value), "PUT", url, value.encode(), event="put", path=path)

    def _bind(self):
        path = self._random.choice(IMAGED)
        if len(self.images) < 3 or self._random.random() < 0.5:
            self.images.append(f"sha256:{self._random.randbytes(32).hex()}")
            image = self.images[-1]
        else:
            image = self._random.choice(self.images)
        body = json.dumps({"manifest_digest": image})
        url = f"{OURS}/binding/{path}"
        self._change(("bind", image), "POST", url, body, event="bind", path=path, image=image)

    def _approve(self):
        image, other = self._random.choice(self.images), self._world.other_admin_key
        signature = sign_approval(
            other, repository=APPROVED, digest=parse_digest(image), until=UNTIL
        )
        told = {"until": UNTIL, "signature": encode_base64(signature)}
        self._tell("approve", "approval", told, image=image, by=other)

    def _set_floor(self):
        image = None if self._random.random() < 0.4 else self._random.choice(self.images)
        body = json.dumps({"manifest_digest": image})
        url = f"{OURS}/image/{APPROVED}/floor"
        self._change(("floor", image), "POST", url, body, event="floor", image=image or "")

    def _tell(self, event, place, told, *, image=None, by=None):
        image = image or self._random.choice(self.images)
        body = json.dumps({"manifest_digest": image, **told})
        url = f"{OURS}/image/{APPROVED}/{place}"
        self._change((f"{event} {image}", True), "POST", url, body, event=event, image=image, by=by)


class Guest:
    """Attests and asks, over and over.

    Attributes:
        got: of each secret that it got: path, the image that it named, value, when it asked and
            when it had it.
        unknown: how often it got no answer, by path and image.
        taken: by nonce, the messages that a token was given for.
    """

    def __init__(self, world, seed, *, groups, images=()):
        self._world, self._random = world, Random(seed)
        self._groups, self._images = groups, images
        self.got = []
        self.unknown = Counter()
        self.taken = {}

    def run(self):
        with ThreadPoolExecutor(2) as both:
            while not self._world.stopping.is_set():
                self.handshake(both)

    def _ask(self, method, path, body=None, random=None, **headers):
        return self._world.ask(random or self._random, method, path, body, **headers)

    def handshake(self, both):
        body = Request.offering_hashes("sample").to_bytes()
        answer = self._ask("POST", f"{PREFIX}/auth", body)
        if answer is None:
            return
        assert answer[0] == 200, answer
        cookie = answer[1]["Set-Cookie"].partition(";")[0]
        nonce = parse_challenge(answer[2]).nonce
        keys = [ECKey(), ECKey()]
        messages = [_message(nonce, key) for key in keys]
        count = 2 if self._random.random() < 0.3 else 1  # at once, at any two brokers

        def attest(number, seed):
            return self._attest(cookie, nonce, messages[number], random=Random(seed))

        seeds = [self._random.random() for _ in range(count)]
        list(both.map(attest, range(count), seeds))
        if not self.taken.get(nonce):
            return
        (first, *_) = self.taken[nonce]
        key = keys[messages.index(first)]
        for _ in range(self._random.randrange(2, 9)):
            if self._random.random() < 0.2:  # with the same message, or another one
                self._attest(cookie, nonce, self._random.choice(messages))
            else:
                self._get(cookie, key)

    def _attest(self, cookie, nonce, message, random=None):
        answer = self._ask("POST", f"{PREFIX}/attest", message, random=random, Cookie=cookie)
        if answer is not None:
            assert answer[0] in (200, 401), answer
            if answer[0] == 200:
                self.taken.setdefault(nonce, set()).add(message)

    def _get(self, cookie, key):
        """One secret, or two of which it gets both or none."""
        paths = [self._random.choice(self._random.choice(self._groups))]
        if self._random.random() < 0.2:
            every = [path for group in self._groups for path in group if path not in paths]
            paths.append(self._random.choice(every))
        image = f"sha256:{self._random.randbytes(32).hex()}"
        if self._images and self._random.random() < 0.7:
            image = self._random.choice(self._images)
        asked = time.monotonic()
        if len(paths) == 1:
            url = f"{PREFIX}/resource/{paths[0]}?image-digest={image}"
            answer = self._ask("GET", url, Cookie=cookie)
        else:
            body = json.dumps({"resources": paths, "image-digest": image})
            answer = self._ask("POST", f"{OUR_PREFIX}/release", body, Cookie=cookie)
        had = time.monotonic()
        if answer is None:
            self.unknown.update((path, image) for path in paths)
            return
        assert answer[0] in (200, 401, 403, 404), answer
        if answer[0] == 200:
            bodies = [answer[2]]
            if len(paths) > 1:
                told = json.loads(answer[2])["resources"]
                bodies = [json.dumps(told[path]).encode() for path in paths]
            for path, body in zip(paths, bodies, strict=True):
                with open_answer(body, key) as secret, secret.view() as data:
                    self.got.append((path, image, bytes(data).decode(), asked, had))


def _message(nonce, key):
    report_data = hash_report_data(nonce=nonce, tee_pubkey=key.public)
    evidence = load_attester("sample").collect(report_data)
    return Attestation(
        nonce=nonce, tee_pubkey=key.public, primary_evidence=evidence.body
    ).to_bytes()
