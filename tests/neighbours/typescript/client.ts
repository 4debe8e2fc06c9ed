// A client of the service in orders_v1.py: the generated code, Connect's official library, and nothing of ours.
//
//   node built/client.js PROTOCOL ADDRESS VERB
//
// PROTOCOL is connect, connect-json, connect-get, grpc-web or grpc. It prints what it got, one JSON object a line.
import { create, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { ViolationsSchema } from "./gen/buf/validate/validate_pb.js";
import { LineSchema, type Order, Orders, OrderSchema, OutOfStockSchema, Status } from "./gen/neighbours/orders/v1/orders_pb.js";

const [protocol, address, verb] = process.argv.slice(2);

function transport(): Transport {
  const to = { baseUrl: address, httpVersion: "1.1" } as const;
  switch (protocol) {
    case "connect":
      return createConnectTransport(to);
    case "connect-json":
      return createConnectTransport({ ...to, useBinaryFormat: false });
    case "connect-get":
      return createConnectTransport({ ...to, useHttpGet: true });
    case "grpc-web":
      return createGrpcWebTransport(to);
    case "grpc":
      return createGrpcTransport({ baseUrl: address.replace("grpc://", "http://") });
    default:
      throw new Error(`unknown protocol '${protocol}'`);
  }
}

const orders = createClient(Orders, transport());

function print(shown: unknown): void {
  console.log(JSON.stringify(shown));
}

function printOrder(order: Order): void {
  print(toJson(OrderSchema, order));
}

async function* lines(...quantities: number[]) {
  for (const quantity of quantities) yield create(LineSchema, { sku: "tea", quantity });
}

async function printRefusal(call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
  } catch (failure) {
    const error = ConnectError.from(failure);
    print({
      code: Code[error.code],
      message: error.rawMessage,
      outOfStock: error.findDetails(OutOfStockSchema).map((detail) => toJson(OutOfStockSchema, detail)),
      rules: error.findDetails(ViolationsSchema).flatMap((found) => found.violations.map((violation) => violation.ruleId)),
    });
    return;
  }
  throw new Error("the call was not refused");
}

const verbs: Record<string, () => Promise<void>> = {
  async find() {
    const order = await orders.find({ orderId: "7-ü" });
    printOrder(order);
    const card: string | undefined = order.paid.case === "card" ? order.paid.value : undefined;
    print({ twice: String(order.cents * 2n), paid: order.status === Status.PAID, card, seal: order.seal.length });
  },
  async place() {
    const headers = { "Idempotency-Key": `order-${protocol}` };
    const request = { orderId: "8", lines: [{ sku: "tea", quantity: 2 }], cents: 9007199254740993n };
    printOrder(await orders.place(request, { headers }));
  },
  async refused() {
    await printRefusal(() => orders.find({ orderId: "gone" }));
  },
  async broken() {
    await printRefusal(() => orders.place({ orderId: "", cents: 0n }));
  },
  async deadline() {
    await printRefusal(() => orders.find({ orderId: "wait" }, { timeoutMs: 400 }));
  },
  async watch() {
    for await (const order of orders.watch({ orderId: "3" })) printOrder(order);
  },
  async watchRefused() {
    await printRefusal(async () => {
      for await (const order of orders.watch({ orderId: "gone" })) printOrder(order);
    });
  },
  async watchLeft() {
    const leaving = new AbortController();
    await printRefusal(async () => {
      for await (const order of orders.watch({ orderId: "wait" }, { signal: leaving.signal })) {
        printOrder(order);
        leaving.abort();
      }
    });
  },
  async total() {
    print(toJson(LineSchema, await orders.total(lines(1, 2, 3))));
  },
  async price() {
    for await (const line of orders.price(lines(1, 2, 3))) print(toJson(LineSchema, line));
  },
};

await verbs[verb]();
