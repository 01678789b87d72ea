"""moto's server, with DynamoDB's promise that a conditional write is one act.

moto's threads compare first and write then, so that of two who meet both may win, or one gets an error 500.
``python moto_server.py PORT`` has requests to DynamoDB wait for each other; SQS may be waited on meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def atomic(app: Application) -> Application:
    """The same application, with one request to DynamoDB at a time."""
    one_at_a_time = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB"):
            return app(environ, start_response)
        with one_at_a_time:
            return list(app(environ, start_response))

    return answer


if __name__ == "__main__":
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        atomic(DomainDispatcherApplication(create_backend_app)),  # type: ignore[arg-type]
        threaded=True,
        request_handler=MotoRequestHandler,
    )
