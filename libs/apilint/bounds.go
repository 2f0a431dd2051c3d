package apilint

import (
	"fmt"
	"iter"
	"regexp/syntax"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// boundFaults looks at every field that a caller may send, at any depth.
func boundFaults(m protoreflect.MethodDescriptor) []string {
	var faults []string
	for f := range fields(m.Input()) {
		rules, err := protovalidate.ResolveFieldRules(f)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s: its rules can't be read: %v", f.FullName(), err))
			continue
		}
		for _, what := range unbounded(f, rules) {
			faults = append(faults, fmt.Sprintf("%s: %s", f.FullName(), what))
		}
	}
	return faults
}

// unbounded says what of a field has no end.
func unbounded(f protoreflect.FieldDescriptor, rules *validate.FieldRules) []string {
	var missing []string
	switch {
	case f.IsMap():
		r := rules.GetMap()
		if !r.HasMaxPairs() {
			missing = append(missing, "a map without max_pairs")
		}
		missing = append(missing, unboundedValue("a map's key", f.MapKey(), r.GetKeys())...)
		missing = append(missing, unboundedValue("a map's value", f.MapValue(), r.GetValues())...)
	case f.IsList():
		r := rules.GetRepeated()
		if !r.HasMaxItems() {
			missing = append(missing, "a repeated field without max_items")
		}
		missing = append(missing, unboundedValue("an item", f, r.GetItems())...)
	default:
		missing = unboundedValue("", f, rules)
	}
	return missing
}

func unboundedValue(what string, f protoreflect.FieldDescriptor, rules *validate.FieldRules) []string {
	if what != "" {
		what += ": "
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		if !stringBounded(rules.GetString()) {
			return []string{what + "a string without max_len, max_bytes, in, or an anchored pattern that ends"}
		}
	case protoreflect.BytesKind:
		if r := rules.GetBytes(); !r.HasMaxLen() && !r.HasLen() && !r.HasConst() && len(r.GetIn()) == 0 {
			return []string{what + "bytes without max_len"}
		}
	case protoreflect.EnumKind:
		if r := rules.GetEnum(); !r.GetDefinedOnly() && !r.HasConst() && len(r.GetIn()) == 0 {
			return []string{what + "an enum without defined_only or in"}
		}
	case protoreflect.MessageKind:
		// What has no fields of its own to look at takes anything.
		switch f.Message().FullName() {
		case "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any":
			if len(rules.GetCel()) == 0 {
				return []string{fmt.Sprintf("%sa %s takes anything: use a message", what, f.Message().FullName())}
			}
		}
	case protoreflect.GroupKind:
		return []string{what + "a group"}
	default:
		// Numbers and booleans have an end by themselves.
	}
	return nil
}

func stringBounded(r *validate.StringRules) bool {
	switch {
	case r.HasMaxLen(), r.HasMaxBytes(), r.HasLen(), r.HasLenBytes(), r.HasConst(), len(r.GetIn()) > 0:
		return true
	case r.GetUuid(), r.GetTuuid(), r.GetIp(), r.GetIpv4(), r.GetIpv6(), r.GetHostname(), r.GetHostAndPort():
		return true
	}
	return r.HasPattern() && ends(r.GetPattern())
}

// ends says whether what a pattern matches has a greatest length: it is anchored at both ends and repeats nothing for ever.
func ends(pattern string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || re.Op != syntax.OpConcat || len(re.Sub) < 2 {
		return false
	}
	return re.Sub[0].Op == syntax.OpBeginText && re.Sub[len(re.Sub)-1].Op == syntax.OpEndText && finite(re)
}

func finite(re *syntax.Regexp) bool {
	if re.Op == syntax.OpStar || re.Op == syntax.OpPlus || (re.Op == syntax.OpRepeat && re.Max < 0) {
		return false
	}
	for _, s := range re.Sub {
		if !finite(s) {
			return false
		}
	}
	return true
}

// fields are all fields of a message at any depth, each once. Messages of Google's own, whose fields can't be given rules, count as
// values.
func fields(d protoreflect.MessageDescriptor) iter.Seq[protoreflect.FieldDescriptor] {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		seen := map[protoreflect.FullName]bool{}
		var walk func(d protoreflect.MessageDescriptor) bool
		walk = func(d protoreflect.MessageDescriptor) bool {
			if seen[d.FullName()] || d.FullName().Parent() == "google.protobuf" {
				return true
			}
			seen[d.FullName()] = true
			for i := range d.Fields().Len() {
				f := d.Fields().Get(i)
				// A map's entry is looked at with the map.
				if !d.IsMapEntry() && !yield(f) {
					return false
				}
				if f.Message() != nil && !walk(f.Message()) {
					return false
				}
			}
			return true
		}
		walk(d)
	}
}
