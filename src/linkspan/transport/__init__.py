"""How calls reach another process: the direct path's client transport, channel and server.

Plain unary calls are our own at both ends; uvicorn is the HTTP server, connectrpc the codec of the Connect protocol for all
the rest. None of their types leaves this package.
"""
