"""Where webhooks may lead: every form of an inner address is refused, at every attempt."""

import pytest

from app.alerts.channels import judge_channel
from app.alerts.guard import Guard, Refused

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning"),  # what apprise imports
]

PUBLIC = "93.184.215.14"


def answering(*addresses: str, **options: object) -> Guard:
    """A guard whose resolver knows these addresses for every name."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return Guard(resolve=resolve, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.9.9"),
        *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192"),
        *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255", "192.88.99.1", "168.63.129.16"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:10.0.0.1", "::7f00:1", "::10.0.0.1"),
        *("2002:7f00:1::1", "2002:0a00:0001::1", "2002:5db8:d70e::1", "2001:0:5ef5::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:db8::1", "3fff::1"),
        "not an address",
    ],
)
async def test_no_inner_address_is_connected_to(address: str) -> None:
    for found in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(Refused, match="not public"):
            await answering(*found).judge_url("https://hooks.example.com/x")


@pytest.mark.parametrize(
    "address",
    [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
async def test_a_public_address_is_connected_to(address: str) -> None:
    target = await answering(address).judge_url("https://hooks.example.com:8443/a/b?c=d#e")
    assert target == ("https", "hooks.example.com", 8443, "/a/b?c=d")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example.com/", "https is expected"),
        ("ftp://hooks.example.com/", "https is expected"),
        ("file:///etc/passwd", "https is expected"),
        ("hooks.example.com", "https is expected"),
        ("https://", "host is missing"),
        ("https://user@hooks.example.com/", "no user name"),
        ("https://user:word@hooks.example.com/", "no user name"),
        ("https://hooks.example.com@10.0.0.1/", "no user name"),
        ("https://hooks.example.com\\@10.0.0.1/", "no URL has"),
        ("https://hooks.example.com/a b", "no URL has"),
        ("https://hooks.example.com/a\r\nHost: x", "no URL has"),
        ("https://[fe80::1%25eth0]/", "host is missing"),
        ("https://[::1", "not a URL"),
        ("https://hooks.example.com:99999/", "not a URL"),
        ("https://hooks.example.com:0/", "port 0"),
        ("https://hooks.example.com:22/", "port 22"),
        ("https://hooks.example.com:25/", "port 25"),
        ("https://häkchen.example/", "ASCII"),
        ("https://hooks.example.com/" + "x" * 2048, "at most 2048"),
        ("", "at most 2048"),
    ],
)
async def test_a_url_that_is_no_place_for_messages_is_refused(url: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        await answering(PUBLIC).judge_url(url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "localhost"]
)
async def test_every_way_to_write_this_machine_is_refused(host: str) -> None:
    with pytest.raises(Refused):
        await Guard().judge_url(f"https://{host}/")


async def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(Refused, match="no address"):
        await answering().judge_url("https://hooks.example.com/")
    with pytest.raises(Refused, match="no address"):
        await Guard().judge_url("https://nobody.invalid/")


async def test_private_addresses_are_opened_by_setting_and_metadata_by_name_alone() -> None:
    for address in ("10.1.2.3", "127.0.0.1", "::1", "fd12::1", "::ffff:10.1.2.3"):
        await answering(address, allow_private=True).addresses("h", 443)
    for address in ("169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(Refused):
            await answering(address, allow_private=True).addresses("h", 443)
    inside = answering("10.1.2.3", allow_hosts=["10.1.0.0/16", " Hooks.Internal. "])
    assert await inside.addresses("any.example", 443) == ["10.1.2.3"]
    with pytest.raises(Refused):
        await answering("10.2.2.3", allow_hosts=["10.1.0.0/16"]).addresses("h", 443)
    named = answering("169.254.169.254", allow_hosts=["hooks.internal"])
    assert await named.addresses("hooks.internal", 22) == ["169.254.169.254"]
    with pytest.raises(Refused):
        await named.addresses("x.hooks.internal", 443)


# ---- people's channels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "slack://TokenA12/TokenB12/TokenC1234567890123456789/#general",
        "tgram://123456789:abcdefg_hijklmnop/12315544",
        "workflows://prod.example.com:443/workflow/signature",
        "mailtos://user:word@example.com",
        "mailto://user:word@example.com?smtp=mail.example.com&to=a@example.com",
        "jsons://hooks.example.com/path",
        "ntfy://topic",
    ],
)
async def test_a_known_channel_at_a_public_host_is_taken(url: str) -> None:
    await judge_channel(answering(PUBLIC, allow_http=True), url)


@pytest.mark.parametrize(
    "url",
    [
        *("dbus://", "gnome://", "macosx://", "windows://", "syslog://", "rsyslog://10.0.0.1"),
        *("file:///etc/passwd", "https://hooks.slack.com/services/T1/A1/x", "exec://ls", "kde://"),
        *("slack://", "json://", "nonsense", "", "jsons://hooks.example.com/a jsons://10.0.0.1"),
        "slack://TokenA12/TokenB12/TokenC1234567890123456789/#general?template=file:///etc/passwd",
        "workflows://prod.example.com:443/workflow/signature?Template=/etc/passwd",
        "slack://TokenA12/TokenB12/TokenC1234567890123456789/?%54emplate=/etc/passwd",
        "jsons://hooks.example.com/x?redirect=yes",
        "jsons://hooks.example.com/x#a;redirect=yes",
        "jsons://hooks.example.com/x?a=b?redirect=yes",
        "mailtos://user:word@example.com?pgp=yes",
        "json://hooks.example.com/x",
    ],
)
async def test_a_local_or_unknown_channel_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        await judge_channel(answering(PUBLIC), url)


@pytest.mark.parametrize(
    "url",
    [
        "jsons://hooks.example.com/path",
        "mailtos://user:word@gmail.com?smtp=mail.example.com",
        "gotifys://hooks.example.com/token",
        "ntfys://user:word@hooks.example.com/topic",
        "workflows://prod.example.com:443/workflow/signature",
    ],
)
async def test_the_host_in_a_channel_is_judged(url: str) -> None:
    with pytest.raises(Refused, match="not public"):
        await judge_channel(answering("10.0.0.1"), url)
