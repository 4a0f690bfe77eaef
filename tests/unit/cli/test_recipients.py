# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.cli.brokers import BrokerOptions, Given
from imagers.cli.recipients import opened_recipients
from imagers.errors import FormatError, LocalError, UsageError

NOBODY = BrokerOptions(url=None, ca_file=None, insecure_http=False)


@pytest.fixture
def broker(imagers_broker):
    key = str(imagers_broker.admin_key_file)
    url = Given(imagers_broker.url, "--broker")
    return BrokerOptions(url, None, insecure_http=False, admin_key=Given(key, "--broker-admin-key"))


def opened(recipients, broker=NOBODY, *, replace=False, kek_file=None):
    return opened_recipients(recipients, broker, replace=replace, kek_file=kek_file)


def test_key_files_need_no_broker(keys):
    with opened([f"jwe:{keys}/r2048.pub", f"jwe:{keys}/ec256.pub"]) as made:
        assert made.wrappers
        assert made.broker_key is None


def test_broker_key_is_not_there_before_it_is_entered(broker, imagers_broker):
    with opened(["broker:kbs:///default/app/"], broker) as made:
        assert imagers_broker.admin.list_resources() == ()
        with made.broker_key:
            assert len(imagers_broker.admin.list_resources()) == 1


def test_failure_afterwards_says_where_the_key_is(broker, capsys):
    with (
        opened(["broker:kbs:///a/b/c"], broker) as made,
        pytest.raises(KeyboardInterrupt),
        made.broker_key,
    ):
        raise KeyboardInterrupt
    assert "kbs:///a/b/c is in the broker, bound to no image" in capsys.readouterr().err


def test_kek_file_asks_no_broker(tmp_path):
    (tmp_path / "kek").write_bytes(b"k" * 32)
    kek_file = str(tmp_path / "kek")
    with opened(["broker:kbs:///a/b/c"], kek_file=kek_file) as made, made.broker_key:
        assert made.broker_key.kid == "kbs:///a/b/c"


def test_kek_file_that_cannot_be_used_is_named_with_its_option(tmp_path):
    for error in (LocalError, FormatError):
        with (
            pytest.raises(error, match="--kek-file: "),
            opened(["broker:kbs:///a/b/c"], kek_file=str(tmp_path / "kek")),
        ):
            pass
        (tmp_path / "kek").write_bytes(b"short")


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
    with pytest.raises(UsageError, match=message), opened(recipients, kek_file=kek_file):
        pass


def test_broken_key_file_stores_no_key_in_the_broker(broker, imagers_broker, keys):
    with (
        pytest.raises(FormatError, match="is a private key"),
        opened([f"jwe:{keys}/r2048.key", "broker:kbs:///a/b/"], broker),
    ):
        pass
    assert imagers_broker.admin.list_resources() == ()
