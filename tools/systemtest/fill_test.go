package systemtest

import (
	"crypto/rand"
	"regexp"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// things are ids and names of one workspace: an id under its kind's prefix, and what a field of another name takes under that name.
type things map[string]string

// idPattern is what the bounds of fields for ids hold.
const idPattern = `_[0-7][0-9a-hjkmnp-tv-z]{25}`

func fieldRules(f protoreflect.FieldDescriptor) *validate.FieldRules {
	r, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	return r
}

// names says whether a field names a thing, and which value of known it takes.
func (known things) names(f protoreflect.FieldDescriptor) (value string, ok bool) {
	if f.Kind() != protoreflect.StringKind || f.IsList() || f.IsMap() {
		return "", false
	}
	if v, named := known[string(f.Name())]; named {
		return v, true
	}
	pattern := fieldRules(f).GetString().GetPattern()
	if !strings.Contains(pattern, idPattern) {
		return "", false
	}
	for _, v := range known {
		if v != "" && regexp.MustCompile(pattern).MatchString(v) {
			return v, true
		}
	}
	return "", false
}

// request is a valid message of a method whose fields for things hold known's.
func request(t testing.TB, m rpcMethod, known things) *dynamicpb.Message {
	t.Helper()
	msg := fill(m.Input(), known)
	if err := protovalidate.Validate(msg); err != nil {
		t.Fatalf("the test can't make a valid %s any more, teach it the new field: %v", m.Input().FullName(), err)
	}
	return msg
}

func fill(d protoreflect.MessageDescriptor, known things) *dynamicpb.Message {
	msg := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if v, ok := known.names(f); ok {
			msg.Set(f, protoreflect.ValueOfString(v))
			continue
		}
		r := fieldRules(f)
		switch {
		case f.IsMap():
		case f.IsList():
			if r.GetRepeated().GetMinItems() > 0 {
				list := msg.Mutable(f).List()
				if f.Message() != nil {
					list.Append(protoreflect.ValueOfMessage(fill(f.Message(), known)))
				}
			}
		case f.Message() != nil:
			oneof := f.ContainingOneof()
			if r.GetRequired() || oneof != nil && !oneof.IsSynthetic() && f.Name() == "csv" {
				msg.Set(f, protoreflect.ValueOfMessage(fill(f.Message(), known)))
			}
		default:
			fillScalar(msg, f, r)
		}
	}
	return msg
}

func fillScalar(msg *dynamicpb.Message, f protoreflect.FieldDescriptor, r *validate.FieldRules) {
	switch f.Kind() {
	case protoreflect.StringKind:
		s := r.GetString()
		switch {
		case s.GetEmail():
			msg.Set(f, protoreflect.ValueOfString(name("person")+"@example.com"))
		case len(s.GetIn()) > 0:
			msg.Set(f, protoreflect.ValueOfString(s.GetIn()[0]))
		case s.GetMinLen() > 0:
			text := name("text")
			for len(text) < int(s.GetMinLen()) {
				text += rand.Text()
			}
			msg.Set(f, protoreflect.ValueOfString(text))
		}
	case protoreflect.BytesKind:
		if n := r.GetBytes().GetMinLen(); n > 0 {
			msg.Set(f, protoreflect.ValueOfBytes(make([]byte, n)))
		}
	case protoreflect.EnumKind:
		if len(r.GetEnum().GetNotIn()) > 0 {
			values := f.Enum().Values()
			msg.Set(f, protoreflect.ValueOfEnum(values.Get(values.Len()-1).Number()))
		}
	case protoreflect.Int64Kind:
		if n := r.GetInt64().GetGte(); n > 0 {
			msg.Set(f, protoreflect.ValueOfInt64(n))
		}
	case protoreflect.Int32Kind:
		if n := r.GetInt32().GetGte(); n > 0 {
			msg.Set(f, protoreflect.ValueOfInt32(n))
		}
	case protoreflect.Uint32Kind:
		if n := r.GetUint32().GetGte(); n > 0 {
			msg.Set(f, protoreflect.ValueOfUint32(n))
		}
	default: // booleans, and kinds that no request has
	}
}

// fieldsOfThings are the fields of a method's request that name something.
func fieldsOfThings(m rpcMethod, known things) []protoreflect.FieldDescriptor {
	var out []protoreflect.FieldDescriptor
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		if _, ok := known.names(f); ok {
			out = append(out, f)
		}
	}
	return out
}

// neverWas has another id, or name, in the place of each: well-formed, and nobody's.
func (known things) neverWas() things {
	out := things{}
	for k, v := range known {
		out[k] = neverWas(v)
	}
	return out
}

var typeID = regexp.MustCompile(`^[a-z]+` + idPattern + `$`)

func neverWas(v string) string {
	if !typeID.MatchString(v) {
		return rand.Text()[:max(1, min(len(v), len(rand.Text())))]
	}
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	random := make([]byte, 24)
	_, _ = rand.Read(random)
	prefix, _, _ := strings.Cut(v, "_")
	// Ids begin with their time: keep it, so that only the rest tells them apart.
	out := v[:len(prefix)+3]
	for _, b := range random {
		out += string(alphabet[int(b)%len(alphabet)])
	}
	return out
}
