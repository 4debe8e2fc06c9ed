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
