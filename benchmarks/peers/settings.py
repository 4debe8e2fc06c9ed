"""The peers' settings in words, printed beside their figures; each is written again where it is used."""

CONSUMER = (
    "FastStream 0.7: typed pydantic handler, default middleware, AckPolicy.NACK_ON_ERROR, durable, logger off, uvloop; "
    "push (max_ack_pending 10,000) and pull (batches of 256), the better one counts"
)
PUBLISHER = "FastStream 0.7: broker.publish(pydantic model, stream=...), awaits the PubAck, default middleware, logger off, uvloop"
GRPC = "grpcio.aio 1.85 both ends, one channel, upb messages, 5 s timeout, 2 metadata entries (traceparent, key), uvloop (dearer without)"
BARE = "connectrpc's own server application on uvicorn, or its own client over the same transport: no middleware, deadline or trace"
JSON = "pyqwest to FastAPI on uvicorn with httptools: POST of the event as JSON, kept-alive, a one-field answer; headers counted"
KAFKA = (
    "FastStream 0.7 (confluent): typed pydantic handler of one message, default middleware, logger off, uvloop, one member; "
    "AckPolicy.ACK_FIRST (librdkafka commits every 5 s) and NACK_ON_ERROR (a commit after each message), the better one counts"
)
ASYNCPG_WRITER = (
    "asyncpg 0.32 by hand: pool of 16, prepared statements, no reset query; begin, the order, one statement for the key's counter and the "
    "outbox row, commit; the same columns, headers and payload as ours, and the same order per key; uvloop"
)
ASYNCPG_CONSUMER = (
    "nats-py 2.16 and asyncpg 0.32 by hand: pull consumer (fetches of 256), a key always on the same of 16 workers; begin, inbox id, "
    "effect, commit, ack; or one statement for a whole fetch; no fences, gaps, retries or dead letters; uvloop"
)
