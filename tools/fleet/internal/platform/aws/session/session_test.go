package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/smithy-go"

	"a3os.app/libs/ministacktest"
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

// Whose login ends in the midst of something is told so, and what to do, whatever was being called.
func TestEndOfASessionIsSaid(t *testing.T) {
	server := ministacktest.Start(t)
	over := server.Behind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included in the request is expired</Message></Error></ErrorResponse>`)
		return true
	})
	t.Setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_SESSION_TOKEN", "token")
	t.Setenv("AWS_ENDPOINT_URL", over.URL)
	cfg, err := session.Load(t.Context(), ministacktest.Region)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cloudformation.NewFromConfig(cfg).DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{})
	if api, is := errors.AsType[smithy.APIError](err); !is || api.ErrorCode() != "ExpiredToken" || !strings.Contains(err.Error(), "log in again, and go on with fleet operation resume") {
		t.Errorf("it is said: %v", err)
	}
}
