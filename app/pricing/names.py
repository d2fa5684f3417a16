"""How people spell providers and models, and which spellings mean the same. Never a near miss.

Candidates are tried in order, as written first. A candidate is `sure` when it only drops what
carries no price: a provider's own prefix, a path, a date. Dropping what may carry one (a region, a
fine-tune's parent) is a guess, and the quote says `estimated`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

LONGEST_NAME = 512
AS_WRITTEN, DATE_DROPPED = "exact name", "date dropped"

PROVIDER_ALIASES: Mapping[str, str] = {
    "ai21labs": "ai21",
    "alibaba": "dashscope",
    "alibaba-cloud": "dashscope",
    "aliyun": "dashscope",
    "amazon": "aws",
    "amazon-bedrock": "aws",
    "anthropic-bedrock": "aws",
    "assembly-ai": "assemblyai",
    "aws-bedrock": "aws",
    "aws-bedrock-converse": "aws",
    "bedrock": "aws",
    "bedrock-anthropic": "aws",
    "bedrock-converse": "aws",
    "az-ai-inference": "azure",
    "az-ai-openai": "azure",
    "azure-ai": "azure",
    "azure-ai-foundry": "azure",
    "azure-ai-inference": "azure",
    "azure-ai-openai": "azure",
    "azure-openai": "azure",
    "azure-text": "azure",
    "bfl": "black-forest-labs",
    "bytedance": "volcengine",
    "claude": "anthropic",
    "codestral": "mistral",
    "cloudflare-workers-ai": "cloudflare",
    "cohere-chat": "cohere",
    "cohereai": "cohere",
    "copilot": "github-copilot",
    "eleven-labs": "elevenlabs",
    "exa-ai": "exa",
    "fal": "fal-ai",
    "fireworks-ai": "fireworks",
    "gcp-gemini": "google",
    "gcp-gen-ai": "google",
    "gcp-vertex-ai": "google",
    "gemini": "google",
    "google-ai": "google",
    "google-ai-studio": "google",
    "google-genai": "google",
    "google-generative-ai": "google",
    "google-generativeai": "google",
    "google-gla": "google",
    "google-serper": "serper",
    "google-vertex": "google",
    "google-vertex-ai": "google",
    "google-vertexai": "google",
    "googleai": "google",
    "grok": "x-ai",
    "hf": "huggingface",
    "hugging-face": "huggingface",
    "ibm": "watsonx",
    "ibm-watsonx": "watsonx",
    "ibm-watsonx-ai": "watsonx",
    "jina": "jina-ai",
    "kimi": "moonshotai",
    "lambda": "lambda-ai",
    "lambda-labs": "lambda-ai",
    "lambdaai": "lambda-ai",
    "meta-llama-api": "meta",
    "microsoft-foundry": "azure",
    "mistral-ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshot-ai": "moonshotai",
    "nebius-ai": "nebius",
    "novita-ai": "novita",
    "open-ai": "openai",
    "open-router": "openrouter",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "oracle": "oci",
    "ovh": "ovhcloud",
    "parallel": "parallel-ai",
    "perplexity-ai": "perplexity",
    "pplx": "perplexity",
    "qwen": "dashscope",
    "runway": "runwayml",
    "serper-dev": "serper",
    "stability-ai": "stability",
    "stabilityai": "stability",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
    "together-ai": "together",
    "togetherai": "together",
    "togethercomputer": "together",
    "vercel": "vercel-ai-gateway",
    "vertex": "google",
    "vertex-ai": "google",
    "vertex-ai-beta": "google",
    "vertex-anthropic": "google",
    "vertexai": "google",
    "voyage": "voyageai",
    "voyage-ai": "voyageai",
    "workers-ai": "cloudflare",
    "xai": "x-ai",
    "z-ai": "zai",
    "zhipu": "zhipuai",
}
GATEWAYS = frozenset(
    {"", "litellm", "litellm-proxy", "gateway", "proxy", "portkey", "helicone", "unknown"}
)
"""Names of whatever passed the call on; the model's prefix names the provider."""

_API = re.compile(r"\.(?:chat|completions?|embedding|image|messages|responses)$")
"""The kind of call, which some clients put behind the provider: `openai.responses`."""
_FAMILY = re.compile(r"^(fireworks|vertex)-ai-[\w-]+-models$")
"""Some of a provider's models, as one gateway labels them: `vertex_ai-mistral_models`."""
_DATE = r"-(?:20\d{6}|20\d\d-\d\d-\d\d|latest|\d{3})"
_SUFFIX = re.compile(rf"(?:(?:{_DATE})|@[\w.-]+|-v\d+(?=:|$)|:\d+k?)+$")
_DATED = re.compile(r"(?:-latest|-20\d{6}|-20\d\d-\d\d-\d\d|@[\w.-]+)$")
_COMPACT = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_PATH = re.compile(
    r"^(?:projects/[^/]+/)?(?:locations/[^/]+/)?(?:publishers/[^/]+/)?(?:models|tunedmodels)/"
)
_ARN = re.compile(r"^arn:aws[\w-]*:bedrock:[^/]*/(.+)$")
_REGION = re.compile(
    r"^(?:us-gov|us|eu|apac|ap|au|jp|in|ca|sa|me|af|mx|global)\.(?=[\w-]+\.)|^[a-z]{2}(?:-gov)?-[a-z]+-\d/"
)
_ROUTING = re.compile(r":(?:exacto|floor|nitro|online)$")
_VENDORED = re.compile(rf"(?:{_REGION.pattern})?(?:[a-z0-9-]+[./])?")


class Candidate(NamedTuple):
    """A spelling to look up, how it came about, and whether that could change the price."""

    provider: str
    model: str
    rule: str
    sure: bool


def provider_id(name: str | None) -> str:
    """The catalogue's id of a provider; unknown ones stay as they are, only tidied."""
    told = (name or "").strip().lower()
    plain = re.sub(r"[ ._]+", "-", _API.sub("", told))
    plain = _FAMILY.sub(r"\1-ai", plain)
    plain = PROVIDER_ALIASES.get(plain, plain)
    return plain.replace("huggingface-", "huggingface_", 1)


def candidates(
    provider: str | None,
    model: str,
    known: Callable[[str], bool],
    lends: Mapping[str, Sequence[str]],
) -> Iterator[Candidate]:
    """Spellings to look up, best first.

    `known` tells the providers of the catalogue; `lends` names those whose models another serves.
    """
    name = model.strip().lower()
    named = provider_id(provider)
    if not name or len(name) > LONGEST_NAME:
        return
    if named in GATEWAYS:
        prefix, mark, rest = _split_provider(name)
        if not mark or (not known(provider_id(prefix)) and provider_id(prefix) != "huggingface"):
            return
        named, name = provider_id(prefix), rest
    if named == "huggingface":
        yield from _routed(_without_own_prefix("huggingface", name, lends), known)
    yield from _spellings(named, name, lends)


def spelled(
    provider: str | None, model: str | None, lends: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """(Provider, name) as an operator may state them: as written, and without the own prefix.

    Nothing that may carry a price is dropped. No model is the empty name, and a gateway's provider
    is also the one in front of the model.
    """
    name, named = (model or "").strip().lower(), provider_id(provider)
    pairs = {(named, name): None}
    if name:
        pairs[named, _without_own_prefix(named, name, lends)] = None
    if named in GATEWAYS:
        prefix, mark, rest = _split_provider(name)
        if mark:
            behind = provider_id(prefix)
            pairs[behind, rest] = None
            pairs[behind, _without_own_prefix(behind, rest, lends)] = None
    return list(pairs)


def _routed(name: str, known: Callable[[str], bool]) -> Iterator[Candidate]:
    """Hugging Face's router names the provider that answers behind the last colon."""
    model, mark, target = name.rpartition(":")
    if not mark:
        return
    for host in (f"huggingface_{target}", provider_id(target)):
        if known(host):
            yield Candidate(host, model, "router suffix", True)


def _spellings(provider: str, name: str, lends: Mapping[str, Sequence[str]]) -> Iterator[Candidate]:
    yield Candidate(provider, name, AS_WRITTEN, True)
    bare, rule, sure = name, AS_WRITTEN, True
    for shorter in _without_own_prefixes(provider, name, lends):
        bare, rule = shorter, "provider prefix"
        yield Candidate(provider, bare, rule, sure)
    yield from _date_spelled_out(provider, bare, "date spelled out", sure)
    for step, told, safe in (
        (_without_date, DATE_DROPPED, True),
        (_with_a_point, "version with its point", False),
        (_without_region, "region prefix", False),
        (_without_routing, "routing suffix", False),
        (_without_tuning, "fine-tune of", False),
    ):
        shorter = step(bare)
        if shorter and shorter != bare:
            bare, rule, sure = shorter, told, sure and safe
            yield Candidate(provider, bare, rule, sure)
            yield from _date_spelled_out(provider, bare, rule, sure)


def _date_spelled_out(provider: str, name: str, rule: str, sure: bool) -> Iterator[Candidate]:
    """A name with dashes in its date; only beside the name, for most dates are listed compact."""
    longer = _COMPACT.sub(r"-\1-\2-\3", name)
    if longer != name:
        yield Candidate(provider, longer, rule, sure)


def _split_provider(name: str) -> tuple[str, str, str]:
    """Cut at the first `/` or `:` that ends a provider's name."""
    cut = re.match(r"([\w .-]+)([/:])(.+)$", name)
    return (cut[1], cut[2], cut[3]) if cut else ("", "", name)


def _without_own_prefix(provider: str, name: str, lends: Mapping[str, Sequence[str]]) -> str:
    """Drop paths, ARNs and the provider's own name, as often as they are stacked up."""
    return [name, *_without_own_prefixes(provider, name, lends)][-1]


def _without_own_prefixes(
    provider: str, name: str, lends: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """A name without its first such prefix, without the second, and so on."""
    own = {provider, *lends.get(provider, ())}
    while True:
        arn = _ARN.match(name)
        shorter = arn[1] if arn else _PATH.sub("", name)
        prefix, mark, rest = _split_provider(shorter)
        if mark and provider_id(prefix) in own:
            shorter = rest
        if shorter == name or not shorter:
            return
        name = shorter
        yield name


def _with_a_point(name: str) -> str:
    """Azure's resource names allow no point: its `gpt-35-turbo-1106` is `gpt-3.5-turbo-1106`."""
    return re.sub(r"^gpt-35-", "gpt-3.5-", name)


def _without_date(name: str) -> str:
    return _DATED.sub("", name)


def _without_region(name: str) -> str:
    return _REGION.sub("", name)


def _without_routing(name: str) -> str:
    """Drop how OpenRouter is to choose a host, which may cost more; `:free` is another model."""
    return _ROUTING.sub("", name)


def _without_tuning(name: str) -> str:
    return name.split(":")[1] if name.startswith("ft:") else name


def is_exact(name: str, start: int, end: int, literal_tuned: bool = False) -> bool:
    """Whether a pattern that matched `name[start:end]` left over only what carries no price.

    In front that is a region or a vendor, behind a date, a version or a digest.
    """
    if literal_tuned:
        return True
    stem = _SUFFIX.sub("", name)
    return len(stem) <= end and _VENDORED.fullmatch(name[:start]) is not None
