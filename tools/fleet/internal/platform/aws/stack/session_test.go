package stack_test

import (
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/acceptance"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// A session's policy and the name of the one that it is given besides are as short as AWS takes them together, in the Region and plane with the longest names, and names its tenant wherever it allows more
// than to look or what RDS alone gives names.
func TestPolicyOfASessionFitsAndNamesItsTenant(t *testing.T) {
	tenant := id.NewTenant().String()
	for _, plane := range []string{"dev", "prod", acceptance.Plane} {
		at := stack.Place{Account: "123456789012", Region: "ap-southeast-1", Plane: plane, Domain: "a3os.example"}
		text, err := stack.Session(at, tenant)
		if err != nil {
			t.Fatal(err)
		}
		n := len(text) + max(len(at.SessionPolicy()), len(at.MakingPolicy()))
		t.Logf("%s: %d characters, %d with the policy besides", plane, len(text), n)
		if n > 2048 {
			t.Errorf("%s: the policies have %d characters", plane, n)
		}
		if n := strings.Count(text, tenant[len("tnt_"):]); n < 15 {
			t.Errorf("it names the tenant %d times: %s", n, text)
		}
	}
	if text, err := stack.Session(stack.Place{Account: "123456789012", Region: "ap-southeast-1", Plane: "acceptance", Domain: "a3os.example"}, tenant); err == nil {
		t.Errorf("%d characters are taken", len(text))
	}
}
