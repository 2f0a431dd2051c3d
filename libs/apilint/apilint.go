// Package apilint holds descriptors of APIs against what every one of ours promises: a rule beside each method, scope that comes
// from claims and never from a request, bounds on everything a caller may send, marks on secrets, lists that page. It promises that
// a fault names the method or field and what to write there. It relies on libs/authz for what a valid rule is, and on
// protovalidate, which enforces at run time the bounds that are only looked for here.
package apilint

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	// Each registers its descriptors.
	_ "a3os.app/proto/gen/go/a3os/audit/v1"
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/iam/v1"
	_ "a3os.app/proto/gen/go/a3os/integrations/v1"
	_ "a3os.app/proto/gen/go/a3os/registry/v1"
	_ "a3os.app/proto/gen/go/a3os/set/v1"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/authz"
)

// Check is one promise that every method keeps.
type Check struct {
	// Name says what is promised.
	Name string
	// faults are a method's, each a sentence that names what and where.
	faults func(m protoreflect.MethodDescriptor) []string
}

// Checks are all promises.
func Checks() []Check {
	return []Check{
		{"every method has a valid rule", ruleFaults},
		{"no request names a tenant, and none a workspace but an admin's", scopeFaults},
		{"everything a caller may send is bounded", boundFaults},
		{"what looks like a secret is marked debug_redact", secretFaults},
		{"lists page", pageFaults},
	}
}

// Of are the faults of methods by one check, each once, in order.
func (c Check) Of(methods []protoreflect.MethodDescriptor) []string {
	var all []string
	for _, m := range methods {
		all = append(all, c.faults(m)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Ours are the methods of all APIs of this repository.
func Ours() []protoreflect.MethodDescriptor {
	var methods []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "a3os.") {
			methods = append(methods, MethodsOf(f)...)
		}
		return true
	})
	return methods
}

// MethodsOf are the methods that a file declares.
func MethodsOf(f protoreflect.FileDescriptor) []protoreflect.MethodDescriptor {
	var methods []protoreflect.MethodDescriptor
	for i := range f.Services().Len() {
		s := f.Services().Get(i)
		for j := range s.Methods().Len() {
			methods = append(methods, s.Methods().Get(j))
		}
	}
	return methods
}

func ruleFaults(m protoreflect.MethodDescriptor) []string {
	if _, err := authz.RuleOf(m); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// scopeFaults looks at tenants' APIs; in the control plane's, tenants are what is spoken of.
func scopeFaults(m protoreflect.MethodDescriptor) []string {
	rule, err := authz.RuleOf(m)
	if err != nil || rule.GetLevel() == authzv1.Level_LEVEL_PLANE {
		return nil
	}
	var faults []string
	for f := range fields(m.Input()) {
		switch f.Name() {
		case "tenant", "tenant_id", "tid", "tenant_slug":
			faults = append(faults, fmt.Sprintf("%s: its request names a tenant (%s): take it from the scope", rule.Procedure, f.FullName()))
		case "workspace", "workspace_id", "wid":
			if rule.GetEffect() != authzv1.Effect_EFFECT_ADMIN {
				faults = append(faults, fmt.Sprintf("%s: its request names a workspace (%s): take it from the scope, or make it an Admin… service's", rule.Procedure, f.FullName()))
			}
		}
	}
	return faults
}

// secretFaults looks at what goes in and at what comes out.
func secretFaults(m protoreflect.MethodDescriptor) []string {
	var faults []string
	for _, d := range []protoreflect.MessageDescriptor{m.Input(), m.Output()} {
		for f := range fields(d) {
			if o, ok := f.Options().(*descriptorpb.FieldOptions); looksSecret(f) && (!ok || !o.GetDebugRedact()) {
				faults = append(faults, fmt.Sprintf("%s looks like a secret: write [debug_redact = true] beside it", f.FullName()))
			}
		}
	}
	return faults
}

// looksSecret knows a secret by its name, or by how the name ends.
func looksSecret(f protoreflect.FieldDescriptor) bool {
	if f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind {
		return false
	}
	name := string(f.Name())
	switch name {
	case "page_token", "next_page_token":
		// Sealed, and worth nothing without the caller's own scope.
		return false
	case "code", "dsn":
		return true
	}
	for _, end := range []string{"secret", "password", "passphrase", "token", "setup_code", "private_key", "api_key", "credential", "credentials"} {
		if name == end || strings.HasSuffix(name, "_"+end) {
			return true
		}
	}
	return false
}

// pageFaults looks at methods named List…. Where what is listed has positions that are no secret, as the entries of a log have, the
// page may begin at one: from_… and next_from_….
func pageFaults(m protoreflect.MethodDescriptor) []string {
	if !strings.HasPrefix(string(m.Name()), "List") {
		return nil
	}
	in, out := m.Input().Fields(), m.Output().Fields()
	if hasPrefix(in, "from_") && hasPrefix(out, "next_from_") && in.ByName("page_size") != nil {
		return nil
	}
	var faults []string
	for _, want := range []struct {
		in   protoreflect.MessageDescriptor
		name protoreflect.Name
		kind protoreflect.Kind
	}{
		{m.Input(), "page_size", protoreflect.Int32Kind},
		{m.Input(), "page_token", protoreflect.StringKind},
		{m.Output(), "next_page_token", protoreflect.StringKind},
	} {
		if f := want.in.Fields().ByName(want.name); f == nil || f.Kind() != want.kind {
			faults = append(faults, fmt.Sprintf("%s doesn't page: %s has no %s %s", m.FullName(), want.in.FullName(), want.kind, want.name))
		}
	}
	return faults
}

func hasPrefix(fields protoreflect.FieldDescriptors, prefix string) bool {
	for i := range fields.Len() {
		if f := fields.Get(i); strings.HasPrefix(string(f.Name()), prefix) && f.Kind() == protoreflect.Int64Kind {
			return true
		}
	}
	return false
}
