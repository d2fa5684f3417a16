"""Every table, in one import: for migrations, the generated schema page and the tests."""

import app.access.tables
import app.alerts.tables
import app.db.changes
import app.db.lease
import app.ingest.foreign.tables
import app.ingest.otlp.tables
import app.ingest.tables
import app.limits.tables
import app.plans.tables
import app.pricing.tables
import app.retention.tables
import app.summaries.tables
import app.usage.tables  # noqa: F401
from app.db.types import Base

METADATA = Base.metadata
