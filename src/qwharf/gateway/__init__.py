"""The gateway: OpenAI's API over every deployment.

A request comes in at :mod:`app`, is refused or let in by :mod:`guard`, read by :mod:`body`,
understood by the dialect (:mod:`openai`), routed by :mod:`router`, written in the engine's own
dialect by the module of its engine (:mod:`engines`), and forwarded by :mod:`proxy`.
"""
