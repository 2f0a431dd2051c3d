package rpc

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "a3os.app/proto/gen/go/a3os/audit/v1"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/iam/v1"
	_ "a3os.app/proto/gen/go/a3os/integrations/v1"
	_ "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/authz"
)

func TestBothChainsStandInTheirOrder(t *testing.T) {
	s := &Server{}
	var httpNames []string
	for _, l := range s.httpChain() {
		httpNames = append(httpNames, l.name)
		if l.reason == "" {
			t.Errorf("link %s has no reason", l.name)
		}
	}
	if want := []string{"recover", "limits", "cors", "trace", "authn", "admission"}; !slices.Equal(httpNames, want) {
		t.Errorf("HTTP chain is %v, want %v", httpNames, want)
	}
	var names []string
	for _, l := range s.rpcChain() {
		names = append(names, l.name)
		if l.reason == "" {
			t.Errorf("link %s has no reason", l.name)
		}
	}
	if want := []string{"span", "fault", "denials", "reads", "scope", "rule", "validate", "idempotency"}; !slices.Equal(names, want) {
		t.Errorf("RPC chain is %v, want %v", names, want)
	}
	names = nil
	for _, l := range s.planeChain() {
		names = append(names, l.name)
	}
	if want := []string{"span", "fault", "rule", "validate"}; !slices.Equal(names, want) {
		t.Errorf("chain of the control plane is %v, want %v", names, want)
	}
}

// every calls fn for each method of ours.
func every(t *testing.T, fn func(t *testing.T, s protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor)) {
	t.Helper()
	methods := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !f.Package().IsValid() || f.Package().Parent().Parent() != "a3os" {
			return true
		}
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				methods++
				fn(t, s, s.Methods().Get(j))
			}
		}
		return true
	})
	if methods < 40 {
		t.Fatalf("only %d methods were looked at", methods)
	}
}

func TestEveryMethodHasARule(t *testing.T) {
	every(t, func(t *testing.T, _ protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor) {
		if _, err := authz.RuleOf(m); err != nil {
			t.Error(err)
		}
	})
}

// TestScopeIsNeverInARequest is promise 1: no tenant-facing request has a tenant field, and none has a workspace field but an
// admin's. Messages that workloads send, which present what authorised them, name none either.
func TestScopeIsNeverInARequest(t *testing.T) {
	every(t, func(t *testing.T, s protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor) {
		rule, err := authz.RuleOf(m)
		if err != nil {
			t.Error(err)
			return
		}
		if rule.GetLevel() == authzv1.Level_LEVEL_PLANE {
			return
		}
		for name := range fields(m.Input(), map[protoreflect.FullName]bool{}) {
			switch name {
			case "tenant", "tenant_id", "tid", "tenant_slug":
				t.Errorf("%s: its request names a tenant", rule.Procedure)
			case "workspace", "workspace_id", "wid":
				if rule.GetEffect() != authzv1.Effect_EFFECT_ADMIN {
					t.Errorf("%s: its request names a workspace", rule.Procedure)
				}
			}
		}
	})
}

func TestEveryStringWithSecretNameIsMarked(t *testing.T) {
	every(t, func(t *testing.T, _ protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor) {
		for _, d := range []protoreflect.MessageDescriptor{m.Input(), m.Output()} {
			for name, f := range fields(d, map[protoreflect.FullName]bool{}) {
				switch name {
				case "secret", "password", "token", "refresh_token", "setup_code", "code", "private_key":
					o, ok := f.Options().(*descriptorpb.FieldOptions)
					if !ok || !o.GetDebugRedact() {
						t.Errorf("%s.%s looks like a secret and is not marked debug_redact", d.FullName(), name)
					}
				}
			}
		}
	})
}

func fields(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) map[protoreflect.Name]protoreflect.FieldDescriptor {
	out := map[protoreflect.Name]protoreflect.FieldDescriptor{}
	if seen[d.FullName()] {
		return out
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		out[f.Name()] = f
		if f.Message() != nil {
			for n, v := range fields(f.Message(), seen) {
				out[n] = v
			}
		}
	}
	return out
}
