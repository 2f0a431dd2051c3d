package blueprint_test

import (
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
)

// Bounds that components share by YAML's aliases and merge keys are theirs as if each had written them.
func TestBoundsWrittenOnceHoldForAllWhoShareThem(t *testing.T) {
	const own = "name: store\n    resources: &r {memory: 1GiB, cpu: 4, pids: 4000}"
	whole := blueprint.Resources{Memory: 1 << 30, CPU: 4, PIDs: 4000}
	fewer := whole
	fewer.PIDs = 100
	for name, c := range map[string]struct {
		web  string
		want blueprint.Resources
	}{
		"an alias":                       {"resources: *r", whole},
		"a merge key":                    {"resources: {<<: *r, pids: 100}", fewer},
		"a merge key that comes last":    {"resources: {pids: 100, <<: *r}", fewer},
		"the first of several":           {"resources: {<<: [{pids: 100}, *r]}", fewer},
		"a merge key of a merge key":     {"resources: {<<: {<<: *r, pids: 100}}", fewer},
		"one value":                      {"resources: {memory: &m 1GiB, cpu: 4, pids: 4000}", whole},
		"a component that merges bounds": {"<<: {resources: *r}", whole},
		"none":                           {"resources: {}", blueprint.DefaultResources},
	} {
		text := strings.NewReplacer("name: store", own, "name: web", "name: web\n    "+c.web).Replace(tiny(t))
		b, err := blueprint.Parse("tiny.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := b.Components[1].Resources; got != c.want || b.Components[0].Resources != whole {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A fault in what is shared is named at the line where it stands.
func TestFaultBehindAnAliasIsNamedWhereItStands(t *testing.T) {
	text := strings.NewReplacer("name: store", "name: store\n    resources: &r\n      pids: 2", "name: web", "name: web\n    resources: *r").Replace(tiny(t))
	_, err := blueprint.Parse("tiny.yaml", []byte(text))
	line := strings.Count(text[:strings.Index(text, "pids: 2")], "\n") + 1
	for _, e := range flatten(err) {
		if f, ok := e.(*blueprint.Fault); !ok || f.Line != line { //nolint:errorlint // flattened
			t.Errorf("%v, want it of line %d", e, line)
		}
	}
	if len(flatten(err)) != 2 {
		t.Errorf("want a fault of each component: %v", err)
	}
}
