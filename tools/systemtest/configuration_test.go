package systemtest

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Wall two begins before a process serves: a role that is told something it doesn't know, or what belongs to another role, does not start,
// and names it. Each is started as it runs now, with one variable more, or with a sibling's configuration.
func TestRoleRefusesConfigurationThatIsNotItsOwn(t *testing.T) {
	full(t)
	t.Parallel()
	processes := map[string]string{"gateway": "plane/gateway", "registry": "plane/registry"}
	for component := range acme().addresses {
		processes[component] = acme().id + "/" + component
	}
	environments := map[string]map[string]string{}
	for role, process := range processes {
		environments[role] = shared.environment(t, process)
	}
	type attempt struct {
		what, role string
		environ    map[string]string
		named      string
	}
	var all []attempt
	for role, own := range environments {
		const strange = "A3_NO_SUCH_THING"
		more := maps.Clone(own)
		more[strange] = "canary-4711"
		all = append(all, attempt{"an unknown variable", role, more, strange})
		for sibling, other := range environments {
			for variable := range other {
				if _, known := own[variable]; !known && strings.HasPrefix(variable, "A3_") && sibling != role {
					all = append(all, attempt{"what " + sibling + " is told", role, other, variable})
					break
				}
			}
		}
	}
	crowd(all, func(a attempt) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "accessos"), a.role)
		for k, v := range a.environ {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, err := cmd.CombinedOutput()
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s with %s: it started: %.300s", a.role, a.what, out)
		} else if !strings.Contains(string(out), a.named) || strings.Contains(string(out), "canary-4711") {
			t.Errorf("%s with %s: it doesn't name %s, or repeats its value: %.300s", a.role, a.what, a.named, out)
		}
	})
	if len(all) < len(processes)*len(processes) {
		t.Errorf("only %d were tried: %v", len(all), fmt.Sprint(slices.Sorted(maps.Keys(processes))))
	}
}
