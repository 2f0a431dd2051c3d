package stack_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// What migrates runs ahead of its release's stack, by the definition of the one before, and is told all the same what the release's own would tell it.
func TestMigrationIsToldWhatItsOwnDefinitionWouldTell(t *testing.T) {
	in := input(t, tenantSet(t, id.NewTenant(), dedicated))
	in.Set.Blueprint = changed(t, in.Set.Blueprint, "  roles:\n    iam:", "  roles:\n    clock: {connections: 2, schemas: [audit]}\n    iam:")
	made, err := stack.Tenant(in)
	definition := parts(t, text(t, made, err))["Resources"]["MigrateTask"].(map[string]any)["Properties"].(map[string]any)
	command, environ, err := stack.Migrating(in)
	if err != nil || !slices.Equal(command, []string{"migrate"}) {
		t.Fatal(command, err)
	}
	var want []string
	for _, c := range definition["ContainerDefinitions"].([]any) {
		if of := c.(map[string]any); of["Name"] == stack.Migration {
			for _, kv := range of["Environment"].([]any) {
				want = append(want, kv.(map[string]any)["Name"].(string)+"="+kv.(map[string]any)["Value"].(string))
			}
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(environ)), slices.Sorted(slices.Values(want))) || len(want) < 3 {
		t.Errorf("it is told %q, and its own definition tells %q", environ, want)
	}
}

// changed is a blueprint with texts in the place of others.
func changed(t *testing.T, b *blueprint.Blueprint, texts ...string) *blueprint.Blueprint {
	t.Helper()
	text := string(b.Text)
	for pair := range slices.Chunk(texts, 2) {
		if strings.Count(text, pair[0]) != 1 {
			t.Fatalf("%q stands in the blueprint %d times", pair[0], strings.Count(text, pair[0]))
		}
		text = strings.Replace(text, pair[0], pair[1], 1)
	}
	out, err := blueprint.Parse("accessos.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parts(t *testing.T, template []byte) map[string]map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(template, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for name, part := range all {
		if of, is := part.(map[string]any); is {
			out[name] = of
		}
	}
	return out
}
