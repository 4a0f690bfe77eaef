import ssl

from imagers.net.connection import new_pools


def test_new_pools_headers_in_time_are_no_error(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1, send_bytes=1024)
    response = pools.request("GET", peer.url, timeout=2.0, retries=False)
    assert response.data == b"ok"
    pools.clear()


def test_new_pools_tls_uses_the_context(tls_peer, say, authority):
    tls_peer.answers = [say(body=b"ok")]
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    pools = new_pools(max_idle=1, send_bytes=1024, tls=context)
    assert pools.request("GET", tls_peer.url, timeout=2.0, retries=False).data == b"ok"
    pools.clear()


def test_new_pools_without_time_limit_have_no_deadline(peer, say):
    peer.answers = [say(body=b"ok")]
    pools = new_pools(max_idle=1, send_bytes=1024)
    assert pools.request("GET", peer.url, timeout=None, retries=False).data == b"ok"
    pools.clear()
