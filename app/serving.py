"""Run the server: one process with the price list it is given, or several that read their own."""

import os
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn

from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.pricing.rows import PriceList
from app.runtime import build
from app.settings import Settings
from app.web.server import DoorProtocol, DoorServer
from app.web.workers import ANSWERS_WITHIN_S, DoorWorkers


def run(settings: Settings, price_list: PriceList) -> None:
    """Serve until told to stop."""
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": DoorProtocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 8,
        "timeout_keep_alive": 75,
        "timeout_worker_healthcheck": ANSWERS_WITHIN_S,
        "backlog": 2048,
    }
    if settings.workers == 1:
        runtime = build(settings, catalog=Catalog(price_list))
        DoorServer(uvicorn.Config(create_asgi(runtime), **options)).run()
        return
    os.environ["TOLLGATE_DATABASE_URL"] = settings.database_url
    config = uvicorn.Config("app.main:serve", factory=True, workers=settings.workers, **options)
    with TemporaryDirectory(prefix="tollgate-metrics-") as folder:  # nobody else may look into it
        os.environ["TOLLGATE_METRICS_FOLDER"] = settings.metrics_folder or folder
        DoorWorkers(config, sockets=[config.bind_socket()]).run()
