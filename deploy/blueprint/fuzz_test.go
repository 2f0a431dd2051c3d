package blueprint_test

import (
	"os"
	"reflect"
	"testing"

	"gopkg.in/yaml.v3"

	"a3os.app/deploy/blueprint"
)

// FuzzParse gives the reader any text. What it takes is a blueprint: written as YAML and read again it is taken too, and is the same.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"accessos.yaml", "plane.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, s := range []string{"", "a: b", "name: x\nname: y", "&a [*a]", "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]", "---\n---", "name: !!binary x", "components: [null]", "keys: {a: null}",
		"name: x\nscope: tenant\ndatabase: {roles: [null]}\ncomponents:\n- name: a\n  env: {A: '{{'}", "name: a\nartefact: a\nscope: plane\ncomponents: [{name: a}]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		old, refused := blueprint.ParseKept("fuzzed.yaml", text)
		b, err := blueprint.Parse("fuzzed.yaml", text)
		if err != nil {
			return
		}
		if refused != nil || !reflect.DeepEqual(old, b) {
			t.Fatalf("%q is taken, and kept it is %+v, %v", text, old, refused)
		}
		if b.Name == "" || len(b.Components) == 0 {
			t.Fatalf("%q is a blueprint of nothing", text)
		}
		written, err := yaml.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := blueprint.Parse("again.yaml", written)
		if err != nil {
			t.Fatalf("%q is taken, and written again it is not: %v\n%s", text, err, written)
		}
		twice, err := yaml.Marshal(again)
		if err != nil || string(twice) != string(written) {
			t.Fatalf("written twice it differs: %v\n%s\n%s", err, written, twice)
		}
	})
}
