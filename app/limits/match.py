"""Does a limit mean this provider and model? One answer for ingest, seeding, checks and audit."""

from functools import lru_cache

from app.pricing.names import provider_id, spelled

REMEMBERED = 65_536


@lru_cache(maxsize=REMEMBERED)
def means(wanted_provider: str | None, wanted_model: str | None, provider: str, model: str) -> bool:
    """Whether a call's names are those that a limit names; None names any. Pure.

    Names are tidied as prices tidy them: case, a provider's other names (`xai` is `x-ai`), its own
    prefix (`openai/gpt-4o` at openai is `gpt-4o`), and the provider that a gateway puts in front of
    the model. Dates and versions stay: they are other models.
    """
    named = None if wanted_provider is None else provider_id(wanted_provider)
    for behind, name in spelled(provider, model, {}):
        if named is not None and named != behind:
            continue
        if wanted_model is None or any(
            name == other for _, other in spelled(behind, wanted_model, {})
        ):
            return True
    return False
