package stack_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
)

// Ahead of a change that adds a store and a component, and takes a component away, a stack has all that it had, as it was, and all that it lacked, at rest. Who
// was let in is, beside the custodian of what is new. Of what it has once there is nothing to be had ahead again, nor of another release of the same set.
func TestWhatAStackLacksComesAheadOfItsChange(t *testing.T) {
	set := tenantSet(t, id.NewTenant(), dedicated)
	made, err := stack.Tenant(input(t, set))
	deployed := text(t, made, err)
	next := input(t, set)
	next.Running, next.Set.Blueprint = false, changed(t, set.Blueprint,
		"stores:\n", "stores:\n  clips: {kind: blob, named: SELECT ''}\n  pins: {kind: secret, key: secrets, named: SELECT ''}\n",
		"stores: [secrets, objects]\n    ports", "stores: [secrets, objects, clips, pins]\n    ports",
		"  - name: audit\n", "  - name: clock\n",
		"keys:\n  kek:", "keys:\n  hands: {kind: random}\n  kek:",
		"keys: [log], plane", "keys: [log], public_keys: [secrets], plane")
	made, err = stack.Tenant(next)
	then := text(t, made, err)
	ahead, err := stack.Ahead(deployed, then)
	if err != nil || ahead == nil {
		t.Fatal(string(ahead), err)
	}

	is, was, will := parts(t, ahead), parts(t, deployed), parts(t, then)
	for _, of := range []string{"Resources", "Outputs", "Parameters"} {
		both := maps.Clone(will[of])
		maps.Copy(both, was[of])
		if !slices.Equal(slices.Sorted(maps.Keys(is[of])), slices.Sorted(maps.Keys(both))) {
			t.Errorf("of %s there is %q", of, slices.Sorted(maps.Keys(is[of])))
		}
		for name, x := range is[of] {
			if !reflect.DeepEqual(x, both[name]) && name != "Key" && name != "CustodianRole" {
				t.Errorf("%s of %s is neither as it was nor as it is to be", name, of)
			}
		}
	}
	if !strings.Contains(string(ahead), `"DesiredCount":0`) || is["Resources"]["StoreClips"] == nil || is["Resources"]["Audit"] == nil {
		t.Error("it has no store more, nothing at rest, or what goes has gone")
	}
	policies := func(template map[string]map[string]any) string {
		out, err := json.Marshal([]any{template["Resources"]["Key"], template["Resources"]["CustodianRole"]})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, template := range []map[string]map[string]any{was, will} {
		for part := range strings.FieldsFuncSeq(policies(template), func(r rune) bool { return r == '"' }) {
			if !strings.Contains(policies(is), part) {
				t.Errorf("the key and the custodian say nothing of %q", part)
			}
		}
	}
	found, err := stacktest.Rules(read(t, ahead))
	if err != nil || len(found) > 0 {
		t.Errorf("it breaks rules: %q, %v", found, err)
	}

	if more, err := stack.Ahead(ahead, then); more != nil || err != nil {
		t.Errorf("ahead of what is there comes %s, %v", more, err)
	}
	other := input(t, set)
	other.Release.Version, other.Image = "2.0.0", strings.Replace(image, "1", "2", 1)
	made, err = stack.Tenant(other)
	if more, err := stack.Ahead(deployed, text(t, made, err)); more != nil || err != nil {
		t.Errorf("ahead of another release comes %s, %v", more, err)
	}
}
