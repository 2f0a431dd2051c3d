package systemtest

import (
	"crypto/rand"
	"maps"
	"regexp"
	"slices"
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
	if f.Kind() != protoreflect.StringKind || f.IsMap() {
		return "", false
	}
	if v, named := known[string(f.Name())]; named {
		return v, true
	}
	pattern := fieldRules(f).GetString().GetPattern()
	if f.IsList() {
		pattern = fieldRules(f).GetRepeated().GetItems().GetString().GetPattern()
	}
	if !strings.Contains(pattern, idPattern) {
		return "", false
	}
	// In one order, so that the same field takes the same each time: users before those who act.
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(known))) {
		v := known[k]
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
		if v, ok := known.names(f); ok && !f.IsList() {
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
		case strings.HasPrefix(s.GetPattern(), "^") && strings.HasSuffix(s.GetPattern(), idPattern+"$"):
			// Of a kind that no workspace has: well-formed, and nobody's.
			kind := strings.TrimSuffix(strings.TrimPrefix(s.GetPattern(), "^"), idPattern+"$")
			msg.Set(f, protoreflect.ValueOfString(neverWas(kind+"_01h455vb4pex5vsknk084sn02q")))
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

// way leads to a field of a request, through the messages that it stands in.
type way []protoreflect.FieldDescriptor

func (w way) leaf() protoreflect.FieldDescriptor { return w[len(w)-1] }

func (w way) String() string { return path(w) }

// put sets the field. What it stands in is made where it is not there.
func (w way) put(msg *dynamicpb.Message, value string) {
	in := msg.ProtoReflect()
	for _, f := range w[:len(w)-1] {
		if !f.IsList() {
			in = in.Mutable(f).Message()
			continue
		}
		list := in.Mutable(f).List()
		if list.Len() == 0 {
			list.AppendMutable()
		}
		in = list.Get(0).Message()
	}
	if f := w.leaf(); f.IsList() {
		in.Mutable(f).List().Append(protoreflect.ValueOfString(value))
	} else {
		in.Set(f, protoreflect.ValueOfString(value))
	}
}

// idsOfTheirSystems are fields whose names end like those of our ids, and that hold words of the systems that were discovered.
var idsOfTheirSystems = []string{"external_id"}

// namedIn are the ways to what a method's request names of known. A field for an id that known has nothing for fails the test: each
// field has to be tried.
func namedIn(t testing.TB, m rpcMethod, known things) []way {
	t.Helper()
	var out []way
	for _, w := range textFields(m.Input(), nil) {
		f := way(w).leaf()
		_, ok := known.names(f)
		pattern := fieldRules(f).GetString().GetPattern() + fieldRules(f).GetRepeated().GetItems().GetString().GetPattern()
		isID := strings.Contains(pattern, idPattern) || strings.HasSuffix(string(f.Name()), "_id") || strings.HasSuffix(string(f.Name()), "_ids")
		switch {
		case ok:
			out = append(out, w)
		case isID && !slices.Contains(idsOfTheirSystems, string(f.Name())):
			t.Errorf("%s: %s names something, and the tests have nothing of another workspace to put there: teach newOffice to make one", m.path(), way(w))
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
