# SPDX-License-Identifier: Apache-2.0
"""Names of tests that attack a rule begin their docstring with its number in the module."""

import ipaddress

import pytest

from imagers.broker.places import Limits, Place, Places, address_key, forwarded_key

LIMITS = Limits(strangers=6, of_address=3, proven=4, of_caller=2, held_bytes=100, free_bytes=10)


class Peer(Place):
    """A connection that waits since a given time; None: we work for it."""

    def __init__(self, places, address, since):
        super().__init__(places, address)
        self.since = since
        self.is_evicted = False

    @property
    def waits_since(self):
        return self.since

    def evict(self):
        self.is_evicted = True


class Crowd:
    def __init__(self, limits=LIMITS):
        self.told = []
        self.places = Places(limits, on_evict=self.told.append)

    def enter(self, address, since=1.0, *, caller=""):
        peer = Peer(self.places, address, since)
        if not self.places.enter(peer):
            return None
        if caller:
            peer.prove(caller)
        return peer


@pytest.fixture
def crowd():
    return Crowd()


def evicted(*peers):
    return [peer.is_evicted for peer in peers]


def test_address_may_exceed_its_share_while_there_is_room(crowd):
    """1: a fleet behind one address starts at once."""
    peers = [crowd.enter("a", float(number)) for number in range(6)]
    assert not any(evicted(*peers))
    assert len(crowd.places) == 6


def test_enter_beyond_the_number_lets_one_go_whose_address_used_its_share(crowd):
    """1: not one that waits for longer, from an address that has not."""
    old = crowd.enter("b", 0.0), crowd.enter("c", 0.5), crowd.enter("c", 0.6)
    flood = [crowd.enter("a", 2.0), crowd.enter("a", 1.0), crowd.enter("a", 3.0)]
    assert crowd.enter("e", 9.0) is not None
    assert evicted(*old, *flood) == [False, False, False, False, True, False]
    assert crowd.told == [flood[1]]
    assert len(crowd.places) == 6


def test_enter_beyond_the_number_without_such_an_address_lets_the_longest_waiting_go(crowd):
    """1."""
    peers = [crowd.enter(str(number % 3), 10.0 - number) for number in range(6)]
    crowd.enter("new", 11.0)
    assert evicted(*peers) == [False] * 5 + [True]


def test_one_that_waits_goes_before_those_at_work(crowd):
    """1: also where these are of an address that used its share."""
    peers = [crowd.enter("a", None) for _ in range(5)]
    for peer in peers:
        peer.requests = 100
    other = crowd.enter("b", 5.0)
    crowd.enter("c", 6.0)
    assert evicted(*peers, other) == [False] * 5 + [True]


def test_enter_where_all_are_at_work_lets_one_of_many_requests_go(crowd):
    """1: who keeps us at work all the time would shut others out."""
    peers = [crowd.enter("a", None) for _ in range(6)]
    for number, peer in enumerate(peers):
        peer.requests = 5 + number
    assert crowd.enter("a", None) is not None
    assert evicted(*peers) == [False] * 5 + [True]


def test_enter_where_all_are_at_work_for_a_first_time_is_refused(crowd):
    """1: those who came first are nearer to their end."""
    peers = [crowd.enter("a", None) for _ in range(6)]
    for peer in peers:
        peer.requests = 8
    assert crowd.enter("b") is None
    assert not any(evicted(*peers))
    assert crowd.told == []
    peers[3].requests = 9
    assert crowd.enter("b") is not None
    assert peers[3].is_evicted


def test_connections_of_a_proxy_have_no_share_and_go_last(crowd):
    """1: who they are for is not known before a request."""
    proxied = [crowd.enter(None, 0.0) for _ in range(5)]
    other = crowd.enter("a", 5.0)
    crowd.enter("b", 6.0)
    assert evicted(*proxied, other) == [False] * 5 + [True]


def test_proxy_alone_makes_room_among_its_own(crowd):
    """1."""
    proxied = [crowd.enter(None, float(number)) for number in range(6)]
    assert crowd.enter(None, 9.0) is not None
    assert evicted(*proxied) == [True] + [False] * 5


def test_leave_frees_the_place_once(crowd):
    peers = [crowd.enter("a") for _ in range(6)]
    peers[0].hold(50)
    peers[0].leave()
    peers[0].leave()
    crowd.enter("a")
    assert not any(evicted(*peers))
    assert peers[1].hold(110)


def test_proven_do_not_take_the_share_of_strangers(crowd):
    """2: a fleet comes from one address."""
    guests = [crowd.enter("a", 0.0, caller=f"guest {number}") for number in range(4)]
    strangers = [crowd.enter("a", 1.0) for _ in range(10)]
    assert not any(evicted(*guests))
    assert sum(evicted(*strangers)) == 4
    assert len(crowd.places) == 10


def test_proven_of_one_caller_have_a_share(crowd):
    """2."""
    one, two, other = (
        crowd.enter("a", 2.0, caller="x"),
        crowd.enter("b", 1.0, caller="x"),
        crowd.enter("c", 0.0, caller="y"),
    )
    three = crowd.enter("d", 3.0, caller="x")
    assert evicted(one, two, other, three) == [False, True, False, False]


def test_proven_of_one_caller_at_work_leave_the_new_one_a_stranger(crowd):
    """2."""
    for _ in range(2):
        crowd.enter("a", None, caller="x")
    third = crowd.enter("a", 1.0, caller="x")
    assert third.caller == ""
    for _ in range(6):
        crowd.enter("a", 2.0)
    assert third.is_evicted


def test_reserve_that_is_full_lets_one_of_the_largest_share_go(crowd):
    """2."""
    small = crowd.enter("a", 0.0, caller="small"), crowd.enter("a", 0.0, caller="tiny")
    large = crowd.enter("a", 2.0, caller="large"), crowd.enter("a", 3.0, caller="large")
    new = crowd.enter("a", 4.0, caller="new")
    assert evicted(*small, *large) == [False, False, True, False]
    assert new.caller == "new"


def test_reserve_that_is_full_of_work_leaves_the_new_one_a_stranger(crowd):
    """2."""
    for number in range(4):
        crowd.enter("a", None, caller=str(number))
    assert crowd.enter("a", caller="new").caller == ""


def test_prove_again_changes_nothing_and_as_another_moves(crowd):
    """2."""
    peer, same = crowd.enter("a", 1.0, caller="x"), crowd.enter("a", 0.0, caller="x")
    peer.prove("x")
    assert evicted(peer, same) == [False, False]
    peer.prove("y")
    assert peer.caller == "y"
    crowd.enter("a", 2.0, caller="x")
    assert not any(evicted(peer, same))
    assert len(crowd.places) == 3


def test_prove_after_leaving_takes_no_place(crowd):
    peer = crowd.enter("a")
    peer.leave()
    peer.prove("x")
    assert (len(crowd.places), peer.caller) == (0, "")
    assert peer.hold(1000)
    assert peer.held == 0


def test_hold_beyond_the_bytes_lets_the_longest_waiting_holder_go(crowd):
    """3."""
    idle, one, two = crowd.enter("a", 0.0), crowd.enter("b", 2.0), crowd.enter("c", 1.0)
    assert one.hold(60)
    assert two.hold(60)
    new = crowd.enter("d", 3.0)
    assert new.hold(50)
    assert evicted(idle, one, two, new) == [False, False, True, False]
    assert (one.held, two.held, new.held) == (50, 0, 40)


def test_hold_counts_only_what_is_more_than_free_and_the_last_size(crowd):
    """3."""
    peer = crowd.enter("a", None)
    for size, held in ((10, 0), (11, 1), (110, 100), (5, 0), (110, 100)):
        assert peer.hold(size)
        assert peer.held == held


def test_hold_where_all_are_at_work_is_refused_and_holds_nothing(crowd):
    """3."""
    one, two = crowd.enter("a", None), crowd.enter("b", None)
    assert one.hold(110)
    assert not two.hold(11)
    assert two.hold(10)
    assert two.held == 0
    one.leave()
    assert two.hold(110)


def test_hold_of_one_that_holds_already_does_not_let_itself_go(crowd):
    """3."""
    peer = crowd.enter("a", 0.0)
    for size in (50, 80, 110):
        assert peer.hold(size)
    assert not peer.hold(111)
    assert not peer.is_evicted


def test_move_counts_for_the_address_that_a_proxy_says(crowd):
    """1."""
    proxied = [crowd.enter(None, float(number)) for number in range(6)]
    for number, peer in enumerate(proxied):
        assert crowd.places.move(peer, "a" if number > 2 else "b" if number else "c")
    crowd.enter("new", 9.0)
    assert evicted(*proxied) == [False, False, False, True, False, False]


def test_move_takes_a_proven_one_back_to_the_strangers(crowd):
    """2: the next request that a proxy sends on a connection is another caller's."""
    peer = crowd.enter(None, 1.0, caller="x")
    full = [crowd.enter("a", 0.0) for _ in range(6)]
    assert crowd.places.move(peer, "a")
    assert (peer.address, peer.caller) == ("a", "")
    assert sum(evicted(*full)) == 1
    assert len(crowd.places) == 6
    peer.prove("y")
    assert peer.caller == "y"


def test_move_of_a_proven_one_where_all_strangers_are_at_work_refused(crowd):
    """2."""
    peer = crowd.enter(None, 1.0, caller="x")
    for _ in range(6):
        crowd.enter("a", None)
    assert not crowd.places.move(peer, "a")
    assert len(crowd.places) == 6


def test_move_of_one_that_left_takes_no_place(crowd):
    peer = crowd.enter(None)
    peer.leave()
    assert crowd.places.move(peer, "a")
    assert len(crowd.places) == 0


def test_hold_of_strangers_does_not_displace_the_reserve_nor_the_other_way(crowd):
    """2, 3: a guest that reads a long answer is not displaced by bodies of strangers."""
    guest, stranger = crowd.enter("a", 0.0, caller="x"), crowd.enter("b", 1.0)
    assert guest.hold(110)
    assert stranger.hold(110)
    assert crowd.enter("c", 2.0).hold(110)
    assert evicted(guest, stranger) == [False, True]
    assert crowd.enter("d", 3.0, caller="y").hold(110)
    assert guest.is_evicted


def test_prove_takes_what_was_held_from_the_strangers(crowd):
    """3."""
    peer = crowd.enter("a", None)
    assert peer.hold(110)
    peer.prove("x")
    assert peer.held == 0
    assert crowd.enter("b", None).hold(110)
    assert peer.hold(110)


def test_iterating_gives_all(crowd):
    peers = {crowd.enter("a"), crowd.enter("b", caller="x")}
    assert set(crowd.places) == peers


def test_limits_hold_a_broker_below_256_mib():
    """The sum that the figures in docs/broker.md rest on, in MiB."""
    limits = Limits()
    connections = (limits.strangers + limits.proven) * 0.5
    assert connections + 2 * limits.held_bytes / 2**20 <= 160
    assert limits.of_address < limits.strangers
    assert limits.of_caller < limits.proven


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 100, "x" * 80),
    ],
)
def test_address_key(text, key):
    assert address_key(text) == key


PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "key"),
    [
        ("192.0.2.1", ["198.51.100.1"], None),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:5000"], "198.51.100.1"),
        ("2001:db8::5", ["[2001:4860:1:2:3::4]:5000"], "2001:4860:1:2::/64"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1" + ",10.0.0.2" * 15], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1" + ",10.0.0.2" * 16], "10.0.0.1"),
        ("no address", ["198.51.100.1"], None),
    ],
)
def test_forwarded_key_believes_configured_proxies_only(peer, forwarded, key):
    assert forwarded_key(peer, forwarded, PROXIES) == key


def test_place_leaves_what_the_server_knows_to_it():
    place = Place(Places(), "a")
    for ask in (lambda: place.waits_since, place.evict, lambda: place.arrive(())):
        with pytest.raises(NotImplementedError):
            ask()
