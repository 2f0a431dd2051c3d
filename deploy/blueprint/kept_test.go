package blueprint_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
)

// kept are blueprints that releases were made by, by file.
func kept(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "kept", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(file)] = string(text)
	}
	const some = 22 // more are added with each rule, and none goes
	if len(out) < some {
		t.Fatalf("there are %d blueprints that releases were made by, and there were %d", len(out), some)
	}
	return out
}

// What a release was made by is taken for ever: its text is signed and can't be mended, and its sets are started by it, and left.
func TestWhatReleasesWereMadeByIsTakenForEver(t *testing.T) {
	for file, text := range kept(t) {
		b, err := blueprint.ParseKept(file, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		n := 0
		for _, wave := range b.Waves() {
			n += len(wave)
		}
		if string(b.Text) != text || n != len(b.Components) {
			t.Errorf("%s: of %d components %d start", file, len(b.Components), n)
		}
	}
}

// A new blueprint is held to rules that those of before are not held to.
func TestNewBlueprintIsHeldToRulesThatCameSince(t *testing.T) {
	texts := kept(t)
	for file, wants := range map[string][]string{
		"notes-gateway.yaml": {"components[0].name: \"gateway\" is the name of"},
		"notes-sample.yaml":  {"components[0].name: \"sample\" is the name of"},
		"notes-number.yaml":  {"components[0].command[1]: \"8080\" is not a text"},
		"notes-nothing.yaml": {"components[0].after: nothing stands here"},
		"notes-null.yaml":    {"components[0].routes: nothing stands here"},
		"notes-word.yaml":    {"components[0].needs.outside: \"yes\" is not a switch"},
		"notes-slips.yaml": {"answers: no component's routes", "backup.verify.command: it is missing", "recover_admin.command: it is missing", "statement_timeout: \"10 min\" is no time", "components[0].health: ",
			"resources.cpu: 0 is not between", "resources.pids: \"100.9\" is not a whole number", "no service \"nobody\"", "no component writes the store \"pictures\"", "first_admin: store has that", "routes[0]: \"/notes//x\" is not a path prefix"},
	} {
		_, err := blueprint.Parse(file, []byte(texts[file]))
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", file, err, want)
			}
		}
	}
}

// A kept blueprint is what a fleet of its time read in it.
func TestKeptBlueprintIsReadAsItWas(t *testing.T) {
	texts := kept(t)
	component := func(file string, i int) blueprint.Component {
		t.Helper()
		b, err := blueprint.ParseKept(file, []byte(texts[file]))
		if err != nil {
			t.Fatal(err)
		}
		return b.Components[i]
	}
	if got := component("notes-number.yaml", 0).Command; !reflect.DeepEqual(got, []string{"store", "8080"}) {
		t.Errorf("a number in a command is %q", got)
	}
	if c := component("notes-nothing.yaml", 0); c.Name != "store" || c.After != nil {
		t.Errorf("nothing to start after is %q", c.After)
	}
	if c := component("notes-null.yaml", 0); c.Routes != nil {
		t.Errorf("no routes are %q", c.Routes)
	}
	if !component("notes-word.yaml", 0).Needs.Outside {
		t.Error("yes is no")
	}
	if got, want := component("notes-slips.yaml", 0).Resources, (blueprint.Resources{Memory: 64 << 20, CPU: blueprint.DefaultResources.CPU, PIDs: 100}); got != want {
		t.Errorf("bounds beyond what they may be are %+v, want %+v", got, want)
	}
}

// What can't be carried out is refused in a kept blueprint too: a later fleet's field, or what isn't there.
func TestKeptBlueprintThatCanNotBeCarriedOutIsRefused(t *testing.T) {
	for what, c := range map[string]struct{ old, now, says string }{
		"a field of later":   {"artefact: tiny", "artefact: tiny\nreplicas: 3", "tiny.yaml:4: replicas: there is no such field"},
		"a kind of later":    {"kind: random", "kind: rsa", "not a kind of key"},
		"what isn't there":   {"keys: [cookie]", "keys: [biscuit]", "no key"},
		"what isn't needed":  {`me={{.Address "api"}}`, `{{.DatabaseURLFile "writer"}}`, "not among its needs"},
		"a word of a number": {"connections: 9", "connections: many", "can't stand here"},
		"a circle":           {"needs: {database: [writer]}", "needs: {database: [writer]}\n    after: [web]", "wait for each other"},
		"another's key":      {"needs: {database: [writer]}", "needs: {database: [writer], keys: [cookie]}", "one holder"},
	} {
		text := strings.Replace(tiny(t), c.old, c.now, 1)
		if _, err := blueprint.ParseKept("tiny.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", what, err, c.says)
		}
	}
}
