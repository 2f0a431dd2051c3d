package authz_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/authz"
)

const (
	plane, tenant, workspace = authzv1.Level_LEVEL_PLANE, authzv1.Level_LEVEL_TENANT, authzv1.Level_LEVEL_WORKSPACE
	read, write, admin       = authzv1.Effect_EFFECT_READ, authzv1.Effect_EFFECT_WRITE, authzv1.Effect_EFFECT_ADMIN
)

// request is the fields of a request message.
type request []*descriptorpb.FieldDescriptorProto

func field(name string, kind descriptorpb.FieldDescriptorProto_Type, label descriptorpb.FieldDescriptorProto_Label) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(1), Type: kind.Enum(), Label: label.Enum()}
}

var (
	reason  = request{field("reason", descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL)}
	flag    = request{field("reason", descriptorpb.FieldDescriptorProto_TYPE_BOOL, descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL)}
	reasons = request{field("reason", descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_LABEL_REPEATED)}
)

// service makes the descriptor of a service with one method for each rule; a nil rule is none.
func service(t *testing.T, name string, in request, rules ...*authzv1.Rule) protoreflect.ServiceDescriptor {
	t.Helper()
	s := &descriptorpb.ServiceDescriptorProto{Name: proto.String(name)}
	for i, r := range rules {
		options := &descriptorpb.MethodOptions{}
		if r != nil {
			proto.SetExtension(options, authzv1.E_Rule, r)
		}
		s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{Name: proto.String("Do" + string(rune('A'+i))),
			InputType: proto.String(".x.v1.Request"), OutputType: proto.String(".x.v1.Request"), Options: options})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("x.proto"), Package: proto.String("x.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Request"), Field: in}}, Service: []*descriptorpb.ServiceDescriptorProto{s}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Services().Get(0)
}

func TestRuleThatCanNotHoldIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		service string
		in      request
		rule    *authzv1.Rule
		want    string
	}{
		"no rule":                       {"Service", nil, nil, "has no rule"},
		"empty rule":                    {"Service", nil, &authzv1.Rule{}, "no level"},
		"no level":                      {"Service", nil, &authzv1.Rule{Effect: read, Permission: authz.Self}, "no level"},
		"unknown level":                 {"Service", nil, &authzv1.Rule{Level: 9, Effect: read, Permission: authz.Self}, "no level"},
		"no effect":                     {"Service", nil, &authzv1.Rule{Level: tenant, Permission: authz.Self}, "no effect"},
		"unknown effect":                {"Service", nil, &authzv1.Rule{Level: tenant, Effect: 4, Permission: authz.Self}, "no effect"},
		"negative effect":               {"Service", nil, &authzv1.Rule{Level: tenant, Effect: -1, Permission: authz.Self}, "no effect"},
		"nobody":                        {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read}, "lets nobody in"},
		"nobody at the plane":           {"Service", nil, &authzv1.Rule{Level: plane, Effect: read}, "lets nobody in"},
		"open with a permission":        {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Open: "why", Permission: authz.Self}, "open and names callers"},
		"open with workloads":           {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Open: "why", Workloads: []string{"iam"}}, "open and names callers"},
		"open in a workspace":           {"Service", nil, &authzv1.Rule{Level: workspace, Effect: read, Open: "why"}, "open and not at level tenant"},
		"open at the plane":             {"Service", nil, &authzv1.Rule{Level: plane, Effect: read, Open: "why"}, "open and not at level tenant"},
		"permission at the plane":       {"Service", nil, &authzv1.Rule{Level: plane, Effect: read, Permission: "audit.read"}, "no users"},
		"self at the plane":             {"Service", nil, &authzv1.Rule{Level: plane, Effect: read, Permission: authz.Self}, "no users"},
		"unknown permission":            {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Permission: "audit.raed"}, `"audit.raed"`},
		"permission of another case":    {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Permission: "Audit.Read"}, `"Audit.Read"`},
		"a role as permission":          {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Permission: authz.TenantAdmin}, `"tenant:admin"`},
		"unknown workload":              {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Workloads: []string{"iam", "discvery"}}, `"discvery"`},
		"empty workload":                {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Workloads: []string{""}}, `""`},
		"the plane's, in a tenant":      {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Workloads: []string{"gateway"}}, `"gateway"`},
		"the plane's, in a workspace":   {"Service", nil, &authzv1.Rule{Level: workspace, Effect: read, Workloads: []string{"operator"}}, `"operator"`},
		"a tenant's, at the plane":      {"Service", nil, &authzv1.Rule{Level: plane, Effect: read, Workloads: []string{"discovery"}}, `"discovery"`},
		"Admin that reads":              {"AdminService", reason, &authzv1.Rule{Level: tenant, Effect: read, Permission: "iam.workspaces.transfer"}, "belong together"},
		"Admin that writes":             {"AdminThings", reason, &authzv1.Rule{Level: tenant, Effect: write, Permission: "iam.workspaces.transfer"}, "belong together"},
		"admin outside of Admin":        {"Service", reason, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}, "belong together"},
		"admin at the end of the name":  {"ServiceAdmin", reason, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}, "belong together"},
		"Admin without a reason":        {"AdminService", nil, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}, "demands a reason"},
		"Admin with a flag for reason":  {"AdminService", flag, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}, "demands a reason"},
		"Admin with a list for reason":  {"AdminService", reasons, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}, "demands a reason"},
		"Admin that anyone may call":    {"AdminService", reason, &authzv1.Rule{Level: tenant, Effect: admin, Open: "why"}, "admin method"},
		"Admin that everyone known may": {"AdminService", reason, &authzv1.Rule{Level: tenant, Effect: admin, Permission: authz.Self}, "admin method"},
	} {
		s := service(t, c.service, c.in, c.rule)
		_, err := authz.RuleOf(s.Methods().Get(0))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/x.v1."+c.service+"/DoA") {
			t.Errorf("%s: the error should name the method and say %q: %v", name, c.want, err)
		}
		if table, err := authz.Load(s); err == nil || table != nil {
			t.Errorf("%s: a server would start, with %v", name, table)
		}
	}
}

func TestRuleThatHoldsIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		service string
		in      request
		rule    *authzv1.Rule
	}{
		"permission":       {"Service", nil, &authzv1.Rule{Level: workspace, Effect: read, Permission: "discovery.access.read", AccessData: true}},
		"self":             {"Service", nil, &authzv1.Rule{Level: tenant, Effect: read, Permission: authz.Self}},
		"workloads":        {"Service", nil, &authzv1.Rule{Level: workspace, Effect: write, Workloads: []string{"discovery", "discovery-worker"}}},
		"both":             {"Service", nil, &authzv1.Rule{Level: tenant, Effect: write, Permission: "audit.read", Workloads: []string{"audit"}}},
		"open":             {"Service", nil, &authzv1.Rule{Level: tenant, Effect: write, Open: "the code is the credential"}},
		"of the plane":     {"Service", nil, &authzv1.Rule{Level: plane, Effect: write, Workloads: []string{"operator", "gateway", "set"}}},
		"admin":            {"AdminService", reason, &authzv1.Rule{Level: tenant, Effect: admin, Permission: "iam.workspaces.transfer"}},
		"admin, the plane": {"AdminService", reason, &authzv1.Rule{Level: plane, Effect: admin, Workloads: []string{"operator"}}},
	} {
		s := service(t, c.service, c.in, c.rule)
		table, err := authz.Load(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r, ok := table["/x.v1."+c.service+"/DoA"]
		if !ok || !proto.Equal(r.Rule, c.rule) || r.Method != s.Methods().Get(0) {
			t.Errorf("%s: the table is %v", name, table)
		}
	}
}

func TestEveryBadMethodIsToldAtOnce(t *testing.T) {
	good := &authzv1.Rule{Level: tenant, Effect: read, Permission: authz.Self}
	_, err := authz.Load(service(t, "Service", nil, nil, good, &authzv1.Rule{Level: tenant, Effect: read}), service(t, "Other", nil, nil))
	if err == nil {
		t.Fatal("a server would start")
	}
	for _, method := range []string{"/x.v1.Service/DoA", "/x.v1.Service/DoC", "/x.v1.Other/DoA"} {
		if !strings.Contains(err.Error(), method) {
			t.Errorf("%s is not named: %v", method, err)
		}
	}
	if strings.Contains(err.Error(), "/x.v1.Service/DoB") {
		t.Errorf("a good method is named: %v", err)
	}
}

// What each role may do, written out: a permission that moves from one role to another must be moved here by hand too.
var matrix = map[string][]string{
	authz.TenantAdmin: {"audit.read", "audit.verify", "iam.service_accounts.read", "iam.service_accounts.write", "iam.signing_keys.read",
		"iam.signing_keys.rotate", "iam.users.read", "iam.users.write",
		"iam.workspaces.create", "iam.workspaces.read", "iam.workspaces.transfer", "licence.read", "queue.dead_letters.read", "queue.dead_letters.settle", "self"},
	authz.TenantAuditor: {"audit.read", "audit.verify", "iam.service_accounts.read", "iam.signing_keys.read", "iam.users.read", "iam.workspaces.read", "licence.read", "queue.dead_letters.read", "self"},
	authz.WorkspaceOwner: {"audit.read", "discovery.access.read", "discovery.runs.read", "discovery.runs.start", "iam.members.read", "iam.members.write",
		"iam.workspace.read", "integrations.read", "integrations.write", "self"},
	authz.WorkspaceAdmin: {"audit.read", "discovery.access.read", "discovery.runs.read", "discovery.runs.start", "iam.members.read", "iam.members.write",
		"iam.workspace.read", "integrations.read", "integrations.write", "self"},
	authz.WorkspaceMember: {"discovery.access.read", "discovery.runs.read", "discovery.runs.start", "iam.members.read", "iam.workspace.read", "integrations.read", "self"},
	authz.WorkspaceViewer: {"discovery.access.read", "discovery.runs.read", "iam.members.read", "iam.workspace.read", "integrations.read", "self"},
}

func permissions(t *testing.T, roles ...string) []string {
	t.Helper()
	ps, err := authz.Permissions(roles)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func TestRolesCarryWhatIsWrittenAndNothingElse(t *testing.T) {
	for role, want := range matrix {
		if got := permissions(t, role); !slices.Equal(got, want) {
			t.Errorf("%s carries %s, want %s", role, got, want)
		}
	}
}

func TestRolesKeepTheirDistance(t *testing.T) {
	carries := func(role, permission string) bool { return slices.Contains(permissions(t, role), permission) }
	for _, c := range []struct{ role, permission, why string }{
		{authz.WorkspaceMember, "integrations.write", "a member connects no system"},
		{authz.WorkspaceMember, "iam.members.write", "a member lets nobody in"},
		{authz.WorkspaceMember, "audit.read", "a member does not read the log"},
		{authz.WorkspaceViewer, "discovery.runs.start", "a viewer starts no run"},
		{authz.WorkspaceOwner, "iam.workspaces.transfer", "tenant admins alone transfer a workspace"},
		{authz.TenantAuditor, "iam.signing_keys.rotate", "who only reads ends nobody's tokens"},
		{authz.TenantAuditor, "iam.users.write", "an auditor changes nothing"},
		{authz.TenantAuditor, "queue.dead_letters.settle", "an auditor sees dead letters and leaves them as they are"},
		{authz.WorkspaceOwner, "queue.dead_letters.read", "dead letters are the tenant's: what they say is not believed"},
	} {
		if carries(c.role, c.permission) {
			t.Errorf("%s carries %s: %s", c.role, c.permission, c.why)
		}
	}
	for _, role := range []string{authz.TenantAdmin, authz.TenantAuditor} {
		for _, p := range permissions(t, role) {
			if strings.HasPrefix(p, "discovery.") || strings.HasPrefix(p, "integrations.") || p == "iam.workspace.read" || strings.HasPrefix(p, "iam.members.") {
				t.Errorf("%s carries %s: a role across the tenant reaches no workspace's data", role, p)
			}
		}
	}
	for _, p := range permissions(t, authz.TenantAuditor) {
		if p != authz.Self && !strings.HasSuffix(p, ".read") && !strings.HasSuffix(p, ".verify") {
			t.Errorf("an auditor carries %s, which is no reading", p)
		}
	}
	for _, role := range []string{authz.WorkspaceOwner, authz.WorkspaceAdmin, authz.WorkspaceMember, authz.WorkspaceViewer} {
		for _, p := range permissions(t, role) {
			if strings.HasPrefix(p, "iam.users.") || strings.HasPrefix(p, "iam.workspaces.") || strings.HasPrefix(p, "iam.service_accounts.") {
				t.Errorf("%s carries %s: a role of a workspace reaches nothing across the tenant", role, p)
			}
		}
	}
}

func TestUnknownRoleIsRefused(t *testing.T) {
	for _, names := range [][]string{{"god"}, {""}, {"tenant:admin "}, {"Tenant:Admin"}, {"tenant:*"}, {authz.WorkspaceViewer, "god"}, {authz.Self}, {"audit.read"}} {
		if ps, err := authz.Permissions(names); err == nil || ps != nil {
			t.Errorf("%q carry %s", names, ps)
		}
	}
}

func TestRolesTogetherCarryTheirPermissionsOnceAndSorted(t *testing.T) {
	if got := permissions(t); !slices.Equal(got, []string{authz.Self}) {
		t.Errorf("no role carries %s", got)
	}
	all := slices.Collect(maps.Keys(matrix))
	got := permissions(t, append(all, all...)...)
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("all roles carry %s", got)
	}
	// What one caller does with the answer reaches no other caller.
	for i := range got {
		got[i] = "god"
	}
	TestRolesCarryWhatIsWrittenAndNothingElse(t)
}
