# SPDX-License-Identifier: Apache-2.0
"""Places for connections and for the bytes that they make us hold, when there is a crowd.

Nobody is asked who he is before he is let in, so there is no telling guests from a flood at the
door. But an honest peer hardly keeps us waiting, and a flood does nothing else. So

1. strangers together have a number of places. Where all are taken a newcomer is let in even then:
   whoever has kept us waiting for the longest (for a TLS handshake, a head, a body, or to read
   its answer) has to go. Each address has a share (an IPv6 address together with its /64), which
   it may exceed while there is room, as fleets do that start at once: those go first whose
   address has used its share. If we work for all of them, it is the one with the most requests,
   if they are more than a guest makes; if there is none, the newcomer;
2. whoever has shown a good session, a token or an admin's key on its connection moves to the
   reserve, where strangers cannot displace it. There each caller has a share, and nobody goes
   while we work for him: who finds no room stays a stranger;
3. bodies and answers above a few KiB are counted together, those of strangers and those of the
   reserve apart. The longest waiting goes; if we work for all, the newcomer is refused.

So 5,000 connections from one address leave other addresses as they were, and a guest behind the
same address has the time of all places' newer connections to send its request.

Times are values: no clock here, no IO.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Limits", "Network", "Place", "Places", "address_key", "forwarded_key"]

_MANY_REQUESTS = 8  # a guest makes two before it has attested
_MAX_HOPS = 16  # proxies of ours in a row
_IPv6_SHARE = 64  # bits of the prefix: what one host is given
_REMEMBERED = 1024  # addresses: to read one takes longer than the rest of a connection's start
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many at the same time.

    Attributes:
        strangers: connections that have proved nothing.
        of_address: of them, the share of one address.
        proven: connections in the reserve.
        of_caller: the same, of one session, token, or of the admins.
        held_bytes: in bodies and answers, beyond `free_bytes` of each connection; as much again
            in the reserve.
    """

    # A connection takes at most 256 KiB with TLS and as much for what was read ahead; with
    # 32 MiB of bodies and answers in all a broker stays below 256 MiB.
    strangers: int = 192
    of_address: int = 48
    proven: int = 64
    of_caller: int = 8
    held_bytes: int = 16 * 1024 * 1024
    free_bytes: int = 64 * 1024


class Place:
    """One connection, as `Places` sees it; the server's own says what is missing here.

    Attributes:
        is_proxied: whether a configured proxy made it.
        address: whose share it takes; None: a proxy's, before a request says for whom.
        caller: what it has proved to be, or "".
        held: bytes that count.
        requests: how many have begun on it.
    """

    def __init__(self, places: Places, address: str | None) -> None:
        self._places = places
        self.is_proxied = address is None
        self.address = address
        self.caller = ""
        self.held = 0
        self.requests = 0

    @property
    def waits_since(self) -> float | None:
        """Since when we wait for the peer; None while we work for it."""
        raise NotImplementedError

    @property
    def shows_certificate(self) -> bool:
        """Whether the peer has shown a certificate of the clients' CA, and that it has its key."""
        raise NotImplementedError

    def evict(self) -> None:
        """Close the connection at once."""
        raise NotImplementedError

    def arrive(self, forwarded: Sequence[str]) -> bool:
        """Whether there is room for the request that begins, which a proxy may send for another.

        Args:
            forwarded: the values of X-Forwarded-For, in order.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """The connection is closed. Safe to call twice."""
        self._places.leave(self)

    def prove(self, caller: str) -> None:
        """Move to the reserve, as `caller`."""
        self._places.prove(self, caller)

    def hold(self, size: int) -> bool:
        """Whether there is room for `size` bytes of this connection, in place of those before."""
        return self._places.hold(self, size)


class Places:
    """Who is connected, and who has to go.

    Args:
        on_evict: is told of each that goes, before it goes.

    Threads: one, that of the event loop.
    """

    def __init__(
        self, limits: Limits | None = None, *, on_evict: Callable[[Place], None] | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._on_evict = on_evict
        self._strangers: set[Place] = set()
        self._proven: set[Place] = set()

    def __len__(self) -> int:
        return len(self._strangers) + len(self._proven)

    def __iter__(self) -> Iterator[Place]:
        return iter([*self._strangers, *self._proven])

    def enter(self, place: Place) -> bool:
        """Whether there is a place for a new connection, if somebody has to go for it."""
        if len(self._strangers) >= self._limits.strangers and not self._evict_stranger():
            return False
        self._strangers.add(place)
        return True

    def leave(self, place: Place) -> None:
        """The connection is closed. Safe to call twice."""
        self._strangers.discard(place)
        self._proven.discard(place)
        place.held = 0

    def move(self, place: Place, address: str) -> bool:
        """Whether a connection may go on for another address, as a proxy says.

        Who it is for is to be proved anew.
        """
        place.address = address
        if place not in self._proven:
            return True
        self.leave(place)
        place.caller = ""
        return self.enter(place)

    def prove(self, place: Place, caller: str) -> None:
        """Move to the reserve; without room there it stays where it is."""
        if place not in self._strangers and place not in self._proven:
            return  # closed meanwhile
        if place.caller == caller:
            return
        same = [one for one in self._proven if one.caller == caller]
        if len(same) >= self._limits.of_caller:
            if not self._evict_longest(same):
                return
        elif (
            place not in self._proven
            and len(self._proven) >= self._limits.proven
            and not self._evict_proven()
        ):
            return
        place.caller = caller
        place.held = 0  # its answer is counted with those of the reserve
        self._strangers.discard(place)
        self._proven.add(place)

    def hold(self, place: Place, size: int) -> bool:
        """See `Place.hold`. Where it is not, nothing of this connection is held."""
        place.held = 0
        counted = max(0, size - self._limits.free_bytes)
        peers = self._proven if place in self._proven else self._strangers
        if place not in peers:
            return True  # closed meanwhile: what it holds is dropped in a moment
        while sum(one.held for one in peers) + counted > self._limits.held_bytes:
            if not self._evict_longest([one for one in peers if one.held]):
                return False
        place.held = counted
        return True

    def _evict_stranger(self) -> bool:
        shares = Counter(one.address for one in self._strangers)
        waiting = [one for one in self._strangers if one.waits_since is not None]
        over = [one for one in waiting if shares[one.address] >= self._limits.of_address]
        # A proxy's own connections are of many: they go when there are no others.
        for victims in (
            [one for one in over if one.address is not None],
            [one for one in waiting if one.address is not None],
            waiting,
        ):
            if self._evict_longest(victims):
                return True
        busiest = max(self._strangers, key=lambda one: one.requests)
        if busiest.requests <= _MANY_REQUESTS:
            return False
        self._evict(busiest)
        return True

    def _evict_proven(self) -> bool:
        waiting = [one for one in self._proven if one.waits_since is not None]
        shares = Counter(one.caller for one in waiting)
        largest = max(shares.values(), default=0)
        return self._evict_longest([one for one in waiting if shares[one.caller] == largest])

    def _evict_longest(self, places: Iterable[Place]) -> bool:
        """Whether one of them waited for its peer: the longest waiting was let go."""
        waiting = [(one.waits_since, one) for one in places]
        victims = [(since, one) for since, one in waiting if since is not None]
        if not victims:
            return False
        self._evict(min(victims, key=lambda item: item[0])[1])
        return True

    def _evict(self, victim: Place) -> None:
        if self._on_evict is not None:
            self._on_evict(victim)
        self.leave(victim)
        victim.evict()


@lru_cache(_REMEMBERED)
def address_key(text: str) -> str:
    """Whose share an address takes: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:80]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _IPv6_SHARE), strict=False))


def forwarded_key(peer: str, forwarded: Iterable[str], proxies: Iterable[Network]) -> str | None:
    """Whose share a request takes that a proxy sends; None if the peer is no configured proxy.

    Read from the right: what is left of the first address that is no proxy of ours, that address
    may have made up. If there is none, or it is no address, the request is the proxy's own.

    Args:
        forwarded: the values of X-Forwarded-For, in order.
    """
    networks = tuple(proxies)
    if not networks or not _is_in(peer, networks):
        return None
    parts = [part for value in forwarded for part in value.split(",")]
    for text in map(_without_port, reversed(parts[-_MAX_HOPS:])):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            break
        if not _is_in(text, networks):
            return address_key(text)
    return address_key(peer)


def _without_port(text: str) -> str:
    """Some proxies write `192.0.2.1:5000` and `[2001:db8::1]:5000`."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_in(text: str, networks: Iterable[Network]) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
