package blueprint_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
)

func TestOwnBlueprintsAreWhole(t *testing.T) {
	for name, load := range map[string]func() (*blueprint.Blueprint, error){"set": blueprint.AccessOS, "plane": blueprint.Plane} {
		b, err := load()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n := 0
		for _, wave := range b.Waves() {
			n += len(wave)
		}
		if n != len(b.Components) {
			t.Errorf("%s: %d of %d components start", name, n, len(b.Components))
		}
	}
}

func tiny(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/tiny.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAnyProgramCanBeASet(t *testing.T) {
	b, err := blueprint.Parse("tiny.yaml", []byte(tiny(t)))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, wave := range b.Waves() {
		for _, c := range wave {
			order = append(order, c.Name)
		}
	}
	if got := strings.Join(order, " "); got != "store web" {
		t.Errorf("components start in the order %q, want those first that others wait for", got)
	}
}

// Each fault is named by the line and the field that it stands in.
func TestFaultIsNamedByLineAndField(t *testing.T) {
	for name, c := range map[string]struct {
		old, now    string
		field, says string
	}{
		"unknown field":             {"artefact: tiny", "artefact: tiny\nreplicas: 3", "replicas", "no such field"},
		"unknown field deep down":   {"health: {port: api, path: /up}", "health: {port: api, path: /up, often: 3}", "components[0].health.often", "no such field"},
		"wrong type":                {"connections: 9", "connections: many", "database.roles.writer.connections", `"many" can't stand here`},
		"list of one":               {"scope: tenant", "scope: [tenant]", "scope", "a list can't stand here"},
		"fields where a list is":    {"after: [store]", "after: {store: 1}", "components[1].after", "several fields can't stand here"},
		"no scope":                  {"scope: tenant", "scope: everybody", "scope", "tenant or plane"},
		"component comes twice":     {"name: web", "name: store", "components[1].name", "comes twice"},
		"name that is no label":     {"name: web", "name: Web_1", "components[1].name", "DNS label"},
		"name of the gateway":       {"name: web", "name: gateway", "components[1].name", "a component of the plane's own set"},
		"name of the registry":      {"name: web", "name: registry", "components[1].name", "a component of the plane's own set"},
		"name of the server":        {"name: web", "name: postgres", "components[1].name", "a set's own database server"},
		"name of the shared server": {"name: web", "name: databases", "components[1].name", "that tenants share"},
		"name of the migration":     {"name: web", "name: migrate", "components[1].name", "owner's password"},
		"name of a recovery":        {"name: web", "name: recover-admin", "components[1].name", "admin in again"},
		"name of the reader":        {"name: web", "name: machine-reader", "components[1].name", "reads the platform's machine"},
		"service nobody has":        {"needs: {keys: [cookie]}", "needs: {keys: [cookie], plane: [nobody]}", "components[1].needs.plane[0]", "no service"},
		"field written twice":       {"name: web", "name: web\n    name: web", "components[1].name", "already"},
		"part of a process":         {"routes: [/]", "resources: {pids: 100.9}", "components[1].resources.pids", "whole number"},
		"part of a connection":      {"connections: 9", "connections: 9.7", "database.roles.writer.connections", "whole number"},
		"route that leads up":       {"routes: [/]", "routes: [/../x]", "components[1].routes[0]", "not a path prefix"},
		"route to nothing":          {"routes: [/]", "routes: [//]", "components[1].routes[0]", "not a path prefix"},
		"health that says nothing":  {"health: {port: api, path: /up}", "health: {}", "components[0].health", "left out"},
		"check of no health":        {"health: {port: api, path: /up}", "health: {check: [x]}", "components[0].health", "left out"},
		"field called null":         {"artefact: tiny", "artefact: tiny\nnull: 3", "null", "no such field"},
		"number for a text":         {"artefact: tiny", "artefact: 5", "artefact", "quote it"},
		"nothing where a list is":   {"after: [store]", "after:", "components[1].after", "nothing stands here"},
		"word for a switch":         {"scope: tenant", "scope: tenant\ntogether: yes", "together", "true or false"},
		"role that isn't there":     {"database: [writer]", "database: [reader]", "components[0].needs.database[0]", "no role"},
		"key that isn't there":      {"keys: [cookie]", "keys: [biscuit]", "components[1].needs.keys[0]", "no key"},
		"key without public half":   {"keys: [cookie]", "public_keys: [cookie]", "components[1].needs.public_keys[0]", "public half"},
		"unknown kind of key":       {"kind: random", "kind: rsa", "keys.cookie.kind", "not a kind of key"},
		"key it does not need":      {`{{.KeyFile "cookie"}}`, `{{.KeyFile "kek"}}`, "components[1].env.TINY_COOKIE_FILE", "not among its needs"},
		"role it does not need":     {`me={{.Address "api"}}`, `{{.DatabaseURLFile "writer"}}`, "components[1].env.TINY_WEB", "not among its needs"},
		"owner outside migrations":  {`{{.DatabaseURLFile "writer"}}`, `{{.OwnerURLFile}}`, "components[0].env.TINY_DATABASE_FILE", "migrations alone"},
		"fact that isn't one":       {`me={{.Address "api"}}`, `{{.Password}}`, "components[1].env.TINY_WEB", "Password"},
		"broken template":           {`me={{.Address "api"}}`, `{{.Address`, "components[1].env.TINY_WEB", "not a template"},
		"health at no port":         {"health: {port: api, path: /up}", "health: {port: ops, path: /up}", "components[0].health.port", "not one of its ports"},
		"route to two":              {"routes: [/]", "routes: [/, /]", "components[1].routes[1]", "leads to web already"},
		"after nobody":              {"after: [store]", "after: [stove]", "components[1].after[0]", "no component"},
		"connections without end":   {"connections: 9", "connections: 5000", "database.roles.writer.connections", "between 1 and 100"},
		"owner by name":             {"writer: {connections: 9}", "owner: {connections: 9}", "database.roles.owner", "not owner"},
		"key of marks in a set":     {"kind: random", "kind: mark", "keys.cookie.kind", "the plane's"},
		"key of proofs in a set":    {"kind: random", "kind: proof", "keys.cookie.kind", "the plane's"},
		"store without its key":     {"database:\n", "stores:\n  safe: {kind: secret}\ndatabase:\n", "stores.safe.key", "sealed to"},
		"memory without a unit":     {"routes: [/]", "resources: {memory: 64}", "", "as 64MiB"},
		"memory too small":          {"routes: [/]", "resources: {memory: 1MiB}", "components[1].resources.memory", "between"},
		"no processor":              {"routes: [/]", "resources: {cpu: -1}", "components[1].resources.cpu", "between"},
		"not a number of them":      {"routes: [/]", "resources: {cpu: .nan}", "components[1].resources.cpu", "between"},
		"processes without end":     {"routes: [/]", "resources: {pids: 1000000}", "components[1].resources.pids", "between"},
		"answers at no path":        {"artefact: tiny", "artefact: tiny\nanswers: up", "answers", "not a path"},
		"copy of a tenant's":        {"needs: {keys: [cookie]}", "needs: {keys: [cookie], copied: x}", "components[1].needs.copied", "name a store"},
		"copied without a database": {"scope: tenant", "scope: tenant\nbackup: {key: cookie, copied: {log_key: cookie}}", "backup.copied", "only there"},
		"front door of a tenant":    {"needs: {keys: [cookie]}", "needs: {keys: [cookie], front_door: true}", "components[1].needs.front_door", "belongs to the plane"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(tiny(t), c.old, c.now, 1)
			if text == tiny(t) {
				t.Fatalf("%q is not in the file", c.old)
			}
			_, err := blueprint.Parse("tiny.yaml", []byte(text))
			if err == nil {
				t.Fatal("it was accepted")
			}
			var named *blueprint.Fault
			for _, e := range flatten(err) {
				if f, ok := errors.AsType[*blueprint.Fault](e); ok && f.Field == c.field && strings.Contains(f.Text, c.says) {
					named = f
				}
			}
			if named == nil {
				t.Fatalf("no fault of %q says %q: %v", c.field, c.says, err)
			}
			line := strings.Split(text, "\n")[named.Line-1]
			last := c.field[strings.LastIndexAny(c.field, ".")+1:]
			last, _, _ = strings.Cut(last, "[")
			if !strings.Contains(line, last) && !strings.Contains(line, strings.TrimSpace(lastLine(c.now))) {
				t.Errorf("the fault of %q is said to be in line %d, which reads %q", c.field, named.Line, line)
			}
		})
	}
}

// The plane's own components have names that are refused to a tenant's alone.
func TestNamesOfThePlaneAreTakenFromTenantsAlone(t *testing.T) {
	plane, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plane.Components {
		if blueprint.Taken(blueprint.ScopeTenant)[c.Name] == "" || blueprint.Taken(blueprint.ScopePlane)[c.Name] != "" {
			t.Errorf("%s: a tenant's component may be called so, or the plane's may not", c.Name)
		}
	}
	for _, name := range []string{"front", "sample-postgres"} {
		if blueprint.Taken(blueprint.ScopePlane)[name] == "" || blueprint.Taken(blueprint.ScopeTenant)[name] != "" {
			t.Errorf("%s: a component of the plane may be called so, or a tenant's may not", name)
		}
	}
}

func lastLine(s string) string { return s[strings.LastIndex(s, "\n")+1:] }

func flatten(err error) []error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range several.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

func TestCircleOfComponentsIsRefused(t *testing.T) {
	text := strings.Replace(tiny(t), "ports: [api]\n    health: {port: api, path: /up}", "ports: [api]\n    after: [web]\n    health: {port: api, path: /up}", 1)
	_, err := blueprint.Parse("tiny.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "wait for each other") {
		t.Errorf("got %v", err)
	}
}

func TestWhatNoSetCouldWorkWithIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		changes    []string
		want, well string
	}{
		"answers where no route leads": {[]string{"artefact: tiny", "artefact: tiny\nanswers: /up", "routes: [/]", "routes: [/api/]"}, "answers: no component's routes lead", "routes: [/api/, /u]"},
		"a store that nobody writes": {[]string{"database:\n", "stores: {pictures: {kind: blob}}\ndatabase:\n", "keys: [cookie]", "keys: [cookie], reads_stores: [pictures]"},
			"components[1].needs.reads_stores[0]: no component writes", ""},
		"two that issue certificates": {[]string{"[writer]", "[writer], issuing_authority: true", "keys: [cookie]", "keys: [cookie], issuing_authority: true"},
			"components[1].needs.issuing_authority: store has that already", ""},
		"two that let the admin in": {[]string{"[writer]", "[writer], first_admin: true", "keys: [cookie]", "keys: [cookie], first_admin: true"},
			"components[1].needs.first_admin: store has that already", ""},
	} {
		text := strings.NewReplacer(c.changes...).Replace(tiny(t))
		if _, err := blueprint.Parse("tiny.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if c.well != "" {
			if _, err := blueprint.Parse("tiny.yaml", []byte(strings.ReplaceAll(text, c.changes[len(c.changes)-1], c.well))); err != nil {
				t.Errorf("%s: the control: %v", name, err)
			}
		}
	}
}

func TestOneComponentReportsForItsSet(t *testing.T) {
	text := strings.NewReplacer("needs: {database: [writer]}", "needs: {database: [writer], plane: [registry]}", "needs: {keys: [cookie]}", "needs: {keys: [cookie], plane: [registry]}").Replace(tiny(t))
	_, err := blueprint.Parse("tiny.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "components[1].needs.plane: store reports to the registry already") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentHoldsWhatWasToldAndNoEmptyValue(t *testing.T) {
	f := blueprint.Facts{Plane: "dev", Addresses: map[string]string{"api": "127.0.0.1:1"}}
	got, err := f.Environ(map[string]string{"A": "{{.Plane}}", "C": "{{.Slug}}"}, map[string]string{"B": `{{.Address "api"}}`, "A": "own"})
	if err != nil || !slices.Equal(got, []string{"A=own", "B=127.0.0.1:1"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
