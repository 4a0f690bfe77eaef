import pytest

from imagers.cli.brokers import BrokerOptions
from imagers.cli.recipients import ImageKeys
from imagers.errors import FormatError, LocalError, RemoteError, UsageError
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey

NOBODY = BrokerOptions(url=None, ca_file=None, insecure_http=False)


@pytest.fixture
def broker(imagers_broker):
    key = str(imagers_broker.admin_key_file)
    return BrokerOptions(imagers_broker.url, None, insecure_http=False, admin_key=key)


def make(recipients, broker=NOBODY, *, replace=False, kek_file=None):
    return ImageKeys(recipients, broker, replace=replace, kek_file=kek_file)


def test_key_files_need_no_broker(keys):
    with make([f"jwe:{keys}/r2048.pub", f"jwe:{keys}/ec256.pub"]) as made:
        assert made.kid is None
        assert made.wrappers
        made.bind(digest_of(b"image"))  # nothing to bind


def test_fresh_key_is_stored_on_entering_and_bound_later(broker, imagers_broker):
    with make(["broker:kbs:///default/app/"], broker) as made:
        assert made.kid.startswith("kbs:///default/app/")
        assert imagers_broker.admin.metadata(made.kid).manifest_digests == ()
        made.bind(digest_of(b"image"))
    found = imagers_broker.admin.metadata(made.kid)
    assert found.manifest_digests == (digest_of(b"image"),)
    assert found.size == 32


def test_fresh_key_has_another_name_each_time(broker):
    with make(["broker:kbs:///a/b/"], broker) as one, make(["broker:kbs:///a/b/"], broker) as two:
        assert one.kid != two.kid


def test_named_key_is_created_once(broker):
    with make(["broker:kbs:///a/b/c"], broker):
        pass
    with (
        pytest.raises(RemoteError, match="already") as caught,
        make(["broker:kbs:///a/b/c"], broker),
    ):
        pass
    assert "--replace" in caught.value.hint
    with make(["broker:kbs:///a/b/c"], broker, replace=True) as made:
        assert made.kid == "kbs:///a/b/c"


def test_failure_afterwards_says_where_the_key_is(broker, capsys):
    with pytest.raises(KeyboardInterrupt), make(["broker:kbs:///a/b/c"], broker):
        raise KeyboardInterrupt
    assert "kbs:///a/b/c is in the broker, bound to no image" in capsys.readouterr().err


def test_kek_file_asks_no_broker(tmp_path):
    (tmp_path / "kek").write_bytes(b"k" * 32)
    made = make(["broker:kbs:///a/b/c"], kek_file=str(tmp_path / "kek"))
    with made:
        assert made.kid == "kbs:///a/b/c"
        made.bind(digest_of(b"image"))


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33])
def test_kek_file_of_another_size_refused(tmp_path, content):
    (tmp_path / "kek").write_bytes(content)
    made = make(["broker:kbs:///a/b/c"], kek_file=str(tmp_path / "kek"))
    with pytest.raises(FormatError, match="expected exactly 32 bytes"), made:
        pass


def test_kek_file_that_is_missing_refused(tmp_path):
    made = make(["broker:kbs:///a/b/c"], kek_file=str(tmp_path / "nowhere"))
    with pytest.raises(LocalError, match="no such file"), made:
        pass


@pytest.mark.parametrize(
    ("recipients", "kek_file", "message"),
    [
        (["broker:kbs:///a/b/"], None, "no broker is named"),
        (["broker:kbs:///a/b/", "broker:kbs:///a/c/"], None, "one broker: recipient at most"),
        (["broker:kbs:///a/b/"], "kek", "--kek-file needs a recipient"),
        (["jwe:key.pub"], "kek", "--kek-file needs a recipient"),
    ],
)
def test_recipients_that_do_not_fit_refused_before_anything_is_opened(
    recipients, kek_file, message
):
    with pytest.raises(UsageError, match=message):
        make(recipients, kek_file=kek_file)


def test_broken_key_file_stores_no_key_in_the_broker(broker, imagers_broker, keys):
    made = make([f"jwe:{keys}/r2048.key", "broker:kbs:///a/b/"], broker)
    with pytest.raises(FormatError, match="is a private key"), made:
        pass
    assert imagers_broker.admin.list_resources() == ()


def test_wrapping_key_is_wiped_at_the_end(broker):
    with make(["broker:kbs:///a/b/"], broker) as made:
        (wrapper,) = made.wrappers
    with pytest.raises((ValueError, RuntimeError)), SecretKey(bytes(32)) as key:
        wrapper.wrap(key, None)
