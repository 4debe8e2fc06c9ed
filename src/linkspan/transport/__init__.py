"""How calls reach another process: the direct path's client transport, channel and server.

connectrpc is the codec of the Connect protocol, uvicorn the HTTP server, pyqwest the client's request and response
types; none of their types leaves this package.
"""
