"""What was charged, and since when: rows are added and never changed.

A version of the catalogue is a list of models; each names the price entries that it consists of. An
entry that a newer version does not change is the same row in both. A price that an operator states
is an entry of no version.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


class CatalogVersion(Base):
    """One price list as it was imported; `sha256` is of what the list itself said."""

    __tablename__ = "catalog_versions"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    sources: Mapped[str]
    sha256: Mapped[str]
    providers: Mapped[dict[str, Any]]
    imported_at: Mapped[datetime]
    created_by: Mapped[str]


class CatalogActivation(Base):
    """From here on a version is the one that prices are asked of; the newest row has the word."""

    __tablename__ = "catalog_activations"
    __table_args__ = (table_options("reference", clustered=True),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version_id: Mapped[str] = mapped_column(ForeignKey("catalog_versions.id"))
    activated_at: Mapped[datetime]
    created_by: Mapped[str]


class CatalogListing(Base):
    """A model in a version: how it is spelled, and its price entries in their order.

    `content` has `names`, `patterns`, `entries`, and in `closed` the instants at which entries
    ended because a newer list said something else.
    """

    __tablename__ = "catalog_listings"
    __table_args__ = (table_options("reference"),)

    version_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    layer: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    name: Mapped[str]
    adds: Mapped[bool]
    content: Mapped[dict[str, Any]]


class PriceEntry(Base):
    """Rates with the time and the conditions that they hold for; the rates are beside it.

    `version_id` is the version that brought it, null for a price that an operator states: then
    `matching` says how `model` is meant, and `user_id` or `team_id` whom it is for.
    """

    __tablename__ = "price_entries"
    __table_args__ = (
        Index(None, "version_id"),
        table_options("reference"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str | None]
    layer: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    matching: Mapped[str]
    user_id: Mapped[str | None]
    team_id: Mapped[str | None]
    conditions: Mapped[dict[str, str] | None]
    effective_from: Mapped[datetime | None]
    effective_to: Mapped[datetime | None]
    weekdays: Mapped[str | None]
    windows: Mapped[str | None]
    multiplier_ppm: Mapped[int]
    min_charge_nanos: Mapped[Nanos]
    least: Mapped[dict[str, Any] | None]
    is_default: Mapped[bool]
    source: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class PriceRate(Base):
    """What a block of `per` units costs, for calls beyond `above` (-1: every call).

    `position` keeps the order of an entry's rates and, within one, of its tiers.
    """

    __tablename__ = "price_rates"
    __table_args__ = (table_options("reference"),)

    entry_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    unit: Mapped[str]
    per: Mapped[int]
    above: Mapped[int]
    graduated: Mapped[bool]
    rate_nanos: Mapped[Nanos]


class PriceRetirement(Base):
    """A stated price or a model alias that applies no longer; what it was used for stays."""

    __tablename__ = "price_retirements"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    retired_at: Mapped[datetime]
    created_by: Mapped[str]


class ModelAlias(Base):
    """An operator's name for a model; without `model`, the provider's default model."""

    __tablename__ = "model_aliases"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str]
    model: Mapped[str | None]
    resolves_to: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
