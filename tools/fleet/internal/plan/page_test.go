package plan_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/plan"
)

// Who approves a plan reads its page, and its author, who wrote the plan's texts, writes no line of it.
func TestNoTextOfAPlanBringsALineOfItsOwn(t *testing.T) {
	const forged = "x\nFORGED \r\u2028FORGED\u0085FORGED\v\f" + "                                                            FORGED"
	for _, kind := range []registryv1.OperationKind{registryv1.OperationKind_OPERATION_KIND_OFFBOARD, registryv1.OperationKind_OPERATION_KIND_PROVISION, registryv1.OperationKind_OPERATION_KIND_UPGRADE} {
		p, s := &registryv1.Plan{}, &registryv1.StoredPlan{}
		fill(p.ProtoReflect(), forged)
		fill(s.ProtoReflect(), forged)
		p.Kind = kind
		var out bytes.Buffer
		if err := plan.Page(&out, s, p); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "FORGED") {
			t.Fatalf("the page shows none of the plan's texts:\n%s", &out)
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(strings.TrimSpace(line), "FORGED") || strings.ContainsAny(line, "\r\u2028\u0085\v\f") {
				t.Errorf("%s: the plan's author wrote the line %q", kind, line)
			}
			if field := strings.TrimLeft(line, " "); len(field) > 11 && strings.Contains(field[11:], "    ") {
				t.Errorf("%s: what follows a wide gap passes for a line of its own: %q", kind, line)
			}
		}
	}
}

// fill sets each text of a message, and of those within it, one of each where there may be several.
func fill(m protoreflect.Message, text string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func(in protoreflect.FieldDescriptor, message func() protoreflect.Value) (protoreflect.Value, bool) {
			switch in.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(text), true
			case protoreflect.MessageKind:
				v := message()
				fill(v.Message(), text)
				return v, true
			default:
				return protoreflect.Value{}, false
			}
		}
		switch {
		case f.IsMap():
			if v, ok := value(f.MapValue(), m.Mutable(f).Map().NewValue); ok {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(text).MapKey(), v)
			}
		case f.IsList():
			if v, ok := value(f, m.Mutable(f).List().NewElement); ok {
				m.Mutable(f).List().Append(v)
			}
		default:
			if v, ok := value(f, func() protoreflect.Value { return m.NewField(f) }); ok {
				m.Set(f, v)
			}
		}
	}
}
