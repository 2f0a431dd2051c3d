package queue

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"a3os.app/libs/id"
)

// idForm is a TypeID with a prefix of three letters.
var idForm = regexp.MustCompile(`^[a-z]{3}_[0-7][0-9a-hjkmnp-tv-z]{25}$`)

const (
	tenantField    = "tenant_id"
	workspaceField = "workspace_id"
)

// CheckPayload refuses a type of payload that could carry more than identifiers and numbers: each field is a single number, truth
// value or enum, or a string whose name ends with `_id` and whose value is an id; none is marked debug_redact; and two of them are
// tenant_id and workspace_id. Signing and decoding hold every payload to it, so that no secret can travel on a queue.
func CheckPayload(d protoreflect.MessageDescriptor) error {
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o, ok := f.Options().(*descriptorpb.FieldOptions); ok && o.GetDebugRedact() {
			return fmt.Errorf("payload %s has the secret field %s: a queue carries none, put it in the secret store and carry the id", d.FullName(), f.Name())
		}
		if f.IsList() || f.IsMap() {
			return fmt.Errorf("payload %s has more than one %s: a queue carries single values", d.FullName(), f.Name())
		}
		switch f.Kind() {
		case protoreflect.StringKind:
			if !strings.HasSuffix(string(f.Name()), "_id") {
				return fmt.Errorf("payload %s has the text %s: a queue carries ids (…_id) and numbers", d.FullName(), f.Name())
			}
		case protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind:
			return fmt.Errorf("payload %s has %s, a %s: a queue carries ids and numbers", d.FullName(), f.Name(), f.Kind())
		default: // numbers, truth values, enums
		}
	}
	for _, name := range []protoreflect.Name{tenantField, workspaceField} {
		if f := fields.ByName(name); f == nil || f.Kind() != protoreflect.StringKind {
			return fmt.Errorf("payload %s has no %s: it must repeat what its envelope says", d.FullName(), name)
		}
	}
	return nil
}

// checkPayload holds a payload to its type's rules and to the scope it travels in.
func checkPayload(payload proto.Message, tenant id.Tenant, workspace id.Workspace) error {
	m := payload.ProtoReflect()
	if err := CheckPayload(m.Descriptor()); err != nil {
		return err
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() == protoreflect.StringKind && !idForm.MatchString(v.String()) {
			err = ErrMalformed.With("the payload's %s is not an id", f.Name())
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	fields := m.Descriptor().Fields()
	for name, want := range map[protoreflect.Name]string{tenantField: tenant.String(), workspaceField: workspace.String()} {
		if got := m.Get(fields.ByName(name)).String(); got != want {
			return ErrForeign.With("the payload's %s is %q, its envelope's %q", name, got, want)
		}
	}
	return nil
}
