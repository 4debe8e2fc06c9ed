// A neighbour in Node, with official clients only: nats.js, the CloudEvents SDK and protobuf-es.
//
//   node neighbour.js publish MODE FILE.binpb   publishes one CartFilled; MODE is protobuf, json, structured or structured-protobuf
//   node neighbour.js consume FILE.binpb COUNT  prints COUNT events of the till, one JSON object a line
//
// FILE.binpb is the contract, as a FileDescriptorSet. The server comes from NATS_URL, NATS_USER, NATS_PASSWORD.
import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import { createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import { CloudEvent, HTTP } from "cloudevents";

const CART_FILLED = "neighbours.carts.v1.CartFilled";
const CHARGED = "neighbours.till.v1.Charged";

function schema(file, name) {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(file));
  return createFileRegistry(set).getMessage(name);
}

async function publish(connection, mode, file) {
  const cart = `cart-of-${mode}`;
  let data = { cartId: cart, cents: 1250, note: "from Node" };
  let datacontenttype = "application/json";
  if (mode.endsWith("protobuf")) {
    const filled = schema(file, CART_FILLED);
    data = toBinary(filled, fromJson(filled, data));
    datacontenttype = "application/protobuf";
  }
  const event = new CloudEvent({
    id: `node-${mode}`,
    source: "/node-neighbour",
    type: CART_FILLED,
    partitionkey: cart,
    correlationid: `walk-${mode}`,
    datacontenttype,
    data,
  });
  const written = mode.startsWith("structured") ? HTTP.structured(event) : HTTP.binary(event);
  const head = headers();
  for (const [name, value] of Object.entries(written.headers)) head.set(name, value);
  const subject = `neighbours.carts.v1.events.${crc32(cart) & 63}.CartFilled`;
  await jetstream(connection).publish(subject, written.body, { headers: head, msgID: event.id });
}

async function consume(connection, file, count) {
  const manager = await jetstreamManager(connection);
  await manager.consumers.add("neighbours_till_v1_events", {
    durable_name: "node-neighbour",
    ack_policy: AckPolicy.Explicit,
    filter_subject: "neighbours.till.v1.events.*.Charged",
  });
  const consumer = await jetstream(connection).consumers.get("neighbours_till_v1_events", "node-neighbour");
  const charged = schema(file, CHARGED);
  for (let taken = 0; taken < count; taken += 1) {
    const message = await consumer.next({ expires: 20_000 });
    if (message === null) throw new Error("no event came in time");
    const event = HTTP.toEvent({ headers: plain(message.headers), body: Buffer.from(message.data) });
    const { type, source, datacontenttype, partitionkey, correlationid } = event;
    const data = toJson(charged, fromBinary(charged, new Uint8Array(event.data)));
    console.log(JSON.stringify({ type, source, datacontenttype, partitionkey, correlationid, data }));
    await message.ackAck();
  }
}

// The NATS binding puts the content type beside the other attributes and percent-encodes all; the SDK reads HTTP's form.
function plain(received) {
  const found = {};
  for (const name of received.keys()) found[name.toLowerCase()] = decodeURIComponent(received.get(name));
  found["content-type"] = found["ce-datacontenttype"];
  return found;
}

const [verb, ...rest] = process.argv.slice(2);
const connection = await connect({
  servers: process.env.NATS_URL,
  user: process.env.NATS_USER,
  pass: process.env.NATS_PASSWORD,
});
try {
  if (verb === "publish") await publish(connection, ...rest);
  else if (verb === "consume") await consume(connection, rest[0], Number(rest[1]));
  else throw new Error(`unknown verb '${verb}'`);
} finally {
  await connection.close();
}
