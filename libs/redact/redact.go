// Package redact takes secrets out of messages by what the proto says of them: fields marked `debug_redact`. It promises that
// nothing marked survives, at any depth, in maps, lists and oneofs, nor anything that can't be looked into (unknown fields, what an
// Any holds), and knows nothing of what isn't marked.
package redact

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Clear is a copy of m without the values of its secret fields.
func Clear[M proto.Message](m M) M {
	if !m.ProtoReflect().IsValid() {
		return m // a nil message has no fields
	}
	c := proto.CloneOf(m)
	clearSecrets(c.ProtoReflect())
	return c
}

// Has says whether messages of this kind can carry a secret, at any depth.
func Has(d protoreflect.MessageDescriptor) bool { return has(d, map[protoreflect.FullName]bool{}) }

// Secret says whether a field is marked.
func Secret(f protoreflect.FieldDescriptor) bool {
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && o.GetDebugRedact()
}

func has(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[d.FullName()] {
		return false
	}
	if d.FullName() == anyName {
		return true
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if Secret(f) {
			return true
		}
		if f.Message() != nil && has(f.Message(), seen) {
			return true
		}
	}
	return false
}

// anyName is the message that holds another one as bytes, of a kind that this process may not know.
const anyName = "google.protobuf.Any"

func clearSecrets(m protoreflect.Message) {
	if m.Descriptor().FullName() == anyName {
		m.Clear(m.Descriptor().Fields().ByName("value"))
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case Secret(f):
			m.Clear(f)
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, e protoreflect.Value) bool {
					clearSecrets(e.Message())
					return true
				})
			}
		case f.IsList():
			if f.Message() != nil {
				for i := range v.List().Len() {
					clearSecrets(v.List().Get(i).Message())
				}
			}
		case f.Message() != nil:
			clearSecrets(v.Message())
		}
		return true
	})
	// What we can't name we can't know to be harmless.
	m.SetUnknown(nil)
}
