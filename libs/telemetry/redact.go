package telemetry

import (
	"fmt"
	"log/slog"
	"reflect"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/redact"
)

// replace writes messages without their secrets. What holds messages somewhere inside is named instead of written: the handler
// would write it as encoding/json does, which knows nothing of secret fields.
func replace(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	value := a.Value.Any()
	m, ok := value.(proto.Message)
	if !ok {
		if _, text := value.(error); !text && holdsMessage(reflect.ValueOf(value), 0) {
			return slog.String(a.Key, fmt.Sprintf("a %T, which holds messages: log each as an attribute of its own", value))
		}
		return a
	}
	if !m.ProtoReflect().IsValid() {
		return a
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(redact.Clear(m))
	if err != nil {
		return slog.String(a.Key, "unreadable "+string(m.ProtoReflect().Descriptor().FullName()))
	}
	return slog.String(a.Key, string(raw))
}

var messageType = reflect.TypeFor[proto.Message]()

// holdsMessage says whether a message can be reached from v as encoding/json reaches it, or v is too deep to say.
func holdsMessage(v reflect.Value, depth int) bool {
	const deepest = 16
	if !v.IsValid() {
		return false
	}
	if v.Type().Implements(messageType) || reflect.PointerTo(v.Type()).Implements(messageType) || depth > deepest {
		return true
	}
	switch v.Kind() { //nolint:exhaustive // the others hold nothing
	case reflect.Pointer, reflect.Interface:
		return holdsMessage(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); k <= reflect.Complex128 || k == reflect.String {
			return false // bytes, numbers and texts, however many
		}
		for i := range v.Len() {
			if holdsMessage(v.Index(i), depth+1) {
				return true
			}
		}
	case reflect.Map:
		for _, e := range v.Seq2() {
			if holdsMessage(e, depth+1) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && holdsMessage(v.Field(i), depth+1) {
				return true
			}
		}
	}
	return false
}
