package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostDepth is how deep what a caller sends may nest: no message of ours comes near it, and the decoders' own bound is a hundred times as deep.
const mostDepth = 100

// errTooDeep tells the caller, whose fault it is.
var errTooDeep = fmt.Errorf("it nests deeper than %d levels", mostDepth)

// codecs are Connect's, but for how deep they follow what a caller nests.
func codecs() connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithCodec(binaryCodec{}), connect.WithCodec(jsonCodec{"json"}), connect.WithCodec(jsonCodec{"json; charset=utf-8"}))
}

func asProto(message any) (proto.Message, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message of protobuf", message)
	}
	return m, nil
}

type binaryCodec struct{}

// Name is part of the content type.
func (binaryCodec) Name() string { return "proto" }

// IsBinary says that it isn't text.
func (binaryCodec) IsBinary() bool { return true }

// Marshal a message.
func (c binaryCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend appends a message.
func (binaryCodec) MarshalAppend(to []byte, message any) ([]byte, error) {
	m, err := asProto(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(to, m)
}

// MarshalStable marshals with fields in one order.
func (binaryCodec) MarshalStable(message any) ([]byte, error) {
	m, err := asProto(message)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal a message. Fields that it does not know stay with it, and are bounded too.
func (binaryCodec) Unmarshal(data []byte, message any) error {
	m, err := asProto(message)
	if err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: mostDepth}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("unmarshal into %T: %w", message, err)
	}
	// A group takes two octets or more: what is shorter can't nest too deep.
	if len(data) > 2*mostDepth && deepUnknown(m.ProtoReflect()) {
		return fmt.Errorf("unmarshal into %T: %w", message, errTooDeep)
	}
	return nil
}

// deepUnknown says whether groups nest too deep in fields that a message, or one in it, does not know. The decoder skips those, to a bound of
// its own.
func deepUnknown(m protoreflect.Message) (deep bool) {
	if tooDeep(m.GetUnknown()) {
		return true
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					deep = deepUnknown(v.Message())
					return !deep
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := 0; i < v.List().Len() && !deep; i++ {
				deep = deepUnknown(v.List().Get(i).Message())
			}
		default:
			deep = deepUnknown(v.Message())
		}
		return !deep
	})
	return deep
}

// tooDeep reads fields in the wire's form (https://protobuf.dev/programming-guides/encoding), which the decoder found to be well formed.
func tooDeep(fields []byte) bool {
	for depth := 0; len(fields) > 0; {
		number, kind, n := protowire.ConsumeTag(fields)
		if n < 0 {
			return true
		}
		fields = fields[n:]
		switch kind {
		case protowire.StartGroupType:
			if depth++; depth > mostDepth {
				return true
			}
		case protowire.EndGroupType:
			depth--
		default:
			if n = protowire.ConsumeFieldValue(number, kind, fields); n < 0 {
				return true
			}
			fields = fields[n:]
		}
	}
	return false
}

type jsonCodec struct{ name string }

// Name is part of the content type.
func (c jsonCodec) Name() string { return c.name }

// IsBinary says that it is text.
func (jsonCodec) IsBinary() bool { return false }

// Marshal a message.
func (c jsonCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend appends a message.
func (jsonCodec) MarshalAppend(to []byte, message any) ([]byte, error) {
	m, err := asProto(message)
	if err != nil {
		return nil, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(to, m)
}

// MarshalStable marshals without the spaces that differ from time to time.
func (c jsonCodec) MarshalStable(message any) ([]byte, error) {
	text, err := c.Marshal(message)
	if err != nil {
		return nil, err
	}
	compact := bytes.NewBuffer(make([]byte, 0, len(text)))
	err = json.Compact(compact, text)
	return compact.Bytes(), err
}

// Unmarshal a message. Fields that it does not know are left out, for callers may be of a later release, and are bounded too.
func (jsonCodec) Unmarshal(text []byte, message any) error {
	m, err := asProto(message)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return errors.New("zero-length payload is not a valid JSON object")
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: mostDepth}).Unmarshal(text, m); err != nil {
		return fmt.Errorf("unmarshal into %T: %w", message, err)
	}
	return nil
}
