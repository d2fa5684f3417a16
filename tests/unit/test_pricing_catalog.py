"""The catalogue: rules for what has no rate, conditions, dates, bounds."""

import decimal
import pickle
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from app.core.counters import NOTHING
from app.pricing.catalog import MEMO_SIZE, Catalog
from app.pricing.genai import read_genai
from app.pricing.quote import explain, rows_of
from app.pricing.rows import Override, PriceList
from tests.unit.priced import row, usage

CATALOG = Catalog.from_packages()
SOURCE_ALONE = Catalog(PriceList("", *read_genai()))
AT = datetime(2026, 11, 18, 12, tzinfo=UTC)


TOKENS = usage(input_tokens=1_000, output_tokens=100)


@pytest.mark.parametrize(
    ("provider", "model", "counts"),
    [
        ("openai", "gpt-4o", {"input_tokens": 10, "input_audio_tokens": 5}),
        ("openai", "gpt-4o", {"output_tokens": 10, "output_audio_tokens": 5}),
        ("openai", "gpt-4o", {"output_tokens": 10, "output_image_tokens": 5}),
        ("openai", "gpt-4o", {"audio_seconds": 1}),
        ("openai", "gpt-4o", {"output_images": 1}),
        ("openai", "text-embedding-3-small", {"output_tokens": 1}),
        ("openai", "whisper-1", {"input_tokens": 1}),
        (
            "openai",
            "gpt-6-sol",
            {"input_tokens": 9, "cache_write_tokens": 9, "cache_write_1h_tokens": 9},
        ),
    ],
)
def test_a_counter_without_a_rate_leaves_the_call_unpriced(
    provider: str, model: str, counts: dict[str, int]
) -> None:
    assert CATALOG.quote(provider, model, AT, usage(**counts), None).status == "unpriced"
    explanation = explain(CATALOG, provider, model, AT, usage(**counts), None)
    assert explanation.why.startswith("no rate for ")
    assert explanation.lines == ()


def test_a_cached_token_of_a_model_without_a_discount_costs_as_input() -> None:
    cached = usage(input_tokens=1_000, cache_read_tokens=900, output_tokens=100)
    assert CATALOG.quote("openai", "gpt-4", AT, cached, None) == CATALOG.quote(
        "openai", "gpt-4", AT, TOKENS, None
    )


def test_image_input_without_a_rate_costs_as_text_and_says_it_is_a_guess() -> None:
    image = usage(input_tokens=1_000, input_image_tokens=900, output_tokens=100)
    quote = CATALOG.quote("openai", "gpt-4o", AT, image, None)
    assert quote.cost_nanos == CATALOG.quote("openai", "gpt-4o", AT, TOKENS, None).cost_nanos
    assert quote.status == "estimated"


def test_cached_audio_that_was_not_told_apart_is_billed_high_and_estimated() -> None:
    apart = usage(
        input_tokens=100,
        cache_read_tokens=80,
        input_audio_tokens=60,
        cache_audio_read_tokens=60,
        output_tokens=1,
    )
    mixed = usage(input_tokens=100, cache_read_tokens=80, input_audio_tokens=60, output_tokens=1)
    exact = CATALOG.quote("openai", "gpt-realtime", AT, apart, None)
    guess = CATALOG.quote("openai", "gpt-realtime", AT, mixed, None)
    assert (exact.status, guess.status) == ("priced", "estimated")
    assert guess.cost_nanos is not None
    assert exact.cost_nanos is not None
    assert guess.cost_nanos >= exact.cost_nanos


def test_one_call_is_one_request_where_requests_have_a_fee() -> None:
    context = {"search_context_size": "high"}
    one = CATALOG.quote("perplexity", "sonar", AT, usage(requests=1), context)
    assert one == CATALOG.quote("perplexity", "sonar", AT, NOTHING, context)
    assert one.cost_nanos == 12_000_000
    assert CATALOG.quote("perplexity", "sonar", AT, NOTHING, None).status == "estimated"
    assert CATALOG.quote("openai", "gpt-4o", AT, usage(requests=3), None).status == "priced"


@pytest.mark.parametrize(
    ("model", "context", "status"),
    [
        ("gpt-4o-mini", {"service_tier": "default"}, "priced"),
        ("gpt-4o-mini", {"processing": "BATCH "}, "priced"),
        ("gpt-4o-mini", {"service_tier": "batch"}, "priced"),
        ("gpt-4o-mini", {"anything": "else"}, "priced"),
        ("gpt-4o-mini", {"route": "/chat"}, "priced"),
        ("gpt-4o-mini", {"service_tier": "scale"}, "estimated"),
        ("gpt-4", {"service_tier": "flex"}, "estimated"),
    ],
)
def test_conditions_select_a_price_or_make_it_a_guess(
    model: str, context: dict[str, str], status: str
) -> None:
    assert CATALOG.quote("openai", model, AT, TOKENS, context).status == status


def test_a_variant_from_before_its_date_is_a_guess() -> None:
    context = {"processing": "batch"}
    before = datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC)
    start = datetime(2026, 10, 14, tzinfo=UTC)
    quote = SOURCE_ALONE.quote("openai", "gpt-6-sol", before, TOKENS, context)
    assert quote.status == "estimated"
    for catalog in (CATALOG, SOURCE_ALONE):
        quote = catalog.quote("openai", "gpt-6-sol", start, TOKENS, context)
        assert quote.status == "priced"
        assert rows_of(quote.price_ref) == ["openai/gpt-6-sol", "openai/gpt-6-sol#6"]


def test_an_undated_batch_price_answers_for_the_past_only_where_the_rates_were_the_same() -> None:
    context = {"processing": "batch"}
    before = datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC)
    assert CATALOG.quote("openai", "gpt-6-sol", before, TOKENS, context).status == "priced"
    dear = datetime(2025, 6, 9, tzinfo=UTC)
    quote = CATALOG.quote("openai", "o3", dear, TOKENS, context)
    assert (quote.status, quote.cost_nanos) == ("estimated", 14_000_000)


def test_the_tier_is_cited_from_the_first_token_beyond_it() -> None:
    at_most = CATALOG.quote("google", "gemini-2.5-pro", AT, usage(input_tokens=200_000), None)
    beyond = CATALOG.quote("google", "gemini-2.5-pro", AT, usage(input_tokens=200_001), None)
    assert at_most == (250_000_000, "priced", "google/gemini-2.5-pro")
    assert beyond.cost_nanos == 500_002_500
    assert beyond.price_ref.endswith("gemini-2.5-pro input>200000")


def test_resolve_tells_the_entry_the_interval_and_the_rates() -> None:
    found = CATALOG.resolve("openai", "openai/o3", datetime(2025, 6, 9, tzinfo=UTC))
    assert found is not None
    assert (found.provider, found.model, found.rule) == ("openai", "o3", "provider prefix")
    assert found.period.end == datetime(2025, 6, 10, tzinfo=UTC)
    assert {rate.unit: rate.usd for rate in found.rates}["output_text"] == ((0, "40"),)
    tiered = CATALOG.resolve("google", "gemini-2.5-pro", AT)
    assert tiered is not None
    assert tiered.thresholds == (200_000,)
    assert CATALOG.resolve("openai", "nothing", AT) is None
    assert ("openai", "gpt-4o", "gpt 4o") in set(CATALOG.models())


def test_twenty_thousand_junk_names_leave_the_memo_bounded() -> None:
    own = Override(row("own", {"input_tokens": "1"}), "openai", "gpt-4o", user_id="ann")
    catalog = CATALOG.with_changes([own], ())
    for number in range(20_000):
        assert catalog.quote("openai", f"junk-{number}", AT, TOKENS, None).cost_nanos is None
        catalog.quote(
            "anthropic", f"claude-sonnet-4-5-{number}", AT, TOKENS, {"speed": f"{number}"}
        )
        catalog.quote("openai", "gpt-4o", AT, TOKENS, {"region": f"{number}"}, "ann", f"{number}")
    assert len(catalog._memo) <= MEMO_SIZE


def test_a_name_too_long_to_be_one_is_not_remembered() -> None:
    catalog = CATALOG.with_changes((), ())
    for size in (513, 10_000):
        assert catalog.quote("openai", "x" * size, AT, TOKENS).status == "unpriced"
        assert catalog.quote("x" * size, "gpt-4o", AT, TOKENS).status == "unpriced"
    assert len(catalog._memo) == 0


def test_the_threads_decimal_context_changes_nothing() -> None:
    calls = [
        ("openai", "gpt-5.4", usage(input_tokens=123_457, output_tokens=98_765), None),
        ("openai", "whisper-1", usage(audio_seconds=12_345_678), None),
        ("anthropic", "claude-haiku-4-5", usage(input_tokens=77_777, output_tokens=1), None),
    ]
    plain = [CATALOG.quote(*call[:2], AT, *call[2:]) for call in calls]
    with decimal.localcontext() as context:
        context.prec = 4
        again = Catalog.from_packages()
        assert [again.quote(*call[:2], AT, *call[2:]) for call in calls] == plain


def test_a_cost_beyond_nine_billion_dollars_is_an_error_that_names_it() -> None:
    with pytest.raises(OverflowError, match="nano-dollars"):
        CATALOG.quote("openai", "gpt-4o", AT, usage(input_tokens=2**53 - 1), None)


def test_compiling_the_catalogue_starts_no_thread_and_opens_no_socket() -> None:
    code = (
        "import socket, threading\n"
        "def refuse(*a, **k): raise AssertionError('a socket')\n"
        "socket.socket.connect = refuse\n"
        "from app.pricing.catalog import Catalog\n"
        "Catalog.from_packages().compile_all()\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_catalogue_of_a_given_list_does_without_the_package_that_lists_come_from() -> None:
    code = (
        "import pickle, sys\n"
        "from datetime import UTC, datetime\n"
        "from app.pricing.catalog import Catalog\n"
        "from app.pricing.quote import explain\n"
        "catalog = Catalog(pickle.load(sys.stdin.buffer))\n"
        "call = ('openai', 'gpt-4o', datetime(2026, 11, 18, tzinfo=UTC), (1_000, *[0] * 21))\n"
        "assert catalog.quote(*call) == explain(catalog, *call).quote\n"
        "assert catalog.quote(*call).cost_nanos == 2_500_000\n"
        "assert not [name for name in sys.modules if name.startswith('genai_prices')]\n"
    )
    listed = pickle.dumps(CATALOG.price_list)
    subprocess.run([sys.executable, "-c", code], input=listed, check=True, timeout=60)


def test_every_price_of_this_release_compiles() -> None:
    CATALOG.compile_all()
    ids = [row.id for listing in CATALOG.price_list.listings for row in listing.rows]
    assert len(set(ids)) == len(ids)
