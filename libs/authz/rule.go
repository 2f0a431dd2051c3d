// Package authz says who may do what: it reads the rule that stands beside each method in the proto, and knows which permissions a
// role carries. It promises that a method without a rule, a rule that lets nobody in, and an unknown role all end in a refusal, by
// name, before anything is served.
package authz

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
)

// Rule is the rule of one method.
type Rule struct {
	*authzv1.Rule
	// Procedure is the method, as `/a3os.iam.v1.UserService/GetUser`.
	Procedure string
	// Method is its descriptor.
	Method protoreflect.MethodDescriptor
}

// Table is the rules of the methods that a server carries, by procedure.
type Table map[string]Rule

// Load reads the rules of services. It fails with every method that has no rule, or one that can't hold.
func Load(services ...protoreflect.ServiceDescriptor) (Table, error) {
	t := Table{}
	var bad []string
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			r, err := RuleOf(m)
			if err != nil {
				bad = append(bad, err.Error())
				continue
			}
			t[r.Procedure] = r
		}
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("refusing to serve: %s", strings.Join(bad, "; "))
	}
	return t, nil
}

// RuleOf reads the rule of one method, and checks that it can hold.
func RuleOf(m protoreflect.MethodDescriptor) (Rule, error) {
	procedure := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	r, ok := proto.GetExtension(m.Options(), authzv1.E_Rule).(*authzv1.Rule)
	if !ok || r == nil {
		return Rule{}, fmt.Errorf("%s has no rule: write (a3os.authz.v1.rule) beside it", procedure)
	}
	if err := check(m, r); err != nil {
		return Rule{}, fmt.Errorf("%s: %w", procedure, err)
	}
	return Rule{Rule: r, Procedure: procedure, Method: m}, nil
}

// knownWorkloads are the names that rules may list.
var knownWorkloads = map[authzv1.Level][]string{
	authzv1.Level_LEVEL_PLANE:     {"operator", "provisioner", "gateway", "set"},
	authzv1.Level_LEVEL_TENANT:    {"integrations", "discovery", "discovery-worker", "audit", "iam"},
	authzv1.Level_LEVEL_WORKSPACE: {"integrations", "discovery", "discovery-worker", "audit", "iam"},
}

func hasReason(d protoreflect.MessageDescriptor) bool {
	f := d.Fields().ByName("reason")
	return f != nil && f.Kind() == protoreflect.StringKind && f.Cardinality() != protoreflect.Repeated
}

// licensedVerbs begin the names of methods that a licence may hold up: they make something anew. Reads, exports, signing in, and all
// that takes something away (revoke, deactivate, transfer, rotate, remove, cancel …) go on whatever became of the licence.
var licensedVerbs = []string{"Create", "Invite", "Start", "Upload"}

// mayBeLicensed says whether a method is one that a licence may hold up.
func mayBeLicensed(m protoreflect.MethodDescriptor, r *authzv1.Rule) bool {
	return r.GetEffect() == authzv1.Effect_EFFECT_WRITE && r.GetOpen() == "" && r.GetPermission() != "" && len(r.GetWorkloads()) == 0 &&
		!r.GetAccessData() && m.ParentFile().Package() != "a3os.audit.v1" &&
		slices.ContainsFunc(licensedVerbs, func(v string) bool { return strings.HasPrefix(string(m.Name()), v) })
}

func check(m protoreflect.MethodDescriptor, r *authzv1.Rule) error {
	admin := strings.HasPrefix(string(m.Parent().Name()), "Admin")
	names, known := knownWorkloads[r.GetLevel()]
	switch {
	case !known:
		return fmt.Errorf("its rule has no level")
	case r.GetEffect() < authzv1.Effect_EFFECT_READ || r.GetEffect() > authzv1.Effect_EFFECT_ADMIN:
		return fmt.Errorf("its rule has no effect")
	case r.GetPermission() == "" && len(r.GetWorkloads()) == 0 && r.GetOpen() == "":
		return fmt.Errorf("its rule lets nobody in: name a permission or workloads")
	case r.GetOpen() != "" && (r.GetPermission() != "" || len(r.GetWorkloads()) > 0):
		return fmt.Errorf("its rule is open and names callers as well")
	case r.GetOpen() != "" && r.GetLevel() != authzv1.Level_LEVEL_TENANT:
		return fmt.Errorf("its rule is open and not at level tenant: an unknown caller has no workspace")
	case r.GetLevel() == authzv1.Level_LEVEL_PLANE && r.GetPermission() != "":
		return fmt.Errorf("its rule is at level plane, where there are no users, and names a permission")
	case r.GetPermission() != "" && r.GetPermission() != Self && !Carried(r.GetPermission()):
		return fmt.Errorf("no role carries the permission %q", r.GetPermission())
	case admin != (r.GetEffect() == authzv1.Effect_EFFECT_ADMIN):
		return fmt.Errorf("services named Admin… and the effect admin belong together")
	case admin && !hasReason(m.Input()):
		return fmt.Errorf("an admin method demands a reason, its request has no string of that name")
	case r.GetLicensed() != "" && !mayBeLicensed(m, r):
		return fmt.Errorf("it is licensed, and a licence holds up nothing but what users begin anew: a write named %s…", strings.Join(licensedVerbs, "…, "))
	case admin && (r.GetOpen() != "" || r.GetPermission() == Self):
		return fmt.Errorf("its rule lets everyone in, and an admin method demands a permission that few have")
	}
	for _, w := range r.GetWorkloads() {
		if !slices.Contains(names, w) {
			return fmt.Errorf("its rule names the unknown workload %q", w)
		}
	}
	return nil
}
