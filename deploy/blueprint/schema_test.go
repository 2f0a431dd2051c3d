package blueprint_test

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"a3os.app/deploy/blueprint"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(blueprint.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("blueprint.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("blueprint.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestSchemaTakesOwnBlueprints(t *testing.T) {
	s := schema(t)
	for _, name := range []string{"accessos.yaml", "plane.yaml", "testdata/tiny.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the schema refuses, Parse refuses too: an editor that knows the schema never says less than fleet does later.
func TestSchemaRefusesNothingThatParseTakes(t *testing.T) {
	s := schema(t)
	for _, c := range []struct{ old, now string }{
		{"artefact: tiny", "artefact: tiny\nreplicas: 3"}, {"artefact: tiny\n", ""}, {"connections: 9", "connections: many"}, {"connections: 9", "connections: 5000"},
		{"scope: tenant", "scope: everybody"}, {"name: web", "name: Web_1"}, {"name: web", "name: postgres"}, {"name: web", "name: migrate"}, {"kind: random", "kind: rsa"}, {"writer: {connections: 9}", "owner: {connections: 9}"},
		{"kind: random", "kind: note"}, {"database:\n", "stores:\n  safe: {kind: secret}\ndatabase:\n"}, {"routes: [/]", "routes: [/, /]"}, {"routes: [/]", "routes: [no]"},
		{"health: {port: api, path: /up}", "health: {port: api}"}, {"routes: [/]", "resources: {memory: 64}"}, {"routes: [/]", "resources: {cpu: 0}"}, {"routes: [/]", "resources: {pids: 0}"},
		{"writer: {connections: 9}", "reader: {connections: 9}"}, {"connections: 9", "connections: 9, statement_timeout: soon"}, {"connections: 9", "connections: 9, idle_session_timeout: 10 minutes"},
		{"connections: 9", "connections: 9, statement_timeout: -1"}, {"path: /up", "path: up"}, {"database:\n", "recover_admin: {env: {A: x}}\ndatabase:\n"}, {"artefact: tiny", "artefact: tiny\nenv: {A_B: [1]}"},
		{"routes: [/]", "resources: {pids: 2}"}, {"artefact: tiny", "artefact: tiny\nanswers: up"}, {"artefact: tiny", "artefact: tiny\nenv: {lower: x}"},
	} {
		text := strings.Replace(tiny(t), c.old, c.now, 1)
		if text == tiny(t) {
			t.Fatalf("%q is not in the file", c.old)
		}
		if valid(t, s, []byte(text)) == nil {
			t.Errorf("the schema takes %q", c.now)
		}
		if _, err := blueprint.Parse("tiny.yaml", []byte(text)); err == nil {
			t.Errorf("Parse takes %q", c.now)
		}
	}
}

// What Parse takes, the schema takes too: numbers where text is meant, as people write them.
func TestSchemaTakesWhatParseTakes(t *testing.T) {
	s := schema(t)
	for _, c := range []struct{ old, now string }{
		{"artefact: tiny", "artefact: tiny\nenv: {PORT: 5, ON: true, RATE: 0.5}"}, {"connections: 9", "connections: 9, statement_timeout: 0, idle_session_timeout: 500ms"},
		{"connections: 9", "connections: 9, statement_timeout: 30s, idle_session_timeout: 5min"}, {"routes: [/]", "resources: {memory: 64MiB, cpu: 0.5, pids: 100}"}, {"database:\n", "recover_admin: {}\ndatabase:\n"},
	} {
		text := strings.Replace(tiny(t), c.old, c.now, 1)
		if err := valid(t, s, []byte(text)); err != nil {
			t.Errorf("the schema refuses %q: %v", c.now, err)
		}
		if _, err := blueprint.Parse("tiny.yaml", []byte(text)); err != nil {
			t.Errorf("Parse refuses %q: %v", c.now, err)
		}
	}
}

// The schema names every field that Parse knows, with words beside it, and no other.
func TestSchemaAndTypesNameTheSameFields(t *testing.T) {
	var doc struct {
		Properties map[string]property `yaml:"properties"`
		Defs       map[string]struct {
			Properties map[string]property `yaml:"properties"`
		} `yaml:"$defs"`
	}
	if err := yaml.Unmarshal(blueprint.Schema, &doc); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		of   any
		got  map[string]property
	}{
		{"blueprint", blueprint.Blueprint{}, doc.Properties},
		{"key", blueprint.Key{}, doc.Defs["key"].Properties},
		{"store", blueprint.Store{}, doc.Defs["store"].Properties},
		{"database", blueprint.Database{}, doc.Defs["database"].Properties},
		{"role", blueprint.Role{}, doc.Defs["role"].Properties},
		{"migrate", blueprint.Migrate{}, doc.Defs["migrate"].Properties},
		{"backup", blueprint.Backup{}, doc.Defs["backup"].Properties},
		{"one_off", blueprint.OneOff{}, doc.Defs["one_off"].Properties},
		{"component", blueprint.Component{}, doc.Defs["component"].Properties},
		{"needs", blueprint.Needs{}, doc.Defs["needs"].Properties},
		{"health", blueprint.Health{}, doc.Defs["health"].Properties},
		{"resources", blueprint.Resources{}, doc.Defs["resources"].Properties},
	} {
		var want []string
		for f := range reflect.TypeOf(c.of).Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "-" { // worked out, and never written
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(c.got)); !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %q, the type %q", c.name, got, want)
		}
		for name, p := range c.got {
			if p.Description == "" {
				t.Errorf("%s.%s: no words say what it is", c.name, name)
			}
		}
	}
}

type property struct {
	Description string `yaml:"description"`
}
