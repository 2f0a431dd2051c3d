package session_test

import (
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/platform/aws/session"
)

func TestOnlyCredentialsThatEndAreUsed(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	for name, c := range map[string]struct{ key, token, want string }{
		"a session":        {"ASIAEXAMPLE", "token", ""},
		"a long-lived key": {"AKIAEXAMPLE", "", "long-lived key"},
		"one with a token": {"AKIAEXAMPLE", "token", "long-lived key"},
		"an odd key":       {"test", "", "long-lived key"},
		"nothing":          {"", "", "find credentials of AWS"},
	} {
		t.Setenv("AWS_ACCESS_KEY_ID", c.key)
		t.Setenv("AWS_SECRET_ACCESS_KEY", c.key)
		t.Setenv("AWS_SESSION_TOKEN", c.token)
		_, err := session.Load(t.Context(), "eu-central-1")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && c.key != "" && strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: the error has the key", name)
		}
	}
}
