package blueprint_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"

	"a3os.app/deploy/blueprint"
)

// others are what somebody may write where something else belongs.
var others = []string{`""`, "x", "5", "0", "-1", "1.5", "1e2", "true", "yes", "null", "[]", "{}", "[x]", "{a: b}", "[null]", "UPPER", "/", "/../x", "64", "+64MiB", "064MiB", "2020-01-01", "!!binary eA==", "!own x", "30s",
	"registry", "{<<: {a: b}}", "{5: x}", "{true: x}", "[{}]", `[""]`, "[[x]]"}

// What Parse takes, the schema takes, and so does ParseKept as the same: for blueprints in which something else was put in the place of any one thing,
// or one was left out, written twice, or called otherwise.
func TestWhatParseTakesOfChangedBlueprintsTheSchemaTakes(t *testing.T) {
	s := schema(t)
	const most = 400 // of each file: a few of all places and values, others each time
	seed := rand.Uint64()
	chosen := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // which changes are tried is no secret
	for _, name := range []string{"accessos.yaml", "plane.yaml", "testdata/tiny.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := changes(t, text)
		chosen.Shuffle(len(changed), func(i, j int) { changed[i], changed[j] = changed[j], changed[i] })
		taken := 0
		for _, c := range changed[:min(most, len(changed))] {
			now := c.text()
			b, err := blueprint.Parse(name, now)
			old, refused := blueprint.ParseKept(name, now)
			if err != nil {
				continue
			}
			taken++
			if refused != nil || !reflect.DeepEqual(old, b) {
				t.Errorf("%s, seed %d: Parse takes it with %s, and kept it is %+v, %v", name, seed, c.what, old, refused)
			}
			if err := valid(t, s, now); err != nil {
				t.Errorf("%s, seed %d: Parse takes it with %s, and the schema doesn't: %v", name, seed, c.what, err)
			}
		}
		if taken == 0 {
			t.Errorf("%s: Parse takes nothing, and so nothing was tried", name)
		}
	}
}

type change struct {
	what string
	text func() []byte
}

func changes(t *testing.T, text []byte) []change {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	var out []change
	add := func(what string, at *yaml.Node, do func()) {
		out = append(out, change{what: what, text: func() []byte {
			was := *at
			defer func() { *at = was }()
			do()
			now, err := yaml.Marshal(&root)
			if err != nil {
				t.Fatal(err)
			}
			return now
		}})
	}
	var walk func(node *yaml.Node)
	walk = func(node *yaml.Node) {
		for i, child := range node.Content {
			for _, other := range others {
				add(fmt.Sprintf("%s for %q in line %d", other, child.Value, child.Line), child, func() {
					var doc yaml.Node
					if err := yaml.Unmarshal([]byte(other), &doc); err != nil {
						t.Fatal(err)
					}
					*child = *doc.Content[0]
				})
			}
			step := 1
			if node.Kind == yaml.MappingNode {
				step = 2
			}
			if i%step == 0 {
				add(fmt.Sprintf("%q of line %d left out", child.Value, child.Line), node, func() { node.Content = slices.Delete(slices.Clone(node.Content), i, i+step) })
				add(fmt.Sprintf("%q of line %d twice", child.Value, child.Line), node, func() {
					node.Content = slices.Insert(slices.Clone(node.Content), i, node.Content[i:i+step]...)
				})
			}
			walk(child)
		}
	}
	walk(root.Content[0])
	return out
}
