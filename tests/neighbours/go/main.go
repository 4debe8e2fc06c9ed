// A neighbour in Go, with official clients only: nats.go, the CloudEvents SDK, protobuf and protovalidate.
//
//	neighbour publish MODE FILE.binpb   publishes one CartFilled; MODE is protobuf, json, structured or structured-protobuf
//	neighbour consume FILE.binpb COUNT  prints COUNT events of the till, one JSON object a line
//	neighbour validate FILE.binpb       reads CartFilled as ProtoJSON lines, prints the ids of the rules that each breaks
//
// FILE.binpb is the contract, as a FileDescriptorSet. The server comes from NATS_URL, NATS_USER, NATS_PASSWORD.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	cartFilled = "neighbours.carts.v1.CartFilled"
	charged    = "neighbours.till.v1.Charged"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("write: neighbour publish MODE FILE | consume FILE COUNT | validate FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "publish":
		err = publish(ctx, os.Args[2], os.Args[3])
	case "consume":
		err = consume(ctx, os.Args[2], os.Args[3])
	case "validate":
		err = validate(os.Args[2])
	default:
		err = fmt.Errorf("unknown verb %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func connect() (jetstream.JetStream, func(), error) {
	conn, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(conn)
	return js, conn.Close, err
}

func message(file, name string) (*dynamicpb.Message, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, err
	}
	return find(files, name)
}

func find(files *protoregistry.Files, name string) (*dynamicpb.Message, error) {
	found, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, err
	}
	return dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor)), nil
}

// publish builds the event with the CloudEvents SDK and writes it by the NATS binding.
func publish(ctx context.Context, mode, file string) error {
	js, done, err := connect()
	if err != nil {
		return err
	}
	defer done()
	cart := "cart für " + mode
	event := cloudevents.NewEvent()
	event.SetID("go-" + mode)
	event.SetSource("/go neighbour")
	event.SetType(cartFilled)
	event.SetTime(time.Now())
	event.SetExtension("partitionkey", cart)
	event.SetExtension("correlationid", "walk-"+mode)
	fields := map[string]any{"cartId": cart, "cents": 1250, "note": "from Go"}
	if strings.HasSuffix(mode, "protobuf") {
		filled, err := message(file, cartFilled)
		if err != nil {
			return err
		}
		text, _ := json.Marshal(fields)
		if err := protojson.Unmarshal(text, filled); err != nil {
			return err
		}
		data, err := proto.Marshal(filled)
		if err != nil {
			return err
		}
		if err := event.SetData("application/protobuf", data); err != nil {
			return err
		}
	} else if err := event.SetData(cloudevents.ApplicationJSON, fields); err != nil {
		return err
	}
	if err := event.Validate(); err != nil {
		return err
	}
	msg, err := written(event, strings.HasPrefix(mode, "structured"))
	if err != nil {
		return err
	}
	msg.Subject = fmt.Sprintf("neighbours.carts.v1.events.%d.CartFilled", crc32.ChecksumIEEE([]byte(cart))&63)
	_, err = js.PublishMsg(ctx, msg, jetstream.WithMsgID(event.ID()))
	return err
}

func written(event cloudevents.Event, structured bool) (*nats.Msg, error) {
	msg := &nats.Msg{Header: nats.Header{}}
	if structured {
		body, err := json.Marshal(event)
		msg.Data = body
		msg.Header["content-type"] = []string{cloudevents.ApplicationCloudEventsJSON}
		return msg, err
	}
	attributes := map[string]any{
		"specversion": event.SpecVersion(), "id": event.ID(), "source": event.Source(), "type": event.Type(),
		"datacontenttype": event.DataContentType(), "time": event.Time(),
	}
	for name, value := range event.Extensions() {
		attributes[name] = value
	}
	for name, value := range attributes {
		text, err := types.Format(value)
		if err != nil {
			return nil, err
		}
		msg.Header["ce-"+name] = []string{strings.ReplaceAll(url.PathEscape(text), "%2F", "/")}
	}
	msg.Data = event.Data()
	return msg, nil
}

// consume reads the till's events with a durable consumer of its own and prints what the CloudEvents SDK and protobuf make of them.
func consume(ctx context.Context, file, number string) error {
	count, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	js, done, err := connect()
	if err != nil {
		return err
	}
	defer done()
	consumer, err := js.CreateOrUpdateConsumer(ctx, "neighbours_till_v1_events", jetstream.ConsumerConfig{
		Durable: "go-neighbour", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "neighbours.till.v1.events.*.Charged",
	})
	if err != nil {
		return err
	}
	for range count {
		msg, err := consumer.Next(jetstream.FetchMaxWait(20 * time.Second))
		if err != nil {
			return err
		}
		if err := show(file, msg); err != nil {
			return err
		}
		if err := msg.DoubleAck(ctx); err != nil {
			return err
		}
	}
	return nil
}

func show(file string, msg jetstream.Msg) error {
	event := cloudevents.NewEvent()
	for name, values := range msg.Headers() {
		value, err := url.PathUnescape(values[0])
		if err != nil {
			return err
		}
		switch attribute, ours := strings.CutPrefix(name, "ce-"); {
		case !ours || attribute == "specversion":
		case attribute == "id":
			event.SetID(value)
		case attribute == "source":
			event.SetSource(value)
		case attribute == "type":
			event.SetType(value)
		case attribute == "datacontenttype":
			event.SetDataContentType(value)
		case attribute == "time":
			at, err := types.ParseTime(value)
			if err != nil {
				return err
			}
			event.SetTime(at)
		default:
			event.SetExtension(attribute, value)
		}
	}
	if err := event.Validate(); err != nil {
		return err
	}
	receipt, err := message(file, charged)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(msg.Data(), receipt); err != nil {
		return err
	}
	data, err := protojson.Marshal(receipt)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"type": event.Type(), "source": event.Source(), "datacontenttype": event.DataContentType(),
		"partitionkey": event.Extensions()["partitionkey"], "correlationid": event.Extensions()["correlationid"],
		"data": json.RawMessage(data),
	})
}

// validate holds messages to the rules that stand in the contract.
func validate(file string) error {
	validator, err := protovalidate.New()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		filled, err := message(file, cartFilled)
		if err != nil {
			return err
		}
		if err := protojson.Unmarshal(lines.Bytes(), filled); err != nil {
			return err
		}
		ids := []string{}
		var broken *protovalidate.ValidationError
		if err := validator.Validate(filled); errors.As(err, &broken) {
			for _, violation := range broken.Violations {
				ids = append(ids, violation.Proto.GetRuleId())
			}
		} else if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(ids); err != nil {
			return err
		}
	}
	return lines.Err()
}
