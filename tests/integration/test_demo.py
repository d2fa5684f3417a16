"""`tollgate demo`, whole: it starts the real service in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from app.demo import run
from app.demo.show import usd

TABLES = (
    ("provider", "model", "calls", "tokens", "cost"),
    ("limit", "used", "of", "%"),
    ("period", "calls", "tokens", "errors", "cost"),
    ("at", "severity", "when", "message"),
    ("user", "answer", "estimate", "message"),
    ("unit", "quantity", "rate", "amount"),
    ("identity", "compared", "holds"),
)
SCRIPT = """
import sys
from rich.console import Console
from app.demo import run
sys.exit(run(Console(width=80)))
"""


def test_the_demo_shows_every_table_and_finds_nothing_amiss() -> None:
    console = Console(file=StringIO(), width=80, record=True)
    code = run(console)
    text = console.export_text()
    assert code == 0, text
    headers = [tuple(line.split()) for line in text.splitlines()]
    assert set(TABLES) <= set(headers)
    for words in ("info", "warning", "error", "denied", "allowed", "0 recorded", "█"):
        assert words in text
    assert "differs" not in text
    assert not re.search(r"\$0\.0+(?!\d)", text), "little money must not look like none"
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.fault
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(ending: signal.Signals, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-u", "-c", SCRIPT],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        address = re.search(r"http://\S+", demo.stdout.readline())
        assert address is not None
        assert list(tmp_path.iterdir())
        demo.send_signal(ending)
        rest = demo.stdout.read()
    assert demo.returncode == 130, rest
    assert "Interrupted" in rest
    assert not list(tmp_path.iterdir())
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address[0]}/healthz", trust_env=False)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0"),
        (None, "unknown"),
        ("0.000000001", "$0.000000001"),
        ("0.000195", "$0.000195"),
        ("0.0135502", "$0.0136"),
        ("0.1", "$0.10"),
        ("0.9999", "$1.00"),
        ("1234.5", "$1,234.50"),
    ],
)
def test_little_money_is_never_shown_as_none(amount: str | None, shown: str) -> None:
    assert usd(amount) == shown
