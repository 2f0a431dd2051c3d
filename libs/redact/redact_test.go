package redact_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	_ "a3os.app/proto/gen/go/a3os/audit/v1"
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/integrations/v1"
	_ "a3os.app/proto/gen/go/a3os/queue/v1"
	_ "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/redact"
)

const canary = "c4nary"

// shapesFile describes a message with a secret wherever one can be: fields named `secret…` are marked, the others must stay.
func shapesFile(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	redacted := &descriptorpb.FieldOptions{DebugRedact: proto.Bool(true)}
	number := int32(0)
	field := func(name string, kind descriptorpb.FieldDescriptorProto_Type, label descriptorpb.FieldDescriptorProto_Label, typ string) *descriptorpb.FieldDescriptorProto {
		number++
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(), Label: label.Enum()}
		if typ != "" {
			f.TypeName = proto.String(".x." + typ)
		}
		if strings.HasPrefix(name, "secret") {
			f.Options = redacted
		}
		return f
	}
	const (
		one, many   = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		text, raw   = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES
		message     = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		whole, flag = descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_BOOL
	)
	leaf := &descriptorpb.DescriptorProto{Name: proto.String("Leaf"), Field: []*descriptorpb.FieldDescriptorProto{field("secret", text, one, ""), field("plain", text, one, "")}}
	plain := &descriptorpb.DescriptorProto{Name: proto.String("Plain"), Field: []*descriptorpb.FieldDescriptorProto{field("plain", text, one, "")}}
	loop := &descriptorpb.DescriptorProto{Name: proto.String("Loop"), Field: []*descriptorpb.FieldDescriptorProto{field("loop", message, one, "Loop"), field("plain", text, one, "")}}
	entry := func(name string, value *descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		value.Name, value.Number = proto.String("value"), proto.Int32(2)
		return &descriptorpb.DescriptorProto{Name: proto.String(name), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
			Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("key"), Number: proto.Int32(1), Type: text.Enum(), Label: one.Enum()}, value}}
	}
	inOneof := func(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
		f.OneofIndex = proto.Int32(0)
		return f
	}
	tree := &descriptorpb.DescriptorProto{Name: proto.String("Tree"),
		OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("either")}},
		NestedType: []*descriptorpb.DescriptorProto{
			entry("SecretMapEntry", field("value", text, one, "")), entry("LeavesByNameEntry", field("value", message, one, "Leaf")), entry("PlainMapEntry", field("value", text, one, "")),
		},
		Field: []*descriptorpb.FieldDescriptorProto{
			field("secret_text", text, one, ""), field("secret_bytes", raw, one, ""), field("secret_number", whole, one, ""), field("secret_flag", flag, one, ""),
			field("secret_list", text, many, ""), field("secret_map", message, many, "Tree.SecretMapEntry"), field("secret_leaf", message, one, "Plain"),
			field("secret_leaves", message, many, "Plain"),
			inOneof(field("secret_either", text, one, "")), inOneof(field("leaf_either", message, one, "Leaf")), inOneof(field("plain_either", text, one, "")),
			field("plain", text, one, ""), field("plain_list", text, many, ""), field("plain_map", message, many, "Tree.PlainMapEntry"),
			field("leaf", message, one, "Leaf"), field("leaves", message, many, "Leaf"), field("leaves_by_name", message, many, "Tree.LeavesByNameEntry"),
			field("tree", message, one, "Tree"), field("trees", message, many, "Tree"),
		}}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("shapes.proto"), Package: proto.String("x"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{leaf, plain, loop, tree}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// fill puts values into every field, to a depth: canaries into the secret ones, "plain" into the others. Of a oneof it takes the
// member that pick says.
func fill(m protoreflect.Message, depth, pick int) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() && o.Fields().Get(pick%o.Fields().Len()) != f {
			continue
		}
		switch {
		case f.Message() != nil && !f.IsMap() && depth == 0:
		case f.IsMap():
			mv := f.MapValue()
			if mv.Message() == nil {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString("key").MapKey(), scalar(mv, redact.Secret(f)))
			} else if depth > 0 && f.MapKey().Kind() == protoreflect.StringKind {
				fill(m.Mutable(f).Map().Mutable(protoreflect.ValueOfString("key").MapKey()).Message(), depth-1, pick)
			}
		case f.IsList() && f.Message() != nil:
			for range 2 {
				fill(m.Mutable(f).List().AppendMutable().Message(), depth-1, pick)
			}
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f, redact.Secret(f)))
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), depth-1, pick)
		default:
			m.Set(f, scalar(f, redact.Secret(f)))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, secret bool) protoreflect.Value {
	text := "plain"
	if secret {
		text = canary
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(4711)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(4711)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	default:
		return f.Default()
	}
}

// secrets lists the secret fields that are set, by their paths.
func secrets(m protoreflect.Message, path string) []string {
	var found []string
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + string(f.Name())
		switch {
		case redact.Secret(f):
			found = append(found, at)
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				if f.MapValue().Message() != nil {
					found = append(found, secrets(e.Message(), at+"["+k.String()+"]")...)
				}
				return true
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				found = append(found, secrets(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", at, i))...)
			}
		case f.Message() != nil:
			found = append(found, secrets(v.Message(), at)...)
		}
		return true
	})
	return found
}

func leaks(t *testing.T, m proto.Message) bool {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(raw), canary)
}

func TestNoSecretSurvivesAtAnyDepthOrShape(t *testing.T) {
	file := shapesFile(t)
	for pick := range 3 {
		m := dynamicpb.NewMessage(file.Messages().ByName("Tree"))
		fill(m, 3, pick)
		if n := len(secrets(m, "")); n < 100 {
			t.Fatalf("the message has %d secrets, too few to try anything", n)
		}
		before := proto.Clone(m)
		c := redact.Clear(m)
		if left := secrets(c.ProtoReflect(), ""); len(left) > 0 || leaks(t, c) {
			t.Errorf("these are left: %s", left)
		}
		if !proto.Equal(m, before) {
			t.Error("the message itself was changed")
		}
		// What isn't marked stays: cleared from both, nothing is different.
		if got, want := strings.Count(fmt.Sprint(c), `"plain"`), strings.Count(fmt.Sprint(before), `"plain"`); got < want/2 || got == 0 {
			t.Errorf("%d plain values of %d are left", got, want)
		}
	}
}

func TestUnknownFieldsAreTakenOut(t *testing.T) {
	unknown := protowire.AppendString(protowire.AppendTag(nil, 4711, protowire.BytesType), canary)
	m := &iamv1.InviteUserResponse{User: &iamv1.User{Email: "a@example.org"}}
	m.ProtoReflect().SetUnknown(unknown)
	m.User.ProtoReflect().SetUnknown(unknown)
	list := &iamv1.ListUsersResponse{Users: []*iamv1.User{m.User}}
	for _, m := range []proto.Message{m, list} {
		if !leaks(t, m) || leaks(t, redact.Clear(m)) {
			t.Errorf("%v is cleared to %v", m, redact.Clear(m))
		}
	}
}

func TestMessageInsideAnAnyIsTakenOut(t *testing.T) {
	inner, err := anypb.New(&iamv1.RedeemSetupCodeResponse{RefreshToken: canary})
	if err != nil {
		t.Fatal(err)
	}
	if c := redact.Clear(inner); leaks(t, c) {
		t.Errorf("an Any is cleared to %v", c)
	}
	if !redact.Has(inner.ProtoReflect().Descriptor()) {
		t.Error("an Any can carry a secret")
	}
}

func TestNoMessageIsClearedToNone(t *testing.T) {
	var none *iamv1.InviteUserResponse
	if c := redact.Clear(none); c != nil {
		t.Errorf("nil is cleared to %v", c)
	}
}

func TestHasSaysWhichMessagesCanCarryASecret(t *testing.T) {
	messages := shapesFile(t).Messages()
	for name, want := range map[protoreflect.Name]bool{"Leaf": true, "Tree": true, "Plain": false, "Loop": false} {
		if got := redact.Has(messages.ByName(name)); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// Every message of the house, filled to the brim.
func TestEverySecretFieldOfTheHouseIsCleared(t *testing.T) {
	tried := map[protoreflect.FullName]bool{}
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		d := mt.Descriptor()
		if !strings.HasPrefix(string(d.FullName()), "a3os.") || d.IsMapEntry() {
			return true
		}
		for pick := range 4 {
			m := mt.New()
			fill(m, 4, pick)
			if had := secrets(m, ""); len(had) > 0 {
				tried[d.FullName()] = true
				if !redact.Has(d) {
					t.Errorf("%s carries %s, and Has says it can't", d.FullName(), had)
				}
			}
			c := redact.Clear(m.Interface())
			if left := secrets(c.ProtoReflect(), ""); len(left) > 0 || leaks(t, c) {
				t.Errorf("%s: %s are left", d.FullName(), left)
			}
		}
		return true
	})
	for _, known := range []protoreflect.FullName{"a3os.iam.v1.RedeemSetupCodeRequest", "a3os.iam.v1.RedeemSetupCodeResponse", "a3os.iam.v1.InviteUserResponse",
		"a3os.integrations.v1.CreateIntegrationRequest"} {
		if !tried[known] {
			t.Errorf("%s was not tried: %v were", known, tried)
		}
	}
}
