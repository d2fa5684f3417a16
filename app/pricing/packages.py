"""The price list that comes with this version of the code. Nothing that serves imports this."""

from app.pricing.extract import read_extract
from app.pricing.genai import read_genai
from app.pricing.modalities import with_modalities
from app.pricing.overlay import read_overlay
from app.pricing.rows import PriceList


def read_packages() -> PriceList:
    """The overlay, the listed prices and the extract, best first."""
    providers, listed = read_genai()
    listings = (*read_overlay(), *listed, *read_extract())
    return PriceList("", tuple(providers), tuple(with_modalities(listings)))
