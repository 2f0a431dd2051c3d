package stack_test

import (
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// A session's policy is as short as AWS takes one, in the Region and plane with the longest names, and names its tenant wherever it allows more
// than to look or what RDS alone gives names.
func TestPolicyOfASessionFitsAndNamesItsTenant(t *testing.T) {
	tenant := id.NewTenant().String()
	for _, plane := range []string{"dev", "prod"} {
		text, err := stack.Session(stack.Place{Account: "123456789012", Region: "ap-southeast-1", Plane: plane, Domain: "a3os.example"}, tenant)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d characters", len(text))
		if len(text) > 2048 {
			t.Errorf("the policy has %d characters", len(text))
		}
		if n := strings.Count(text, tenant[len("tnt_"):]); n < 15 {
			t.Errorf("it names the tenant %d times: %s", n, text)
		}
	}
}
