"""Which of several prices a call is charged at."""

from datetime import UTC, datetime, timedelta

import pytest

from app.pricing.catalog import Catalog
from app.pricing.quote import explain, explain_rows, rows_of
from app.pricing.rows import Alias, Listing, Override, PriceRow
from tests.unit.priced import listing, price_list, row, usage

AT = datetime(2026, 11, 18, 12, tzinfo=UTC)
MILLION = usage(input_tokens=1_000_000)
BATCH = (("processing", "batch"),)


def told(id: str, usd: str, model: str = "chat", **rest: object) -> Override:
    return Override(row(id, {"input_tokens": usd}), "acme", model, **rest)  # type: ignore[arg-type]


def listed(id: str, layer: str = "genai", model: str = "chat", **rest: object) -> Listing:
    return listing(model, row(id, {"input_tokens": "1"}), layer=layer, **rest)


def cited(catalog: Catalog, model: str | None = "chat", **rest: object) -> tuple[str, str]:
    quote = catalog.quote("acme", model, AT, MILLION, **rest)  # type: ignore[arg-type]
    return quote.price_ref, quote.status


LAYERS = price_list(listed("extract", "extract"), listed("genai"), listed("overlay", "overlay"))


def test_the_nearest_word_wins() -> None:
    stated = [
        told("user", "1", user_id="ann"),
        told("team", "1", team_id="red"),
        told("all", "1"),
        told("last", "1", default=True),
    ]
    order = ["user", "team", "all", "overlay"]
    while order:
        catalog = Catalog(LAYERS, stated)
        assert cited(catalog, user_id="ann", team_id="red") == (order.pop(0), "priced")
        stated = stated[1:]
    assert cited(Catalog(price_list(*LAYERS.listings[:2]))) == ("genai", "priced")
    assert cited(Catalog(price_list(*LAYERS.listings[:1]))) == ("extract", "priced")


def test_a_price_of_a_user_or_team_is_nobody_elses() -> None:
    catalog = Catalog(LAYERS, [told("user", "1", user_id="ann"), told("team", "1", team_id="red")])
    assert cited(catalog, user_id="ann")[0] == "user"
    assert cited(catalog, user_id="bob")[0] == "overlay"
    assert cited(catalog, user_id="bob", team_id="red")[0] == "team"
    assert cited(catalog, user_id="red", team_id="ann")[0] == "overlay"
    assert cited(catalog)[0] == "overlay"
    found = explain(catalog, "acme", "chat", AT, MILLION, user_id="ann")
    assert (found.quote.price_ref, found.why) == ("user", "override of user ann")


def test_more_conditions_beat_fewer_and_the_later_one_wins() -> None:
    batch = Override(row("batch", {"input_tokens": "1"}, when=BATCH), "acme", "chat")
    first = told("first", "1", created_at=AT)
    later = told("later", "1", created_at=AT + timedelta(seconds=1))
    for stated in ([batch, first, later], [later, first, batch]):
        catalog = Catalog(LAYERS, stated)
        assert cited(catalog) == ("later", "priced")
        assert cited(catalog, context={"processing": "Batch"}) == ("batch", "priced")
        assert cited(catalog, context={"processing": "other"}) == ("later", "priced")


def test_outside_its_time_an_override_leaves_the_call_to_the_next() -> None:
    soon = row("soon", {"input_tokens": "1"}, start=AT + timedelta(seconds=1))
    past = row("past", {"input_tokens": "1"}, end=AT)
    stated = [Override(soon, "acme", "chat"), Override(past, "acme", "chat"), told("now", "1")]
    assert cited(Catalog(LAYERS, stated))[0] == "now"
    assert cited(Catalog(LAYERS, stated[:2]))[0] == "overlay"


@pytest.mark.parametrize(
    ("match", "pattern", "model", "meant"),
    [
        ("exact", "Chat", "acme/CHAT", True),
        ("exact", "acme/chat", "chat", True),
        ("exact", "chat", "chat-2026-01-01", False),
        ("prefix", "chat-", "chat-2026-01-01", True),
        ("prefix", "Chat", "acme/chat", True),
        ("prefix", "chat-", "chat", False),
        ("regex", r"chat-\d{4}", "CHAT-2026", True),
        ("regex", r"chat", "chat-2026", False),
        ("exact", "*", "anything", True),
        ("exact", "*", None, True),
        ("prefix", "chat", None, False),
    ],
)
def test_an_override_means_the_names_that_its_kind_says(
    match: str, pattern: str, model: str | None, meant: bool
) -> None:
    catalog = Catalog(price_list(), [told("stated", "1", pattern, match=match)])
    assert (cited(catalog, model)[0] == "stated") == meant


def test_an_override_of_every_provider_or_one_spelled_otherwise_is_found() -> None:
    anyone = Override(row("any", {"input_tokens": "1"}), "*", "chat")
    assert cited(Catalog(price_list(), [anyone]))[0] == "any"
    google = Override(row("google", {"input_tokens": "1"}), "Vertex_AI", "chat")
    catalog = Catalog(price_list(), [google])
    assert catalog.quote("gemini", "models/chat", AT, MILLION).price_ref == "google"
    assert catalog.quote("litellm", "gemini/chat", AT, MILLION).price_ref == "google"


def test_an_override_is_the_whole_price() -> None:
    rates = {"input_tokens": "2", "output_tokens": "8"}
    catalog = Catalog(LAYERS, [Override(row("stated", rates), "acme", "chat")])
    parts = usage(
        input_tokens=1_000_000,
        cache_read_tokens=300_000,
        cache_write_tokens=200_000,
        cache_write_1h_tokens=100_000,
        input_audio_tokens=50_000,
        output_tokens=1_000,
        output_audio_tokens=500,
    )
    assert catalog.quote("acme", "chat", AT, parts) == (2_008_000_000, "priced", "stated")
    lines = explain(catalog, "acme", "chat", AT, parts).lines
    assert [(line.unit, line.quantity) for line in lines] == [
        ("input_uncached_text", 1_000_000),
        ("output_text", 1_000),
    ]
    searched = usage(input_tokens=1_000, web_searches=1)
    assert catalog.quote("acme", "chat", AT, searched) == (None, "unpriced", "")
    assert explain(catalog, "acme", "chat", AT, searched).why == "no rate for web_searches"


def test_a_condition_or_unit_that_a_layer_does_not_know_is_left_to_the_next_whole() -> None:
    near = listing("chat", row("near", {"input_tokens": "1"}))
    far = listing(
        "chat",
        row("far", {"input_tokens": "3", "web_searches": "0.01"}),
        row("far-batch", {"input_tokens": "2"}, when=BATCH),
        layer="extract",
    )
    catalog = Catalog(price_list(near, far))
    assert cited(catalog) == ("near", "priced")
    assert cited(catalog, context={"processing": "batch"}) == ("far+far-batch", "priced")
    assert cited(catalog, context={"service_tier": "flex"}) == ("near", "estimated")
    flex = explain(catalog, "acme", "chat", AT, MILLION, {"service_tier": "flex"})
    assert flex.why.startswith("exact name, but not every condition")
    searched = usage(input_tokens=1_000_000, web_searches=1)
    assert catalog.quote("acme", "chat", AT, searched) == (3_010_000_000, "priced", "far")
    heard = usage(input_tokens=1, audio_seconds=1)
    assert catalog.quote("acme", "chat", AT, heard) == (None, "unpriced", "")


def test_a_price_without_history_does_not_answer_for_the_past() -> None:
    cut = AT - timedelta(days=1)
    near = listing(
        "chat",
        row("dear", {"input_tokens": "10"}, end=cut),
        row("cheap", {"input_tokens": "2"}, start=cut),
    )
    far = listing(
        "chat",
        row("far", {"input_tokens": "2"}),
        row("half", {"input_tokens": "1"}, when=BATCH),
        layer="extract",
    )
    catalog = Catalog(price_list(near, far))
    context = {"processing": "batch"}
    assert catalog.quote("acme", "chat", AT, MILLION, context)[1:] == ("priced", "far+half")
    before = cut - timedelta(seconds=1)
    assert catalog.quote("acme", "chat", before, MILLION, context)[1:] == ("estimated", "dear")


def test_an_exact_name_beats_a_guess_in_a_better_layer() -> None:
    guess = listing("chat", row("guess", {"input_tokens": "1"}), patterns=(("^chat",),))
    exact = listed("exact", "extract", "chatty")
    catalog = Catalog(price_list(guess, exact))
    assert cited(catalog, "chatty") == ("exact", "priced")
    assert cited(catalog, "chatted") == ("guess", "estimated")
    assert cited(catalog, "chat-2026-01-01") == ("guess", "priced")


def test_a_dated_name_of_its_own_beats_one_without_the_date_but_in_the_last_layer() -> None:
    family = listed("family", "overlay", "chat")
    dated = listed("dated", "genai", "chat-2026-01-01")
    assert cited(Catalog(price_list(family, dated)), "chat-2026-01-01")[0] == "dated"
    loose = listed("loose", "genai", "chat", patterns=(("^chat",),))
    last = listed("last", "extract", "chat-2026-01-01")
    assert cited(Catalog(price_list(loose, last)), "chat-2026-01-01")[0] == "loose"


def test_rows_that_add_join_whichever_listing_answers() -> None:
    adds = listing(
        "uplifts",
        row("search", {"web_searches": "0.01", "input_tokens": "99"}),
        PriceRow("us", (), (("region", "us"),), multiplier_ppm=1_100_000),
        PriceRow("home", (), (("region", "home"),)),
        layer="overlay",
        names=(),
        patterns=(("^chat",),),
        adds=True,
    )
    own = listing(
        "chat-own",
        row("own", {"input_tokens": "1"}),
        row("own-us", {"input_tokens": "3"}, when=(("region", "us"),)),
        layer="extract",
    )
    catalog = Catalog(price_list(adds, listed("base"), own))
    searched = usage(input_tokens=1_000_000, web_searches=1)
    us = {"region": "us"}
    assert catalog.quote("acme", "chat", AT, searched) == (1_010_000_000, "priced", "base+search")
    quote = catalog.quote("acme", "chat", AT, searched, us)
    assert quote == (1_110_000_000, "priced", "base+us+search")
    assert cited(catalog, context={"region": "home"}) == ("base", "priced")
    assert cited(catalog, "chat-own", context=us) == ("own+own-us", "priced")
    explained = explain(catalog, "acme", "chat", AT, searched, us)
    stored = {each.id: each for one in catalog.price_list.listings for each in one.rows}
    rows = [stored[id] for id in rows_of(explained.quote.price_ref)]
    assert explain_rows(rows, searched).lines == explained.lines
    assert [line.row for line in explained.lines] == ["base+us", "search"]
    assert cited(catalog, "chats") == ("", "unpriced")
    assert ("acme", "uplifts", "uplifts") not in set(catalog.models())


def test_a_missing_cache_rate_that_is_added_is_cited_by_calls_that_write_to_a_cache() -> None:
    adds = listing("x", row("write", {"cache_write_5m_tokens": "2"}), names=("chat",), adds=True)
    catalog = Catalog(price_list(adds, listed("base")))
    unsplit = usage(input_tokens=1_000_000, cache_write_tokens=500_000)
    assert catalog.quote("acme", "chat", AT, unsplit) == (1_500_000_000, "priced", "base+write")
    assert cited(catalog) == ("base", "priced")


def test_an_alias_decides_the_name_and_overrides_may_mean_either() -> None:
    alias = Alias("one", "ACME", "my-deployment", "chat")
    catalog = Catalog(LAYERS, (), [alias])
    assert cited(catalog, "acme/My-Deployment") == ("overlay", "priced")
    assert explain(catalog, "acme", "my-deployment", AT, MILLION).why == "alias, exact name"
    for model in ("my-deployment", "chat"):
        assert cited(Catalog(LAYERS, [told("stated", "1", model)], [alias]), "my-deployment") == (
            "stated",
            "priced",
        )
    nowhere = Alias("two", "acme", "chat", "no-such-model")
    assert cited(Catalog(LAYERS, (), [nowhere])) == ("", "unpriced")


def test_an_alias_may_name_another_provider() -> None:
    other = listing("talk", row("other", {"input_tokens": "1"}), provider="bolt")
    catalog = Catalog(price_list(other), (), [Alias("one", "acme", "chat", "bolt/talk")])
    assert cited(catalog) == ("other", "priced")


def test_without_a_model_the_operators_default_is_priced_and_ours_is_estimated() -> None:
    guess = {"acme": "chat"}
    assert cited(Catalog(LAYERS, defaults=guess), None) == ("overlay", "estimated")
    alias = Alias("one", "acme", None, "chat")
    assert cited(Catalog(LAYERS, (), [alias], guess), " ") == ("overlay", "priced")
    any_model = told("any", "1", "*")
    assert cited(Catalog(LAYERS, [any_model], (), guess), None) == ("any", "priced")
    stated = told("stated", "1")
    assert cited(Catalog(LAYERS, [stated], (), guess), None) == ("stated", "estimated")
    assert cited(Catalog(LAYERS, defaults={}), None) == ("", "unpriced")


def test_defaults_price_what_nothing_else_does_and_are_estimates() -> None:
    shelf = listing("*", row("shelf", {"input_tokens": "1"}), layer="default", names=())
    widest = Override(row("widest", {"input_tokens": "1"}), "*", "*", default=True)
    own = told("own", "1", "*", default=True)
    assert cited(Catalog(price_list(shelf)), "unheard-of") == ("shelf", "estimated")
    assert cited(Catalog(price_list(shelf), [widest]), None) == ("widest", "estimated")
    assert cited(Catalog(price_list(shelf), [widest, own]), "unheard-of") == ("own", "estimated")
    assert cited(Catalog(LAYERS, [widest, own])) == ("overlay", "priced")
    anns = told("anns", "1", "*", default=True, user_id="ann")
    catalog = Catalog(price_list(), [anns])
    assert cited(catalog, "unheard-of", user_id="ann") == ("anns", "estimated")
    assert cited(catalog, "unheard-of", user_id="bob") == ("", "unpriced")


def test_changes_share_what_was_compiled_and_leave_the_old_catalogue_alone() -> None:
    before = Catalog(LAYERS)
    after = before.with_changes([told("stated", "1")], ())
    assert (cited(before)[0], cited(after)[0]) == ("overlay", "stated")
    assert after.price_list is before.price_list
    assert cited(after.with_changes((), ()))[0] == "overlay"


def test_a_call_to_a_service_priced_by_the_piece_that_tells_no_pieces_is_unpriced() -> None:
    from_packages = Catalog.from_packages()
    for provider, model in (("stability", None), ("cohere", "rerank-v3.5"), ("openai", "dall-e-3")):
        quote = from_packages.quote(provider, model, AT, usage(requests=1))
        assert quote.cost_nanos is None, provider
