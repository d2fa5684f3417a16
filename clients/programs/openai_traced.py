"""OpenAI's client under one of three instrumentations; the argument says which."""

import sys

from calls import make_calls
from tracing import request_of, traced

with traced() as provider:
    if sys.argv[1] == "openai-v2":
        from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(tracer_provider=provider)
        make_calls(request_of)
    elif sys.argv[1] == "traceloop":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(tracer_provider=provider)
        make_calls(request_of)
    else:
        from openinference.instrumentation import using_user
        from openinference.instrumentation.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(tracer_provider=provider)
        make_calls(using_user)
