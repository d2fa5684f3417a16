"""An ordinary FastAPI request as the lean handlers take it, and their answer as a response."""

from fastapi import Request, Response

from app.web.lean import Handler, LeanRequest, headers_from


def lean(request: Request) -> LeanRequest:
    """The request as the lean handlers take it; its body is still unread."""
    headers = headers_from(request.scope["headers"])
    query = request.scope["query_string"].decode("latin-1")
    return LeanRequest(headers, query, request.receive, None, request.scope["path"])


async def delegate(request: Request, handler: Handler) -> Response:
    """Let the lean handler answer; what it raises is answered by the application's handlers."""
    found = await handler(lean(request))
    response = Response(found.body, found.status, media_type="application/json")
    for name, value in found.headers:
        response.headers[name.decode()] = value.decode("latin-1")
    return response
