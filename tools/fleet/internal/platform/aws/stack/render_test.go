package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

var place = stack.Place{Account: "123456789012", Region: "eu-central-1", Plane: "dev", Domain: "a3os.example"}

const image = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

func tenantSet(t *testing.T, tenant id.Tenant, tier registryv1.IsolationTier) platform.Set {
	t.Helper()
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	return platform.Set{Blueprint: b, Tenant: tenant, Slug: "acme", Tier: tier}
}

func planeSet(t *testing.T) platform.Set {
	t.Helper()
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	return platform.Set{Blueprint: b}
}

func input(t *testing.T, s platform.Set) stack.Input {
	t.Helper()
	r, err := platform.ParseRelease("1.2.3@" + image)
	if err != nil {
		t.Fatal(err)
	}
	return stack.Input{Place: place, Set: s, Release: r, Image: image, Running: true}
}

const (
	database  = registryv1.IsolationTier_ISOLATION_TIER_DATABASE
	dedicated = registryv1.IsolationTier_ISOLATION_TIER_DEDICATED
)

// ownAccount is one that a tenant has to itself.
const ownAccount = "210987654321"

// rendered are the templates of every kind of stack, by name.
func rendered(t *testing.T, tenant id.Tenant) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for name, tier := range map[string]registryv1.IsolationTier{"database": database, "dedicated": dedicated} {
		made, err := stack.Tenant(input(t, tenantSet(t, tenant, tier)))
		out[name] = text(t, made, err)
	}
	in := input(t, planeSet(t))
	made, err := stack.Plane(in)
	out["plane"] = text(t, made, err)
	made, err = stack.Control(in)
	out["control"] = text(t, made, err)
	in.Accounts, in.Joined = []string{ownAccount}, true
	made, err = stack.Plane(in)
	out["plane-joined"] = text(t, made, err)
	made, err = stack.Control(in)
	out["control-joined"] = text(t, made, err)
	in.Accounts = nil
	in.First = true
	made, err = stack.Plane(in)
	out["plane-first"] = text(t, made, err)
	in = input(t, tenantSet(t, tenant, dedicated))
	in.Place.Account, in.Place.Hub = ownAccount, place.Account
	made, err = stack.Account(in)
	out["account"] = text(t, made, err)
	made, err = stack.Tenant(in)
	out["of-account"] = text(t, made, err)
	made, err = stack.Link(in)
	out["link"] = text(t, made, err)
	return out
}

func text(t *testing.T, made *stack.Template, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out, err := made.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheSameStackHasTheSameBytes(t *testing.T) {
	tenant := id.NewTenant()
	first := rendered(t, tenant)
	for range 5 {
		for name, again := range rendered(t, tenant) {
			if !bytes.Equal(first[name], again) {
				t.Fatalf("the template of %s is another at each rendering", name)
			}
		}
	}
}

// What comes first of the plane goes in a call, for there is no bucket yet, and is a part of the whole: the rest is added to it.
func TestWhatComesFirstGoesInACall(t *testing.T) {
	texts := rendered(t, id.NewTenant())
	var first, whole struct{ Resources map[string]json.RawMessage }
	if err := errors.Join(json.Unmarshal(texts["plane-first"], &first), json.Unmarshal(texts["plane"], &whole)); err != nil {
		t.Fatal(err)
	}
	if n := len(texts["plane-first"]); n > 51200 || len(first.Resources) < 6 {
		t.Errorf("it has %d bytes and %d resources", n, len(first.Resources))
	}
	for id, r := range first.Resources {
		if !bytes.Equal(r, whole.Resources[id]) {
			t.Errorf("%s is changed by what comes after it", id)
		}
	}
}

// A suspended tenant's stack differs in nothing but that no task runs.
func TestStoppedStackRunsNothing(t *testing.T) {
	in := input(t, tenantSet(t, id.NewTenant(), dedicated))
	made, err := stack.Tenant(in)
	running := text(t, made, err)
	in.Running = false
	made, err = stack.Tenant(in)
	stopped := text(t, made, err)
	none, one := []byte(`"DesiredCount":0`), []byte(`"DesiredCount":1`)
	if n := bytes.Count(running, one); n != len(in.Set.Blueprint.Components) || bytes.Contains(stopped, one) || !bytes.Equal(bytes.ReplaceAll(running, one, none), stopped) {
		t.Errorf("%d services run where they should; stopped and running differ in more than that, or in nothing", n)
	}
}

// While what some components use is put back, the stack differs in nothing but that these run nothing.
func TestIdleComponentsRunNothingAndOthersGoOn(t *testing.T) {
	in := input(t, planeSet(t))
	made, err := stack.Control(in)
	all := text(t, made, err)
	in.Idle = []string{"registry"}
	made, err = stack.Control(in)
	idle := text(t, made, err)
	none, one := []byte(`"DesiredCount":0`), []byte(`"DesiredCount":1`)
	if bytes.Count(idle, none) != 1 || bytes.Count(idle, one) != bytes.Count(all, one)-1 || !bytes.Equal(bytes.ReplaceAll(idle, none, one), all) {
		t.Error("with the registry idle the stack differs in more than that, or in nothing")
	}
}

// CloudFormation's bounds: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html.
func TestTemplateKeepsToTheBoundsOfCloudFormation(t *testing.T) {
	for name, text := range rendered(t, id.NewTenant()) {
		var read struct{ Resources, Parameters, Outputs map[string]any }
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if len(text) > 1<<20 || len(read.Resources) > 500 || len(read.Parameters) > 200 || len(read.Outputs) > 200 {
			t.Errorf("%s has %d bytes, %d resources, %d parameters, %d outputs", name, len(text), len(read.Resources), len(read.Parameters), len(read.Outputs))
		}
	}
}

func TestWhatCannotBeRenderedIsNamed(t *testing.T) {
	tenant := tenantSet(t, id.NewTenant(), dedicated)
	for name, c := range map[string]struct {
		change func(*stack.Input)
		want   string
	}{
		"account":                             {func(in *stack.Input) { in.Place.Account = "12" }, `account is "12": it is twelve digits`},
		"region":                              {func(in *stack.Input) { in.Place.Region = "here" }, `region is "here"`},
		"plane":                               {func(in *stack.Input) { in.Place.Plane = "" }, `plane is ""`},
		"plane, for its buckets":              {func(in *stack.Input) { in.Place.Plane = "acceptance" }, "S3 takes 63: give the plane"},
		"domain":                              {func(in *stack.Input) { in.Place.Domain = "localhost" }, `domain is "localhost"`},
		"image":                               {func(in *stack.Input) { in.Image = "latest" }, `image is "latest": it is a digest`},
		"tenant":                              {func(in *stack.Input) { in.Set.Tenant = id.Tenant{} }, `is no tenant's set`},
		"its own account that is the plane's": {func(in *stack.Input) { in.Place.Hub = in.Place.Account }, `another than the tenant's own`},
		"its own account and a shared server": {func(in *stack.Input) { in.Place.Hub, in.Set.Tier = ownAccount, database }, `of tier dedicated`},
	} {
		in := input(t, tenant)
		c.change(&in)
		if _, err := stack.Tenant(in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := stack.Plane(input(t, tenant)); err == nil {
		t.Error("a tenant's set is rendered as the plane's")
	}
}

// cfnLint is where .ci/run puts it, or where the path has it.
func cfnLint(t *testing.T) string {
	t.Helper()
	at, err := filepath.Abs("../../../../../../.cache/aws/bin/cfn-lint")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(at); err == nil {
		return at
	}
	at, err = exec.LookPath("cfn-lint")
	if err != nil {
		t.Skip("cfn-lint is not installed: the templates were not held against AWS's own schemas; see deploy/aws/requirements.txt")
	}
	return at
}

func TestTemplatesPassCfnLint(t *testing.T) {
	if testing.Short() {
		t.Skip("cfn-lint takes some seconds: the templates were not held against AWS's own schemas")
	}
	program, dir := cfnLint(t), t.TempDir()
	args := []string{"--regions", place.Region, "--format", "parseable"}
	for name, text := range rendered(t, id.NewTenant()) {
		file := filepath.Join(dir, name+".json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("%s\n%v", out, err)
	}
}

// Who logs in to the database, or migrates it, is given what verifies its server where fleet has that, and nobody else is.
func TestAuthoritiesOfTheDatabaseAreGivenToWhoLogsIn(t *testing.T) {
	for _, roots := range []bool{false, true} {
		in := input(t, tenantSet(t, id.NewTenant(), database))
		in.DatabaseRoots = roots
		made, err := stack.Tenant(in)
		placed := strings.Count(string(text(t, made, err)), `"`+stack.DatabaseRootsFile+`"`)
		given := 0
		for name, keys := range stack.Given(in) {
			c, _ := in.Set.Blueprint.Component(name)
			if has := slices.Contains(keys, stack.DatabaseRootsKey); has != (roots && (name == stack.Migration || len(c.Needs.Database) > 0)) {
				t.Errorf("with authorities %t, %s is given %q", roots, name, keys)
			} else if has {
				given++
			}
		}
		if placed != given || roots != (given > 1) {
			t.Errorf("with authorities %t, %d are given them and %d place them", roots, given, placed)
		}
	}
}

// No task of the plane's running is known by figures that ECS gives without being paid for: Container Insights would cost more than a tenth of a tenant,
// for every tenant, and keep tenants' names beyond their end.
func TestNobodyPaysForContainerInsights(t *testing.T) {
	down := 0
	for name, text := range rendered(t, id.NewTenant()) {
		for id, r := range parsed(t, text).Resources {
			if r.Type == "AWS::ECS::Cluster" && !reflect.DeepEqual(r.Properties["ClusterSettings"], []any{map[string]any{"Name": "containerInsights", "Value": "disabled"}}) {
				t.Errorf("%s: %s has the settings %v", name, id, r.Properties["ClusterSettings"])
			}
			if r.Type != "AWS::CloudWatch::Alarm" {
				continue
			}
			if r.Properties["Namespace"] == "ECS/ContainerInsights" {
				t.Errorf("%s: %s looks at what only Container Insights tells", name, id)
			}
			if r.Properties["Namespace"] == "AWS/ECS" {
				down++
				if r.Properties["Statistic"] != "SampleCount" || r.Properties["TreatMissingData"] != "breaching" || r.Properties["ComparisonOperator"] != "LessThanThreshold" {
					t.Errorf("%s: %s says nothing where no task runs: %v", name, id, r.Properties)
				}
			}
		}
	}
	if down < 2 {
		t.Errorf("%d alarms tell of services without tasks", down)
	}
}

// Whatever alarms, somebody hears it: those of a tenant's are told to the topic of the stack that the tenant's stands on, the plane's or that of an account of
// the tenant's own, which exports it.
func TestAlarmsAreTold(t *testing.T) {
	const topic = "Alarms"
	texts := rendered(t, id.NewTenant())
	seen := map[string][]string{}
	for name, want := range map[string]any{"plane": map[string]any{"Ref": topic}, "database": map[string]any{"Fn::ImportValue": "a3-dev-" + topic}, "dedicated": map[string]any{"Fn::ImportValue": "a3-dev-" + topic},
		"of-account": map[string]any{"Fn::ImportValue": "a3-dev-" + topic}, "account": map[string]any{"Ref": topic}} {
		var made struct {
			Resources map[string]struct {
				Type       string
				Properties struct{ AlarmActions []any }
			}
			Outputs map[string]struct{ Export *struct{ Name string } }
		}
		if err := json.Unmarshal(texts[name], &made); err != nil {
			t.Fatal(err)
		}
		for id, r := range made.Resources {
			if r.Type != "AWS::CloudWatch::Alarm" {
				continue
			}
			seen[name] = append(seen[name], id)
			if told := r.Properties.AlarmActions; !reflect.DeepEqual(told, []any{want}) {
				t.Errorf("%s of %s is told to %v, want %v", id, name, told, want)
			}
		}
		slices.Sort(seen[name])
		if (name == "plane" || name == "account") && (made.Outputs[topic].Export == nil || made.Outputs[topic].Export.Name != "a3-dev-"+topic) {
			t.Errorf("the stack %s does not export who is told", name)
		}
	}
	// CloudFormation changes no value that a tenant's stack imports: none is what somebody says who deploys the plane's, but S3's list, of which a Region has one; and what
	// has a version in its name is exported by it.
	for _, of := range []string{"plane", "account"} {
		template := parsed(t, texts[of])
		for name, o := range template.Outputs {
			var value any
			if err := json.Unmarshal(o.Value, &value); err != nil {
				t.Fatal(err)
			}
			m, _ := value.(map[string]any)
			named, _ := m["Ref"].(string)
			if _, asked := parameters(t, texts[of])[named]; o.Export != nil && asked && named != "S3PrefixList" {
				t.Errorf("%s exports %s as %s, which whoever deploys it may say otherwise", of, name, named)
			}
			group, _ := template.Resources[named].Properties["DBParameterGroupName"].(string)
			if o.Export != nil && group != "" && !strings.HasSuffix(group, strings.TrimPrefix(name, "DatabaseParameters")) {
				t.Errorf("%s exports %s as %s", of, group, name)
			}
		}
	}
	want := map[string][]string{"plane": {"DatabaseFull", "GatewayDown", "RegistryDown"}, "database": {"DeadLettersWait"}, "dedicated": {"DatabaseFull", "DeadLettersWait"},
		"of-account": {"DatabaseFull", "DeadLettersWait"}}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("the alarms are %v, want %v", seen, want)
	}
}
