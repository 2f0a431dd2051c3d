package rpc

import (
	"bytes"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
)

// What nests up to the bound is read, and what nests deeper is refused, be it known or not, at the outside or within, and in every form.
func TestNestingIsBounded(t *testing.T) {
	groups := func(depth int) []byte {
		return append(bytes.Repeat(protowire.AppendTag(nil, 1000, protowire.StartGroupType), depth), bytes.Repeat(protowire.AppendTag(nil, 1000, protowire.EndGroupType), depth)...)
	}
	within := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	lists := func(depth int) []byte {
		v := structpb.NewNullValue()
		for range depth {
			v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
		}
		b, err := proto.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	text := func(open, end string) func(int) []byte {
		return func(depth int) []byte {
			return []byte(`{"nobody":` + strings.Repeat(open, depth) + "1" + strings.Repeat(end, depth) + "}")
		}
	}
	json := jsonCodec{"json"}
	for name, c := range map[string]struct {
		codec connect.Codec
		into  func() proto.Message
		of    func(depth int) []byte
	}{
		"groups":           {codec: binaryCodec{}, into: func() proto.Message { return &authzv1.Rule{} }, of: groups},
		"groups in a map":  {codec: binaryCodec{}, into: func() proto.Message { return &structpb.Struct{} }, of: func(d int) []byte { return within(1, within(2, groups(d))) }},
		"groups in a list": {codec: binaryCodec{}, into: func() proto.Message { return &structpb.ListValue{} }, of: func(d int) []byte { return within(1, groups(d)) }},
		"groups in a part": {codec: binaryCodec{}, into: func() proto.Message { return &structpb.Value{} }, of: func(d int) []byte { return within(5, groups(d)) }},
		"messages":         {codec: binaryCodec{}, into: func() proto.Message { return &structpb.Value{} }, of: func(d int) []byte { return lists(d/2 - 2) }},
		"objects":          {codec: json, into: func() proto.Message { return &authzv1.Rule{} }, of: text(`{"a":`, "}")},
		"arrays":           {codec: json, into: func() proto.Message { return &authzv1.Rule{} }, of: text("[", "]")},
	} {
		const some = 10
		if err := c.codec.Unmarshal(c.of(mostDepth-some), c.into()); err != nil {
			t.Errorf("%s, %d deep: %v", name, mostDepth-some, err)
		}
		for _, depth := range []int{mostDepth + some, 10_000, 100_000} {
			if err := c.codec.Unmarshal(c.of(depth), c.into()); err == nil {
				t.Errorf("%s, %d deep: it was read", name, depth)
			}
		}
	}
}

// The codecs write and read what protobuf's own do.
func TestCodecsAreProtobufs(t *testing.T) {
	m := &authzv1.Rule{Permission: "graph.read", Workloads: []string{"a", "b"}}
	for _, c := range []interface {
		connect.Codec
		MarshalStable(any) ([]byte, error)
		MarshalAppend([]byte, any) ([]byte, error)
		IsBinary() bool
	}{binaryCodec{}, jsonCodec{"json"}} {
		for what, marshal := range map[string]func() ([]byte, error){
			"Marshal":       func() ([]byte, error) { return c.Marshal(m) },
			"MarshalStable": func() ([]byte, error) { return c.MarshalStable(m) },
			"MarshalAppend": func() ([]byte, error) {
				b, err := c.MarshalAppend([]byte("x"), m)
				return bytes.TrimPrefix(b, []byte("x")), err
			},
		} {
			b, err := marshal()
			if err != nil {
				t.Fatal(err)
			}
			theirs, ours := &authzv1.Rule{}, &authzv1.Rule{}
			unmarshal := protojson.Unmarshal
			if c.IsBinary() {
				unmarshal = proto.Unmarshal
			}
			if err := unmarshal(b, theirs); err != nil || !proto.Equal(theirs, m) {
				t.Errorf("%s, %s: protobuf reads %v, %v", c.Name(), what, theirs, err)
			}
			if err := c.Unmarshal(b, ours); err != nil || !proto.Equal(ours, m) {
				t.Errorf("%s, %s: read back it is %v, %v", c.Name(), what, ours, err)
			}
		}
		if err := c.Unmarshal([]byte("x"), "no message"); err == nil {
			t.Errorf("%s reads into what is no message", c.Name())
		}
		if _, err := c.Marshal("no message"); err == nil {
			t.Errorf("%s writes what is no message", c.Name())
		}
	}
	if err := (jsonCodec{"json"}).Unmarshal(nil, &authzv1.Rule{}); err == nil {
		t.Error("nothing is an object")
	}
}
